//! The policy on the real kernel: pods of an API server that the test controls, cgroups laid out as kubelet does, and programs that use
//! the CPU in them, in both versions of cgroups where the machine has them.
//!
//! Each test is ignored, with the reason, without root, BTF or a hierarchy.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[allow(dead_code, reason = "other tests use the rest")]
#[path = "../pods/fake_api.rs"]
mod fake_api;
mod rig;
mod tree;

use std::{path::Path, process::ExitCode, time::Duration};

use anyhow::{Result, ensure};
use collector::{policy::Verdict, sample::CgroupHierarchy};
use libtest_mimic::{Arguments, Completion, Trial};
use rustix::process::geteuid;

use crate::{
    rig::{Rig, wait_until},
    tree::{Driver, Tree},
};

const DENY_SECRET: &str = "rules: [{action: deny, namespaces: [secret]}]";

/// Tries of a pod that starts where a rule denies it.
const TRIES: u32 = 20;

/// Time within which a new rule has to hold: some milliseconds, on a busy machine too.
const RULE_TIME: Duration = Duration::from_secs(30);

type Check = fn(&CgroupHierarchy) -> Result<()>;

const CHECKS: [(&str, Check); 3] = [
    ("denied_pods_leave_no_sample", denied_pods_leave_no_sample),
    ("rules_hold_for_what_runs", rules_hold_for_what_runs),
    ("host_rules", host_rules),
];

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // Each counts all that is excluded on the machine.
    arguments.test_threads = Some(1);
    let trials = hierarchies().into_iter().flat_map(|(version, hierarchy)| {
        CHECKS.map(|(name, check)| {
            let (hierarchy, missing) = (hierarchy.clone(), find_missing(&hierarchy));
            Trial::ignorable_test(format!("{version}::{name}"), move || match missing {
                Some(reason) => Ok(Completion::ignored_with(reason)),
                None => check(&hierarchy)
                    .map(|()| Completion::Completed)
                    .map_err(|err| format!("{err:#}").into()),
            })
        })
    });
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}

/// Both versions' hierarchies. With v1, the unified one may be mounted beside the controllers.
fn hierarchies() -> [(&'static str, CgroupHierarchy); 2] {
    let is_v2 = |mount: &&'static str| Path::new(mount).join("cgroup.controllers").exists();
    let v2 = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];
    let v2 = v2.into_iter().find(is_v2).map(|mount| CgroupHierarchy::V2 {
        mount: mount.into(),
    });
    let v1 = CgroupHierarchy::detect();
    let v1 = if v1.v1_controller().is_some() {
        v1
    } else {
        CgroupHierarchy::None
    };
    [("v1", v1), ("v2", v2.unwrap_or(CgroupHierarchy::None))]
}

fn find_missing(hierarchy: &CgroupHierarchy) -> Option<&'static str> {
    if !geteuid().is_root() {
        Some("needs root: BPF programs are loaded")
    } else if !Path::new("/sys/kernel/btf/vmlinux").exists() {
        Some("needs a kernel with BTF")
    } else if hierarchy.mount().is_none() {
        Some("needs this version of cgroups")
    } else {
        None
    }
}

/// Check that pods that start in a denied namespace leave not one sample, that each excluded sample is counted at its pod, and that
/// other pods and the host are sampled meanwhile.
fn denied_pods_leave_no_sample(hierarchy: &CgroupHierarchy) -> Result<()> {
    let rig = Rig::start(hierarchy, DENY_SECRET)?;
    let tree = Tree::new(hierarchy, "denied")?;
    rig.apply_pod(0, "shop");
    let shop = tree.make(&Driver::Cgroupfs.container(0))?;
    let host = tree.make("system.slice/a.service")?;
    let others = [shop.burn()?, host.burn()?];
    let mut denied = Vec::new();
    for number in 1..=TRIES {
        rig.apply_pod(number, "secret");
        let driver = Driver::ALL[number as usize % Driver::ALL.len()];
        let pod = tree.make(&driver.pod(number))?;
        // A container comes a second later.
        wait_until("the pod is excluded", || {
            rig.enforcer.verdict(pod.id) == Verdict::Exclude
        })?;
        let container = tree.make(&driver.container(number))?;
        // The last samples of the container before count for it.
        rig.wait_drained()?;
        let before = rig.excluded();
        let burner = container.burn()?;
        wait_until("some samples", || rig.excluded() >= before + 5)?;
        drop(burner);
        denied.push((pod, container));
    }
    rig.wait_drained()?;
    for (pod, container) in &denied {
        let (pod_samples, samples) = (rig.samples(pod.id), rig.samples(container.id));
        ensure!(pod_samples + samples == 0, "{pod_samples} {samples}");
    }
    for other in [&shop, &host] {
        let samples = rig.samples(other.id);
        ensure!(samples > 20, "others have {samples} samples");
    }
    wait_until("all are counted at their pods", || {
        let counted: u64 = denied.iter().map(|(pod, _)| rig.excluded_by(pod.id)).sum();
        counted == rig.excluded() && denied.iter().all(|(pod, _)| rig.excluded_by(pod.id) >= 5)
    })?;
    let entries = rig.stats().entries;
    ensure!(entries == denied.len(), "{entries} entries");
    drop(others);
    drop(tree);
    wait_until("the entries are gone", || rig.stats().entries == 0)
}

/// Check that a later rule stops the samples of what runs, in containers and in cgroups far below them, that those of others go on, and
/// that they come again when the rule goes.
fn rules_hold_for_what_runs(hierarchy: &CgroupHierarchy) -> Result<()> {
    let rig = Rig::start(hierarchy, "rules: [{action: deny, namespaces: [other]}]")?;
    let tree = Tree::new(hierarchy, "later")?;
    rig.apply_pod(1, "secret");
    rig.apply_pod(2, "shop");
    let container = Driver::Systemd.container(1);
    let denied = [
        tree.make(&container)?,
        tree.make(&format!("{container}/system.slice/a.service"))?,
        tree.make(&format!("{container}/a/b/c/d/e/f"))?,
    ];
    let allowed = tree.make(&Driver::Systemd.container(2))?;
    let _burners = denied
        .iter()
        .chain([&allowed])
        .map(tree::Cgroup::burn)
        .collect::<Result<Vec<_>>>()?;
    let grow = |ids: &[u64]| {
        let before: Vec<u64> = ids.iter().map(|id| rig.samples(*id)).collect();
        wait_until("samples of all", || {
            let mut all = ids.iter().zip(&before);
            all.all(|(id, before)| rig.samples(*id) > before + 2)
        })
    };
    let ids = [denied[0].id, denied[1].id, denied[2].id, allowed.id];
    for round in 0..3 {
        grow(&ids)?;
        ensure!(rig.excluded() == 0 || round > 0, "nothing is excluded yet");
        let set_ns = rig.set_policy(DENY_SECRET);
        let before = rig.excluded();
        wait_until("the kernel excludes them", || rig.excluded() > before + 20)?;
        grow(&[allowed.id])?;
        rig.wait_drained()?;
        let last_ns = ids[..3].iter().map(|id| rig.last_ns(*id)).max();
        let took = Duration::from_nanos(last_ns.unwrap_or(0).saturating_sub(set_ns));
        eprintln!("{round}: the last sample came {took:?} after the rule");
        ensure!(
            took < RULE_TIME,
            "the last sample came {took:?} after the rule"
        );
        rig.set_policy("default: allow");
    }
    grow(&ids)
}

/// Check that a unit's samples are excluded and a pod's are taken where the host is denied, also those of a pod below an excluded cgroup.
fn host_rules(hierarchy: &CgroupHierarchy) -> Result<()> {
    let rig = Rig::start(hierarchy, "host: deny")?;
    let tree = Tree::new(hierarchy, "host")?;
    rig.apply_pod(1, "shop");
    let unit = tree.make("system.slice/a.service/b/c/d/e")?;
    let container = tree.make(&Driver::Cgroupfs.container(1))?;
    wait_until("the unit is excluded", || {
        rig.enforcer.verdict(unit.id) == Verdict::Exclude
    })?;
    let _burners = [unit.burn()?, container.burn()?];
    wait_until("samples of the pod", || rig.samples(container.id) > 20)?;
    wait_until("excluded samples", || rig.excluded() > 20)?;
    rig.wait_drained()?;
    let samples = rig.samples(unit.id);
    ensure!(samples == 0, "{samples} samples of the unit");
    rig.set_policy("rules: [{action: deny, units: [a.service]}]");
    let before = rig.excluded();
    wait_until("excluded samples", || rig.excluded() > before + 20)?;
    rig.wait_drained()?;
    let samples = rig.samples(unit.id);
    ensure!(samples == 0, "{samples} samples of the unit");
    Ok(())
}
