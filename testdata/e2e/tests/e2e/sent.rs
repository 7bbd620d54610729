//! A collector without CPU time for names: the server requests the files, the collector uploads
//! them, and stored frames get names.

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use e2e::wait::wait_for_answer;
use run::child::{Child, Privilege, Start};
use run::http;
use serde_json::Value;
use tempfile::TempDir;

use crate::labels::{Cgroups, start_in};
use crate::names::{SECONDS, SHARE_MIN, compile, find_tool, range, run, share_of, split, start};
use crate::rig::{self, Range, Rig, free_address, now_ms};

type Check = fn() -> Result<()>;

/// All checks here, with their names and the tools that only they need.
pub(crate) const CHECKS: [(&str, Check, &[&str]); 3] = [
    ("by_the_collector", check_sent, &[]),
    ("server_killed", check_server_killed, &[]),
    ("from_debuginfod", check_debuginfod, &["debuginfod"]),
];

/// Check that unnamed frames get functions, files and lines after the server has requested the
/// program, whose debug information is in it or in a separate file with a debug link.
fn check_sent() -> Result<()> {
    let directory = TempDir::new().context("failed to make a directory")?;
    let at = |name: &str| directory.path().join(name);
    let programs = [
        ("ns-whole", "burn_sent_whole"),
        ("ns-link", "burn_sent_link"),
    ];
    for (comm, function) in programs {
        compile(&at(comm), function, &["-g"])?;
    }
    split(&at("ns-link"), &at("ns-link.debug"))?;
    let link = format!("--add-gnu-debuglink={}", at("ns-link.debug").display());
    run(Command::new("objcopy").arg(link).arg(at("ns-link")))?;

    let mut rig = Rig::start_with("sent", &["--name-cpu=0", "--upload-rate=64MiB"])?;
    let sampled = sample(&rig, programs.map(|(comm, _)| at(comm)).as_slice())?;
    for (comm, function) in programs {
        wait_named(&rig, sampled, comm, function)?;
    }
    let unnamed = rig.server_metrics()?.sum_where(
        "pilotlight_server_samples_unnamed_total",
        &[("reason", "limit")],
    );
    ensure!(
        unnamed.is_some_and(|samples| samples >= 200.0),
        "{unnamed:?} samples came without a name, and all should have"
    );
    let sent = rig.metrics(0)?.sum_where(
        "pilotlight_collector_uploads_total",
        &[("result", "stored")],
    );
    ensure!(
        sent.is_some_and(|files| files >= 2.0),
        "the collector says that it sent {sent:?} files"
    );
    rig.stop_collectors()?;
    rig.check_accounting()?;
    rig.stop_server()
}

/// Check that an upload continues after the server was killed in the middle of it, and that the
/// frames then get names.
fn check_server_killed() -> Result<()> {
    let directory = TempDir::new().context("failed to make a directory")?;
    let at = |name: &str| directory.path().join(name);
    write_large_source(&at("large.c"))?;
    let source = at("large.c").display().to_string();
    compile(&at("ns-large"), "burn_sent_large", &["-g", &source])?;
    let file_bytes = fs::metadata(at("ns-large"))?.len();

    // Only the program is sampled, so that no other file is sent before it; and it takes half a minute, so that the server is killed
    // in the middle.
    let cgroups = Cgroups::new("resumed");
    let policy = at("policy.yaml");
    let rules = format!(
        "rules: [{{action: allow, cgroups: [/{}]}}]\nhost: deny\n",
        cgroups.top()
    );
    fs::write(&policy, rules).context("failed to write the policy")?;
    let options = [
        "--name-cpu=0",
        "--upload-rate=256KiB",
        &format!("--policy-file={}", policy.display()),
    ];
    let cgroup = cgroups.make("program")?;
    let mut rig = Rig::start_with("resumed", &options)?;
    let folder = rig.data().join("symbols/partial");
    let from_ms = now_ms()? / 10_000 * 10_000;
    let mut program = start_in(&cgroup, &at("ns-large"), SECONDS)?;
    // The upload begins after the program's first window.
    let partial = wait_for_answer("a part of the program to come", || {
        Ok(find_partial(&folder, file_bytes))
    })?;
    rig.kill_server()?;
    ensure!(partial.is_file(), "all of it had come");
    let status = program.wait().context("failed to wait for a program")?;
    ensure!(status.success(), "the program ended with {status}");
    let sampled = range(from_ms, now_ms()?);
    rig.restart_server()?;
    wait_named(&rig, sampled, "ns-large", "burn_sent_large")?;
    let own = rig.metrics(0)?;
    let resumed = own.sum("pilotlight_collector_upload_resumed_bytes_total");
    ensure!(
        resumed.is_some_and(|bytes| bytes > 0.0),
        "resumed: {resumed:?}"
    );
    let resumed = rig
        .server_metrics()?
        .sum("pilotlight_server_symbol_resumed_bytes_total");
    ensure!(
        resumed.is_some_and(|bytes| bytes > 0.0),
        "resumed: {resumed:?}"
    );
    ensure!(!partial.exists(), "what came in parts is still there");
    rig.stop_collectors()?;
    rig.check_accounting()?;
    rig.stop_server()
}

/// The part of a file of this size that has come, if any has.
fn find_partial(folder: &Path, file_bytes: u64) -> Option<PathBuf> {
    let entries = fs::read_dir(folder).ok()?.flatten();
    let mut plans = entries
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|kind| kind == "plan"));
    let plan = plans.find(|path| {
        let plan = fs::read(path).ok();
        let plan = plan.and_then(|plan| serde_json::from_slice::<Value>(&plan).ok());
        plan.is_some_and(|plan| plan[0] == file_bytes)
    });
    let data = plan?.with_extension("data");
    let has_come = fs::metadata(&data).is_ok_and(|found| found.len() > 0);
    has_come.then_some(data)
}

/// Check that a stripped program's frames first have the reason for the missing name, and that the
/// same query later returns the names that the server has fetched from a debuginfod server:
/// Debian's, with a folder that contains the program's debug file.
fn check_debuginfod() -> Result<()> {
    let directory = TempDir::new().context("failed to make a directory")?;
    let at = |name: &str| directory.path().join(name);
    fs::create_dir(at("symbols")).context("failed to make a directory")?;
    compile(&at("ns-fetched"), "burn_fetched", &["-g"])?;
    split(&at("ns-fetched"), &at("symbols/ns-fetched.debug"))?;
    let address = free_address()?;
    let _debuginfod = start_debuginfod(&at("symbols"), address)?;

    let option = format!("--debuginfod-url=http://{address}");
    let mut rig = Rig::start_both_with("fetched", &[], &[&option])?;
    let sampled = sample(&rig, &[at("ns-fetched")])?;
    let query = r#"{comm="ns-fetched"}"#;
    let unknown = rig.get_json("/api/v1/unknown", query, sampled, &[])?;
    let reason = &unknown["by_binary"]["binaries"][0]["reasons"][0]["reason"];
    ensure!(reason == "no_symbol", "before: {unknown}");
    wait_named(&rig, sampled, "ns-fetched", "burn_fetched")?;
    let unknown = rig.get_json("/api/v1/unknown", query, sampled, &[])?;
    ensure!(unknown["unnamed_self_samples"] == 0, "after: {unknown}");
    rig.stop_collectors()?;
    rig.check_accounting()?;
    rig.stop_server()
}

/// Starts Debian's debuginfod, which answers after it has scanned the folder.
fn start_debuginfod(folder: &Path, address: SocketAddr) -> Result<Child> {
    let port = address.port().to_string();
    let child = rig::start(Start {
        name: "debuginfod",
        program: &find_tool("debuginfod")?,
        arguments: [
            "-F",
            "-d",
            ":memory:",
            "-p",
            &port,
            &folder.display().to_string(),
        ]
        .map(str::to_owned)
        .to_vec(),
        privilege: Privilege::Same,
        log: folder.with_extension("log"),
    })?;
    wait_for_answer("debuginfod to have read the folder", || {
        let metrics = http::get_text(address, "/metrics", &[])?;
        let has_read = metrics
            .lines()
            .any(|line| line.starts_with("found_debuginfo_total"));
        Ok(has_read.then_some(()))
    })?;
    Ok(child)
}

/// A program with so many functions that their debug information has some MB.
fn write_large_source(path: &Path) -> Result<()> {
    let mut text = String::new();
    for number in 0..40_000 {
        writeln!(
            text,
            "int part_{number}(int a) {{ int sum = a * {number}; return sum + a; }}"
        )?;
    }
    fs::write(path, text).context("failed to write a large source")
}

/// Runs programs to their ends, and waits until their window is stored.
fn sample(rig: &Rig, programs: &[std::path::PathBuf]) -> Result<Range> {
    let from_ms = now_ms()? / 10_000 * 10_000;
    let children: Result<Vec<_>> = programs.iter().map(|path| start(path)).collect();
    for mut child in children? {
        let status = child.wait().context("failed to wait for a program")?;
        ensure!(status.success(), "a program ended with {status}");
    }
    let ended_ms = now_ms()?;
    rig.wait_stored(ended_ms)?;
    Ok(range(from_ms, ended_ms))
}

/// Waits until a program's function has its time and its source file.
fn wait_named(rig: &Rig, sampled: Range, comm: &str, function: &str) -> Result<()> {
    let query = format!(r#"{{comm="{comm}"}}"#);
    let what = format!("`{function}` to be named");
    wait_for_answer(&what, || {
        let top = rig.get_json("/api/v1/top", &query, sampled, &[("limit", "20")])?;
        Ok((share_of(&top, function) >= SHARE_MIN).then_some(top))
    })
    .and_then(|top| check_source(&top, function))
}

fn check_source(top: &Value, function: &str) -> Result<()> {
    let functions = top["functions"].as_array().map_or(&[][..], Vec::as_slice);
    let found = functions.iter().find(|row| row["name"] == function);
    let file = found
        .and_then(|row| row["file"].as_str())
        .unwrap_or_default();
    ensure!(file.ends_with("burner.c"), "no source file: {top}");
    Ok(())
}
