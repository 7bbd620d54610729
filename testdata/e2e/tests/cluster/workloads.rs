//! The pods of testdata/cluster/workloads.yaml: started together, and run to the reports of their
//! programs.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use e2e::expected::{Expected, Truth};
use e2e::wait::wait_for_answer;
use serde_json::Value;

use crate::release::{START_TIMEOUT, WINDOW_MS, apply, now_ms};
use crate::tools::{ask_tool, repository, run, run_script};

/// The program in all of them.
pub(crate) const PROGRAM: &str = "shares_c";

/// Number of pods that live for a tenth of a second.
const BRIEF_PODS: usize = 20;

/// A container of the manifests, and the workload of its pod.
#[derive(Debug)]
pub(crate) struct Row {
    /// Name of the pod, or what it begins with if that ends in `-`.
    pod: &'static str,
    container: &'static str,
    pub(crate) workload_kind: &'static str,
    pub(crate) workload: &'static str,
    /// The number of such pods.
    count: usize,
}

const fn row(
    pod: &'static str,
    container: &'static str,
    workload_kind: &'static str,
    workload: &'static str,
) -> Row {
    Row {
        pod,
        container,
        workload_kind,
        workload,
        count: 1,
    }
}

const ROWS: [Row; 15] = [
    row("cart-", "app", "Deployment", "cart"),
    row("ledger-0", "app", "StatefulSet", "ledger"),
    row("report-", "burn", "Job", "report"),
    row("nightly-manual-", "burn", "CronJob", "nightly"),
    row("bare", "burn", "Pod", "bare"),
    row("bare", "debugger", "Pod", "bare"),
    row("fixed-node", "burn", "Pod", "fixed"),
    row("initialized", "setup", "Pod", "initialized"),
    row("initialized", "proxy", "Pod", "initialized"),
    row("initialized", "app", "Pod", "initialized"),
    row("hostnet", "burn", "Pod", "hostnet"),
    row("shared", "one", "Pod", "shared"),
    row("shared", "two", "Pod", "shared"),
    row("private", "burn", "Pod", "private"),
    Row {
        count: BRIEF_PODS,
        ..row("brief-", "burn", "Job", "brief")
    },
];

/// A container whose program has ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) pod: String,
    pub(crate) container: String,
    /// The container's id, as the API server has it.
    pub(crate) id: String,
    pub(crate) row: &'static Row,
    /// The program's own report.
    pub(crate) truth: Truth,
}

/// All pods of a namespace, after their programs have ended.
#[derive(Debug)]
pub(crate) struct Workloads {
    pub(crate) namespace: String,
    /// Unix milliseconds: the begin of the window in which they started, and a time after the last end.
    pub(crate) from_ms: u64,
    pub(crate) ended_ms: u64,
    pub(crate) ran: Vec<Ran>,
}

/// Builds the program for glibc and for musl, and makes images of both, and of a `chown`. Returns their files.
pub(crate) fn make_images() -> Result<Vec<String>> {
    let output = repository().join("target/workloads");
    let programs = [PROGRAM, "shares_musl"].map(|name| output.join(name).display().to_string());
    let made = run(Command::new("make")
        .arg("-C")
        .arg(repository().join("testdata/workloads"))
        .arg(format!("OUT={}", output.display()))
        .args(&programs)
        .env_remove("MAKEFLAGS"))?;
    ensure!(
        made.is_success,
        "the workloads do not build: {}",
        made.stderr
    );
    let [glibc, musl] = programs;
    let musl = format!("{musl}={PROGRAM}");
    let (shell, tools) = ("/bin/busybox=sh", "/bin/busybox");
    let images: [(&str, &[&str]); 3] = [
        ("workload", &[&glibc, shell, tools]),
        ("musl", &[&musl, shell, tools]),
        ("chown", &["/bin/busybox=chown"]),
    ];
    let mut files = Vec::new();
    for (name, programs) in images {
        let file = repository().join(format!("target/cluster/images/{name}.tar"));
        let file = file.display().to_string();
        let tag = format!("local/{name}:1");
        run_script(
            "testdata/cluster/image",
            &[&[&*file, &tag], programs].concat(),
        )?;
        files.push(file);
    }
    Ok(files)
}

/// The shares of the program's functions.
pub(crate) fn expected() -> Result<Expected> {
    let path = repository().join(format!("testdata/workloads/{PROGRAM}.expected.json"));
    Expected::parse(&fs::read_to_string(path).context("failed to read the expected profile")?)
}

impl Workloads {
    /// Starts all pods in a new namespace, with so many CPU seconds for each program, and waits for
    /// their reports.
    pub(crate) fn run(namespace: &str, seconds: &str) -> Result<Self> {
        // A range has the windows that begin in it; that of the first samples began before.
        let from_ms = now_ms()? / WINDOW_MS * WINDOW_MS;
        apply(&manifest("workloads.yaml", namespace, seconds)?)?;
        let file = cluster_data().join(format!("static/{namespace}.yaml"));
        fs::write(file, manifest("static-pod.yaml", namespace, seconds)?)
            .context("failed to write the static pod")?;
        let kubectl = |words: &[&str]| {
            ask_tool(&[&["kubectl", "--namespace", namespace], words].concat()).map(drop)
        };
        kubectl(&["create", "job", "nightly-manual", "--from=cronjob/nightly"])?;
        kubectl(&[
            "wait",
            "--for=condition=Ready",
            "pod/bare",
            &format!("--timeout={START_TIMEOUT}"),
        ])?;
        kubectl(&[
            "debug",
            "bare",
            "--image=local/workload:1",
            "--container=debugger",
            "--",
            PROGRAM,
            seconds,
        ])?;
        let wanted = ROWS.iter().map(|row| row.count).sum();
        let mut reports = BTreeMap::new();
        // On two processors they take half a minute.
        wait_for_answer("the reports of all pods", || {
            reports = read_reports(namespace)?;
            Ok((reports.len() >= wanted).then_some(()))
        })
        .with_context(|| format!("{:?} have reported", reports.keys()))?;
        let ended_ms = now_ms()?;
        let ids = wait_for_answer("the ids of all containers", || {
            let ids = read_ids(namespace)?;
            let has_all = reports.keys().all(|container| ids.contains_key(container));
            Ok(has_all.then_some(ids))
        })?;
        let mut ran = Vec::new();
        for ((pod, container), truth) in reports {
            let id = ids[&(pod.clone(), container.clone())].clone();
            let row = ROWS
                .iter()
                .find(|row| row.has_pod(&pod) && row.container == container)
                .with_context(|| format!("`{pod}` has a container `{container}`"))?;
            ran.push(Ran {
                pod,
                container,
                id,
                row,
                truth,
            });
        }
        for row in &ROWS {
            let count = ran.iter().filter(|ran| std::ptr::eq(ran.row, row)).count();
            ensure!(count == row.count, "{count} containers of {row:?} ran");
        }
        Ok(Self {
            namespace: namespace.to_owned(),
            from_ms,
            ended_ms,
            ran,
        })
    }
}

impl Row {
    fn has_pod(&self, pod: &str) -> bool {
        pod == self.pod || self.pod.ends_with('-') && pod.starts_with(self.pod)
    }

    /// Whether its program takes enough CPU time for a judgement of its functions.
    pub(crate) fn has_shares(&self) -> bool {
        self.count == 1
    }
}

/// A manifest with its values.
fn manifest(file: &str, namespace: &str, seconds: &str) -> Result<String> {
    let path = repository().join("testdata/cluster").join(file);
    let text = fs::read_to_string(path).with_context(|| format!("failed to read {file}"))?;
    Ok(text
        .replace("$NAMESPACE", namespace)
        .replace("$SECONDS", seconds))
}

/// The files of the running cluster.
fn cluster_data() -> PathBuf {
    repository().join("target/cluster/run")
}

/// The reports so far, by pod and container. The kubelet writes the output of a container to
/// `NAMESPACE_POD_UID/CONTAINER/RESTARTS.log`; to ask the API server for each would take longer.
fn read_reports(namespace: &str) -> Result<BTreeMap<(String, String), Truth>> {
    let mut reports = BTreeMap::new();
    for (pod, directory) in list(&cluster_data().join("fs/var/log/pods"))? {
        let words: Vec<&str> = pod.split('_').collect();
        let [of, pod, _uid] = words[..] else { continue };
        if of != namespace {
            continue;
        }
        for (container, directory) in list(&directory)? {
            for (_, log) in list(&directory)? {
                // `TIME stdout F LINE`. A file may be gone, or have half a line.
                let text = fs::read_to_string(log).unwrap_or_default();
                let line = text
                    .lines()
                    .last()
                    .and_then(|line| line.splitn(4, ' ').nth(3));
                if let Some(Ok(truth)) = line.map(Truth::parse) {
                    reports.insert((pod.to_owned(), container.clone()), truth);
                }
            }
        }
    }
    Ok(reports)
}

/// The ids of the containers that the API server knows by now, by pod and container.
fn read_ids(namespace: &str) -> Result<BTreeMap<(String, String), String>> {
    let pods = ask_tool(&[
        "kubectl",
        "--namespace",
        namespace,
        "get",
        "pods",
        "--output=json",
    ])?;
    let pods: Value = serde_json::from_str(&pods).context("kubectl wrote no JSON")?;
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let mut ids = BTreeMap::new();
    for pod in list(&pods["items"]) {
        let name = pod["metadata"]["name"].as_str().context("no name")?;
        for kind in ["init", "", "ephemeral"] {
            let statuses = match kind {
                "" => "containerStatuses".to_owned(),
                kind => format!("{kind}ContainerStatuses"),
            };
            for container in list(&pod["status"][statuses]) {
                // `containerd://ID`, or nothing yet.
                let id = container["containerID"].as_str().unwrap_or_default();
                if let (Some((_, id)), Some(container)) =
                    (id.split_once("://"), container["name"].as_str())
                {
                    ids.insert((name.to_owned(), container.to_owned()), id.to_owned());
                }
            }
        }
    }
    Ok(ids)
}

/// Names and paths of a directory's entries.
fn list(directory: &Path) -> Result<Vec<(String, PathBuf)>> {
    let entries = fs::read_dir(directory)
        .with_context(|| format!("failed to list `{}`", directory.display()))?;
    let entries = entries.flatten();
    Ok(entries
        .map(|entry| {
            (
                entry.file_name().to_string_lossy().into_owned(),
                entry.path(),
            )
        })
        .collect())
}
