//! The cluster undoes its changes of the machine, even those of a run that was killed.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::tools::{ask_tool, run, run_script};

/// Directories in which the cluster works.
const DIRECTORIES: [&str; 10] = [
    "/var/lib/containerd",
    "/var/lib/kubelet",
    "/var/lib/cni",
    "/run/containerd",
    "/run/netns",
    "/run/pilotlight-cluster",
    "/var/log/pods",
    "/var/log/containers",
    "/tmp/hostpath_pv",
    "/opt/volumes",
];

/// Programs of the cluster, killed as the kernel does when it lacks memory.
const KILLED: [&str; 4] = ["kubelet", "kube-apiserver", "containerd", "etcd"];

/// Starts a cluster with a pod, kills it in part, starts another one, ends that, and compares the
/// machine's state with the one before.
pub(crate) fn check() -> Result<()> {
    run_script::<&str>("testdata/cluster/down", &[])?;
    let before = read_state()?;
    run_script::<&str>("testdata/cluster/up", &[])?;
    let during = read_state()?;
    ensure!(
        during != before,
        "the state of the machine does not show the cluster"
    );
    let keeper = fs::read_to_string("/run/pilotlight-cluster/keeper").context("no keeper")?;
    for process in processes_with_names(&KILLED)?
        .iter()
        .chain([&keeper.trim().to_owned()])
    {
        run(Command::new("kill").args(["-KILL", process]))?;
    }
    run_script::<&str>("testdata/cluster/up", &[])?;
    ask_tool(&["kubectl", "get", "node", "node"])?;
    run_script::<&str>("testdata/cluster/down", &[])?;
    let after = read_state()?;
    let difference: Vec<_> = before.symmetric_difference(&after).collect();
    ensure!(difference.is_empty(), "the cluster leaves: {difference:#?}");
    Ok(())
}

/// Process ids of the cluster's programs, which are below its cgroup.
pub(crate) fn processes_with_names(names: &[&str]) -> Result<Vec<String>> {
    let cgroup = fs::read_to_string("/run/pilotlight-cluster/cgroup").context("no cgroup")?;
    let processes = fs::read_to_string(Path::new(cgroup.trim()).join("cgroup.procs"))
        .context("failed to list the cluster's processes")?;
    let is_named = |pid: &&str| {
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        names
            .iter()
            .any(|wanted| wanted.starts_with(name.trim()) && !name.trim().is_empty())
    };
    let found: Vec<_> = processes
        .lines()
        .filter(is_named)
        .map(str::to_owned)
        .collect();
    ensure!(
        found.len() >= names.len(),
        "not all of {names:?} run: {processes}"
    );
    Ok(found)
}

/// What the cluster could leave: sysctls, mounts, cgroups, links, routes, iptables rules,
/// directories.
fn read_state() -> Result<BTreeSet<String>> {
    let mut state = BTreeSet::new();
    let mut add = |kind: &str, text: &str| {
        state.extend(text.lines().map(|line| format!("{kind}: {line}")));
    };
    let settings = [
        "vm",
        "kernel",
        "net.ipv4.ip_forward",
        "net.ipv4.conf.all",
        "net.bridge",
        "net.netfilter",
    ];
    let pattern = format!("^({})\\.", settings.join("|"));
    let sysctls = run(Command::new("sysctl").args(["--all", "--pattern", &pattern]))?.stdout;
    // Counters and random numbers.
    let volatile = [
        "kernel.random",
        "kernel.ns_last_pid",
        "kernel.pty.nr",
        "vm.stat_refresh",
        "_count ",
        "kernel.tainted",
    ];
    let stable = sysctls
        .lines()
        .filter(|line| !volatile.iter().any(|word| line.contains(word)));
    add("sysctl", &stable.collect::<Vec<_>>().join("\n"));
    let cluster = |text: String, words: &[&str]| {
        let ours = text
            .lines()
            .filter(|line| words.iter().any(|word| line.contains(word)));
        ours.collect::<Vec<_>>().join("\n")
    };
    // Other programs mount and make links while the test runs.
    let mounts = fs::read_to_string("/proc/self/mounts").context("failed to read the mounts")?;
    add(
        "mount",
        &cluster(
            mounts,
            &[
                "containerd",
                "kubelet",
                "netns",
                "hostpath_pv",
                "/opt/volumes",
            ],
        ),
    );
    let cgroups =
        run(Command::new("find").args(["/sys/fs/cgroup", "-maxdepth", "2", "-type", "d"]))?;
    add(
        "cgroup",
        &cluster(cgroups.stdout, &["kubepods", "pilotlight-cluster"]),
    );
    for (kind, arguments) in [("link", ["link"]), ("route", ["route"])] {
        add(
            kind,
            &cluster(
                run(Command::new("ip").arg("-brief").args(arguments))?.stdout,
                &["pl-", "10.87.", "10.88.", "10.89."],
            ),
        );
    }
    add(
        "iptables",
        &cluster(
            run(&mut Command::new("iptables-save"))?.stdout,
            &["KUBE", "CNI"],
        ),
    );
    let directories = DIRECTORIES
        .into_iter()
        .filter(|path| Path::new(path).exists());
    add("directory", &directories.collect::<Vec<_>>().join("\n"));
    Ok(state)
}
