//! The cluster undoes its changes of the machine, even those of a run that was killed.

use std::collections::{BTreeMap, BTreeSet};
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

/// Sysctls that kube-proxy, the bridge of the pods and `up` write in the cluster's network namespace. Those that the kubelet writes
/// for the whole machine are in [`SAVED_SYSCTLS`].
const NETWORK_SYSCTLS: [&str; 10] = [
    "net.ipv4.ip_forward",
    "net.ipv4.conf.all.route_localnet",
    "net.bridge.bridge-nf-call-iptables",
    "net.netfilter.nf_conntrack_max",
    "net.netfilter.nf_conntrack_buckets",
    "net.netfilter.nf_conntrack_tcp_be_liberal",
    "net.netfilter.nf_conntrack_tcp_timeout_established",
    "net.netfilter.nf_conntrack_tcp_timeout_close_wait",
    "net.netfilter.nf_conntrack_udp_timeout",
    "net.netfilter.nf_conntrack_udp_timeout_stream",
];

/// What `up` saves of the machine's sysctls: `KEY = VALUE` lines. It is there while the cluster runs.
const SAVED_SYSCTLS: &str = "/run/pilotlight-cluster/sysctl";

/// Programs of the cluster, killed as the kernel does when it lacks memory.
const KILLED: [&str; 4] = ["kubelet", "kube-apiserver", "containerd", "etcd"];

/// Starts a cluster with a pod, kills it in part, starts another one, ends that, and compares the
/// machine's state with the one before.
pub(crate) fn check() -> Result<()> {
    run_script::<&str>("testdata/cluster/down", &[])?;
    let (before, sysctls_before) = (read_state()?, read_sysctls()?);
    run_script::<&str>("testdata/cluster/up", &[])?;
    let during = read_state()?;
    let saved = fs::read_to_string(SAVED_SYSCTLS).context("no saved sysctls")?;
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
    check_sysctls(&saved, &sysctls_before, &read_sysctls()?)
}

/// Check that the sysctls that the cluster writes have their values of before. Other programs may write others meanwhile.
fn check_sysctls(
    saved: &str,
    before: &BTreeMap<String, String>,
    after: &BTreeMap<String, String>,
) -> Result<()> {
    let saved: Vec<&str> = saved
        .lines()
        .filter_map(|line| line.split_once(" = "))
        .map(|(key, _)| key)
        .collect();
    ensure!(!saved.is_empty(), "`up` saves no sysctls");
    for key in saved.iter().chain(&NETWORK_SYSCTLS) {
        // Some are there after the first use of their kernel module only.
        let was = before.get(*key);
        ensure!(
            was.is_none() || after.get(*key) == was,
            "the cluster leaves {key} = {:?}, it was {was:?}",
            after.get(*key)
        );
    }
    Ok(())
}

/// All sysctls of the machine.
fn read_sysctls() -> Result<BTreeMap<String, String>> {
    let said = run(Command::new("sysctl").arg("--all"))?;
    let pairs = said
        .stdout
        .lines()
        .filter_map(|line| line.split_once(" = "));
    let sysctls: BTreeMap<_, _> = pairs
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect();
    ensure!(!sysctls.is_empty(), "no sysctls: {}", said.stderr);
    Ok(sysctls)
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

/// What the cluster could leave beside sysctls: mounts, cgroups, links, routes, iptables rules, directories.
fn read_state() -> Result<BTreeSet<String>> {
    let mut state = BTreeSet::new();
    let mut add = |kind: &str, text: &str| {
        state.extend(text.lines().map(|line| format!("{kind}: {line}")));
    };
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
