//! Cgroup path -> pod uid, container id, systemd unit.
//!
//! A path is read once, from the root to the leaf. A component matches one of these rules, or is ignored:
//!
//! ```text
//! pod        = [ name "-" ] "pod" uid [ ".slice" ]
//! uid        = 8hex "-" 4hex "-" 4hex "-" 4hex "-" 12hex   cgroupfs driver
//!            | the same with "_"                           systemd driver: "-" would begin a slice within a slice
//!            | 32hex                                       static pod: the hash of its manifest
//! container  = [ runtime "-" ] 64hex [ ".scope" ]          Docker, containerd, CRI-O, podman, nerdctl
//!            | 32hex "-" 7*10digit                         ECS on Fargate 1.4
//!            | 8hex 4*( "-" 4hex )                         Garden (Cloud Foundry): the handle of an instance
//!            | a uid with "-"                              Garden (Concourse)
//! guest      = "lxc" "/" name | "lxc.payload." name        LXC, LXD, Incus
//! unit       = name "." ( "service" | "scope" | "mount" | "socket" | "swap" )
//! ```
//!
//! A path for runc's systemd driver has the form `slice:runtime:id`. runc's cgroupfs driver makes one directory of that name, which
//! is read as three components.
//!
//! # Decisions
//!
//! | case | decision |
//! | --- | --- |
//! | container in a container, no pod (Docker in Docker) | the inner container: the outer one is the same for all that it contains |
//! | pod in a container (kind, minikube) | the pod and its container; the outer container is the node |
//! | container or pod in a pod's container (Docker or kind in a pod) | the outer pod and its container: the node's API server knows only these |
//! | cgroups below a container (`…/kube-proxy`, `….scope/container`) | the container |
//! | sandbox of a pod (pause) | a container, although its id is in no status of the API |
//! | `crio-conmon-ID.scope`, `libpod-conmon-ID.scope` | a unit, outside of pods: the monitor of a container |
//! | conmon directly in a pod's slice (CRI-O's `conmon_cgroup = "pod"`) | the pod |
//! | `machine-libpod_pod_ID.slice`, `/libpod_parent/ID` | neither a container nor a Kubernetes pod: a podman pod |
//! | `/ecs/UUID` | no container: an ECS task, which contains some |
//! | unit within a unit (`user@1000.service/…/x.service`) | the outer unit, as in systemd's own tools (`systemctl status PID`, `_SYSTEMD_UNIT` in the journal) |
//! | unit below or above a container without a pod | both: a podman quadlet is a container in a service, and a kind node is a container with services |
//! | unit in an LXC guest | the guest, as `lxc/NAME`; it has no container id |
//! | slices | no units: systemd starts no process directly in a slice |
//! | `/podruntime/NAME`, `/system/NAME`, `/init` | units: Talos has these cgroups and no systemd |
//!
//! Sources: the paths of `testdata/cgroups/paths.tsv`, each with its own; systemd's `cg_path_get_unit` (src/basic/cgroup-util.c);
//! kubelet's `GetPodContainerName` and `ToSystemd` (pkg/kubelet/cm); podman's libpod/runtime_pod_linux.go.

use std::borrow::Cow;

use crate::{
    hex::{UUID, is_grouped_hex, is_hex},
    unit,
};

/// Pod, container and unit of a cgroup's processes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity<'a> {
    /// Uid of the Kubernetes pod, as the API server writes it: with dashes, or 32 hexadecimal digits for a static pod.
    pub pod_uid: Option<Cow<'a, str>>,
    /// Id of the container, as its runtime writes it.
    pub container_id: Option<&'a str>,
    /// The systemd unit, outside of pods. A transient unit has `*` in place of its number or id, and a login session has the
    /// slice of its user, so that the number of values does not grow with time.
    pub unit: Option<Cow<'a, str>>,
}

impl<'a> Identity<'a> {
    /// Reads the path of a cgroup within its hierarchy.
    pub fn of_path(path: &'a str) -> Self {
        let mut identity = Self::default();
        let mut parent = "";
        for component in components(path) {
            if let Some(uid) = read_pod(component) {
                if identity.pod_uid.is_none() {
                    identity = Self {
                        pod_uid: Some(uid),
                        ..Self::default()
                    };
                }
            } else if let Some(id) = read_container(parent, component) {
                if identity.pod_uid.is_none() || identity.container_id.is_none() {
                    identity.container_id = Some(id);
                }
            } else if identity.pod_uid.is_none() {
                if let Some(guest) = read_guest(parent, component) {
                    identity.unit = Some(format!("lxc/{guest}").into());
                } else if identity.unit.is_none() {
                    identity.unit = read_unit(parent, component);
                }
            }
            parent = component;
        }
        if identity == Self::default() {
            identity.unit = read_talos(path).map(Cow::Borrowed);
        }
        identity
    }
}

fn components(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').flat_map(|component| {
        let separator = if component.contains(".slice:") {
            ':'
        } else {
            '/'
        };
        component.split(separator)
    })
}

fn read_pod(component: &str) -> Option<Cow<'_, str>> {
    let name = component.strip_suffix(".slice").unwrap_or(component);
    let uid = match name.rsplit_once("-pod") {
        Some((_, uid)) => uid,
        None => name.strip_prefix("pod")?,
    };
    if is_hex(uid, 32) || is_grouped_hex(uid, '-', &UUID) {
        Some(uid.into())
    } else if is_grouped_hex(uid, '_', &UUID) {
        Some(uid.replace('_', "-").into())
    } else {
        None
    }
}

fn read_container<'a>(parent: &str, component: &'a str) -> Option<&'a str> {
    let is_garden = is_grouped_hex(component, '-', &[8, 4, 4, 4, 4])
        || is_grouped_hex(component, '-', &UUID) && parent != "ecs";
    if is_fargate(component) || is_garden {
        return Some(component);
    }
    let name = component.strip_suffix(".scope").unwrap_or(component);
    let (runtime, id) = name.rsplit_once('-').unwrap_or(("", name));
    let is_podman_pod = runtime.is_empty() && parent == "libpod_parent";
    let is_container = is_hex(id, 64) && !runtime.ends_with("conmon") && !is_podman_pod;
    is_container.then_some(id)
}

fn is_fargate(component: &str) -> bool {
    component.split_once('-').is_some_and(|(task, number)| {
        is_hex(task, 32)
            && (7..=10).contains(&number.len())
            && number.bytes().all(|byte| byte.is_ascii_digit())
    })
}

fn read_guest<'a>(parent: &str, component: &'a str) -> Option<&'a str> {
    if parent == "lxc" {
        return Some(component);
    }
    component.strip_prefix("lxc.payload.")
}

fn read_unit<'a>(parent: &'a str, component: &'a str) -> Option<Cow<'a, str>> {
    // systemd writes one before names that the kernel's own files could have (`cg_escape`).
    let name = component.strip_prefix('_').unwrap_or(component);
    let (stem, kind) = name.rsplit_once('.')?;
    let is_unit = matches!(kind, "service" | "scope" | "mount" | "socket" | "swap");
    if stem.is_empty() || !is_unit {
        return None;
    }
    // logind numbers sessions, and puts all of a user's into one slice.
    let is_session = stem.starts_with("session-") && parent.starts_with("user-");
    if is_session && parent.ends_with(".slice") {
        return Some(parent.into());
    }
    Some(unit::make_stable(name))
}

fn read_talos(path: &str) -> Option<&str> {
    let path = path.strip_prefix('/')?;
    let (parent, below) = path.split_once('/').unwrap_or(("", path));
    match parent {
        "" => (path == "init").then_some(path),
        "podruntime" | "system" => {
            let name = below.split('/').next().filter(|name| !name.is_empty())?;
            Some(&path[..parent.len() + 1 + name.len()])
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = include_str!("../../../testdata/cgroups/paths.tsv");

    fn rows() -> impl Iterator<Item = [&'static str; 6]> {
        let lines = TABLE.lines().filter(|line| !line.starts_with('#'));
        lines.map(|line| {
            let columns: Vec<&str> = line.split('\t').collect();
            columns.try_into().expect("six columns in each row")
        })
    }

    fn show<'a>(identity: &'a Identity<'_>) -> [&'a str; 3] {
        let Identity {
            pod_uid,
            container_id,
            unit,
        } = identity;
        [pod_uid.as_deref(), *container_id, unit.as_deref()].map(|value| value.unwrap_or("-"))
    }

    /// Check every path of the table.
    #[test]
    fn paths_of_the_table() {
        let mut count = 0;
        for [path, pod_uid, container_id, unit, kind, source] in rows() {
            let identity = Identity::of_path(path);
            assert_eq!(
                show(&identity),
                [pod_uid, container_id, unit],
                "{path}: {kind}"
            );
            assert!(!kind.is_empty() && !source.is_empty(), "{path}");
            count += 1;
        }
        assert!(count >= 100, "{count} rows");
    }

    /// Check that the same path in another cgroup namespace, in a node that is a container, and with a cgroup below the
    /// container has the same pod and container.
    #[test]
    fn paths_around_and_below() {
        let node = "/docker/65a1b6ad09655b3f1475ede1aa0061a97c0d1ada9f2b2acac959afbc92094463";
        for [path, pod_uid, container_id, ..] in rows() {
            for around in [
                format!("/../..{path}"),
                format!("{path}/"),
                format!("{path}/below"),
            ] {
                let [around_uid, around_id, _] =
                    show(&Identity::of_path(&around)).map(str::to_owned);
                assert_eq!(
                    [&*around_uid, &*around_id],
                    [pod_uid, container_id],
                    "{around}"
                );
            }
            if pod_uid != "-" {
                let nested = format!("{node}{path}");
                assert_eq!(
                    show(&Identity::of_path(&nested)),
                    [pod_uid, container_id, "-"]
                );
            }
        }
    }

    /// Check that the pod that the node's API server knows is found, with its own container, whatever runs in it.
    #[test]
    fn a_pod_in_a_pod_is_the_outer_one() {
        let [outer, inner] = ["1", "2"].map(|digit| digit.repeat(32));
        let [first, second, third] = ["a", "b", "c"].map(|digit| digit.repeat(64));
        let path =
            format!("/kubepods/pod{outer}/{first}/docker/{second}/kubepods/pod{inner}/{third}");
        let identity = Identity::of_path(&path);
        assert_eq!(show(&identity), [&*outer, &*first, "-"]);
    }

    /// Check that what is nearly an id is none.
    #[test]
    fn no_identity() {
        let id = "0123456789abcdef".repeat(4);
        for path in [
            "",
            "/",
            "/..",
            "/system.slice",
            "/user.slice/user-1000.slice",
            "/kubepods.slice/kubepods-burstable.slice",
            "/system.slice/.service",
            "/podruntime",
            "/init/x",
            "/pod",
            "/x/pod0123456789abcdef-0123-4567-89abcdef01",
            "/x/podC6DA8B0A-12A8-4D29-8E39-2501F264CF8B",
            "/x/podc6da8b0a-12a8_4d29-8e39-2501f264cf8b",
            "/x/c23e5f76c09d438aa1824ca4058bdcab-123456",
            "/x/c23e5f76c09d438aa1824ca4058bdcab-12345678901",
            &format!("/x/{}", &id[..63]),
            &format!("/x/{id}0"),
            &format!("/x/{id}.slice"),
            &format!("/libpod_parent/{id}/conmon"),
        ] {
            assert_eq!(Identity::of_path(path), Identity::default(), "{path}");
        }
    }
}
