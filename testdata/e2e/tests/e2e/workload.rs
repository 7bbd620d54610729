//! Builds and runs the programs of `testdata/workloads/`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Mutex;

use anyhow::{Context as _, Result, ensure};
use e2e::expected::{Expected, Truth};

use crate::rig::{Range, is_emulated, now_ms, target_dir};

/// In an emulator the run is shorter: only large errors of shares must be noticed.
const CPU_SECONDS_EMULATED_MAX: f64 = 4.0;

/// make must not run twice at the same time in one directory.
static BUILD: Mutex<()> = Mutex::new(());

/// A finished run of a workload.
pub(crate) struct Run {
    pub(crate) expected: Expected,
    pub(crate) truth: Truth,
    /// Selector of the program's samples.
    pub(crate) query: String,
    /// All windows in which it ran.
    pub(crate) range: Range,
    /// The time of its end, in Unix milliseconds.
    pub(crate) ended_ms: u64,
}

/// Programs that run until this is dropped.
#[derive(Default)]
pub(crate) struct Running(pub(crate) Vec<Child>);

impl Drop for Running {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Builds the workloads, runs the one with this name to its end, and parses its report.
pub(crate) fn run(name: &str) -> Result<Run> {
    let expected = read_expected(name)?;
    let seconds = if is_emulated() {
        expected.cpu_seconds.min(CPU_SECONDS_EMULATED_MAX)
    } else {
        expected.cpu_seconds
    };
    run_for(expected, seconds)
}

/// Like [`run`], with another number of CPU seconds.
pub(crate) fn run_for(expected: Expected, cpu_seconds: f64) -> Result<Run> {
    let dir = build()?;
    let from_ms = now_ms()? / 10_000 * 10_000;
    let output = Command::new(dir.join(&expected.program))
        .arg(cpu_seconds.to_string())
        .output()
        .with_context(|| format!("failed to run the workload `{}`", expected.program))?;
    ensure!(
        output.status.success(),
        "the workload `{}` ended with {}: {}",
        expected.program,
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    let ended_ms = now_ms()?;
    let truth = Truth::parse(&String::from_utf8_lossy(&output.stdout))?;
    let query = format!(r#"{{comm="{}"}}"#, expected.sampled());
    let range = Range {
        from_ms,
        to_ms: ended_ms / 10_000 * 10_000 + 10_000,
    };
    Ok(Run {
        expected,
        truth,
        query,
        range,
        ended_ms,
    })
}

/// The expected profile with this name.
pub(crate) fn read_expected(name: &str) -> Result<Expected> {
    let path = source_dir().join(format!("{name}.expected.json"));
    let text = fs::read_to_string(&path)
        .with_context(|| format!("failed to read `{}`", path.display()))?;
    Expected::parse(&text).with_context(|| format!("in `{}`", path.display()))
}

/// Builds outdated programs, and returns their directory.
pub(crate) fn build() -> Result<PathBuf> {
    let _one_at_a_time = BUILD.lock();
    let out = target_dir().join("workloads");
    if is_emulated() {
        return Ok(out);
    }
    let output = Command::new("make")
        .arg("-C")
        .arg(source_dir())
        .arg(format!("OUT={}", out.display()))
        // The settings of an outer make must not affect this one.
        .env_remove("MAKEFLAGS")
        .output()
        .context("failed to run `make`")?;
    ensure!(
        output.status.success(),
        "the workloads do not build: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(out)
}

fn source_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../workloads")
}
