//! A collector in the surroundings of a container.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use e2e::wait::wait_for_answer;
use run::child::{Child, Privilege, Start};
use serde_json::Value;
use tempfile::TempDir;

use crate::names::find_tool;
use crate::rig::{self, Range, Rig, now_ms};
use crate::workload::{self, Running};

/// A check with a rig of its own.
type Check = fn() -> Result<()>;

/// The checks, by name.
pub(crate) const CHECKS: [(&str, Check); 1] = [("pid_namespace", check_pid_namespace)];

/// Functions of `shares_c`.
const FUNCTIONS: [&str; 4] = ["tenth", "fifth", "three_tenths", "two_fifths"];

/// CPU seconds of a program, the most that it takes; it is killed before.
const SECONDS: &str = "3600";

/// The minimum for a verdict.
const SAMPLES_MIN: u64 = 50;

/// Check a collector in a PID namespace that is not the host's, as on a node that is a container: programs in the namespace
/// and in one below have names and complete stacks, and those outside are counted and leave nothing else.
fn check_pid_namespace() -> Result<()> {
    let directory = TempDir::new().context("failed to make a directory")?;
    let source = workload::build()?.join("shares_c");
    let program = |name| {
        let path = directory.path().join(name);
        fs::copy(&source, &path).context("failed to copy a program")?;
        Ok::<_, anyhow::Error>(path.display().to_string())
    };
    let node = Node::start(directory.path())?;
    let mut rig = Rig::start_by("namespace", node.enter_and_pass_signals())?;
    let from_ms = now_ms()?;
    let start = |mut words: Vec<String>, name| {
        words.extend([program(name)?, SECONDS.to_owned()]);
        Command::new(&words[0])
            .args(&words[1..])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .with_context(|| format!("failed to start `{name}`"))
    };
    let container = [node.enter(), own_namespace()].concat();
    let _programs = Running(vec![
        start(node.enter(), "cn-inside")?,
        start(container, "cn-deeper")?,
        start(vec!["env".to_owned()], "cn-outside")?,
    ]);
    for comm in ["cn-inside", "cn-deeper"] {
        wait_complete(&rig, comm, from_ms)?;
    }
    rig.wait_metrics(0, "samples from outside", |metrics| {
        let outcome = [("outcome", "other_namespace")];
        let outside = metrics.sum_where("pilotlight_collector_outcomes_total", &outcome);
        outside.is_some_and(|count| count >= 50.0)
    })?;
    let sampled = Range {
        from_ms,
        to_ms: now_ms()?,
    };
    let answer = rig.get_json("/api/v1/series", "{}", sampled, &[])?;
    let series = answer["series"].as_array().context("no `series`")?;
    // `exe` is the naming child as it starts.
    let inside = ["cn-", "pilotlight-", "exe", "sleep", "nsenter", "unshare"];
    for series in series {
        let comm = series["labels"]["comm"].as_str().unwrap_or_default();
        let is_inside = inside.iter().any(|begin| comm.starts_with(begin));
        ensure!(is_inside && comm != "cn-outside", "from outside: {series}");
    }
    rig.stop_collectors()?;
    rig.check_accounting()?;
    rig.stop_server()
}

/// Waits for windows in which a program's functions have names and its stacks are complete: in its first ones the unwind rows of its
/// files may be lacking.
fn wait_complete(rig: &Rig, comm: &str, from_ms: u64) -> Result<()> {
    let query = format!(r#"{{comm="{comm}"}}"#);
    let mut begun_ms = from_ms;
    wait_for_answer(&format!("complete stacks of `{comm}`"), || {
        let sampled = rig.wait_samples(&query, begun_ms, SAMPLES_MIN)?;
        begun_ms = sampled.to_ms;
        check_names(rig, comm, sampled)?;
        let stacks = rig.get_json("/api/v1/stacks", &query, sampled, &[])?;
        let count = |name: &str| stacks[name].as_u64().unwrap_or_default();
        ensure!(
            count("complete_samples") * 10 >= count("samples") * 9,
            "the stacks of `{comm}` are incomplete: {stacks}"
        );
        Ok(Some(()))
    })
}

/// Check that a program's functions have names.
fn check_names(rig: &Rig, comm: &str, sampled: Range) -> Result<()> {
    let query = format!(r#"{{comm="{comm}"}}"#);
    let top = rig.get_json("/api/v1/top", &query, sampled, &[])?;
    let functions = top["functions"].as_array().map_or(&[][..], Vec::as_slice);
    let of_program = |row: &&Value| FUNCTIONS.iter().any(|name| row["name"] == *name);
    // What they call is inlined.
    let named = functions.iter().filter(of_program);
    let named: u64 = named.filter_map(|row| row["total_samples"].as_u64()).sum();
    let samples = top["samples"].as_u64().unwrap_or_default();
    ensure!(
        named * 10 >= samples * 8 && samples >= SAMPLES_MIN,
        "the functions of `{comm}` have no names: {top}"
    );
    Ok(())
}

/// Words before a program that is to be the first one of a PID namespace.
fn own_namespace() -> Vec<String> {
    ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
        .map(str::to_owned)
        .into()
}

/// A PID namespace with a `/proc` of its own, as that of a node that is a container.
struct Node {
    /// Ends all processes of the namespace when it is dropped.
    _child: Child,
    /// Its first process, by the host's number.
    first: String,
}

impl Node {
    fn start(directory: &Path) -> Result<Self> {
        let mut words = own_namespace();
        words.extend(["sleep", "100000"].map(str::to_owned));
        let child = rig::start(Start {
            name: "node",
            program: &find_tool(&words[0])?,
            arguments: words[1..].to_vec(),
            privilege: Privilege::Same,
            log: directory.join("node.log"),
        })?;
        let children = format!("/proc/{0}/task/{0}/children", child.pid());
        let first = wait_for_answer("a process in a namespace", || {
            let children = fs::read_to_string(&children).context("failed to read a process")?;
            let first = children.split_whitespace().next().map(str::to_owned);
            // Its `/proc` is mounted before it runs its program.
            let has_begun = first.as_ref().is_some_and(|pid| {
                let comm = fs::read_to_string(format!("/proc/{pid}/comm"));
                comm.is_ok_and(|comm| comm.trim() == "sleep")
            });
            Ok(first.filter(|_| has_begun))
        })?;
        Ok(Self {
            _child: child,
            first,
        })
    }

    /// Words before a program that is to run there.
    fn enter(&self) -> Vec<String> {
        let namespace = |kind, file| format!("--{kind}=/proc/{}/ns/{file}", self.first);
        vec![
            "nsenter".to_owned(),
            namespace("pid", "pid"),
            namespace("mount", "mnt"),
        ]
    }

    /// The same, for a program that is stopped by a signal, which `nsenter` keeps to itself.
    fn enter_and_pass_signals(&self) -> Vec<String> {
        let script = r#"
            trap 'pkill -TERM -P "$child"' TERM
            "$@" &
            child=$!
            while :; do
                wait "$child"
                status=$?
                kill -0 "$child" 2>/dev/null || exit "$status"
            done"#;
        let mut words = ["sh", "-c", script, "sh"].map(str::to_owned).to_vec();
        words.extend(self.enter());
        words
    }
}
