//! Container ids in cgroup paths.

/// Finds the container id in a cgroup's path.
///
/// All runtimes put 64 hexadecimal digits into the last parts of the path:
/// `/docker/<id>`, `/kubepods/burstable/pod<uid>/<id>` (cgroupfs driver),
/// `/kubepods.slice/…/cri-containerd-<id>.scope`, `crio-<id>.scope`,
/// `docker-<id>.scope`, `libpod-<id>.scope` (systemd driver). A container that
/// makes cgroups below its own keeps its id: the innermost part with one counts,
/// so that a container inside a container is told from the outer one.
pub fn find_container_id(path: &str) -> Option<&str> {
    path.rsplit('/').find_map(find_in_part)
}

fn find_in_part(part: &str) -> Option<&str> {
    const DIGITS: usize = 64;
    part.split(|char: char| !char.is_ascii_hexdigit())
        .find(|word| word.len() == DIGITS)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    /// Check the paths of the runtimes, with both drivers, and nested ones.
    #[test]
    fn runtimes() {
        for path in [
            format!("/docker/{ID}"),
            format!("/kubepods/burstable/pod1e-2f/{ID}"),
            format!("/kubepods.slice/kubepods-pod1.slice/cri-containerd-{ID}.scope"),
            format!("/machine.slice/libpod-{ID}.scope/container"),
            format!("/system.slice/docker-{ID}.scope/init.scope"),
            format!("/system.slice/crio-{ID}.scope"),
            format!("/docker/{}/docker/{ID}", "f".repeat(64)),
        ] {
            assert_eq!(find_container_id(&path), Some(ID), "{path}");
        }
    }

    /// Check that other paths have no id.
    #[test]
    fn no_container() {
        for path in [
            "/",
            "",
            "/system.slice/ssh.service",
            "/user.slice/user-1000.slice",
            &format!("/x/{}", &ID[..63]),
            &format!("/x/{ID}0"),
        ] {
            assert_eq!(find_container_id(path), None, "{path}");
        }
    }
}
