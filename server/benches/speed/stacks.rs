//! Counts stacks and the nodes of their tree, and opens a file with `go tool pprof`.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::Result;
use pprof::protos::{Message as _, Profile};

/// Different stacks of a pprof, and of the tree that they make.
pub(crate) struct StackCounts {
    pub(crate) stacks: usize,
    pub(crate) nodes: usize,
}

/// Counts by hashes: two of some million are equal with a probability of 1e-7.
pub(crate) fn count_stacks(pprof: &[u8]) -> Result<StackCounts> {
    let profile = Profile::decode(pprof)?;
    let state = RandomState::new();
    let (mut stacks, mut nodes) = (HashSet::new(), HashSet::new());
    for sample in &profile.sample {
        let mut node = 0;
        for location in sample.location_id.iter().rev() {
            node = state.hash_one((node, location));
            nodes.insert(node);
        }
        stacks.insert(node);
    }
    Ok(StackCounts {
        stacks: stacks.len(),
        nodes: nodes.len(),
    })
}

/// How long `go tool pprof -top` takes, or why it says nothing.
pub(crate) fn open_with_go(path: &Path) -> String {
    // It is built when it is named for the first time.
    let _built = Command::new("go").args(["tool", "-n", "pprof"]).output();
    let started = Instant::now();
    let output = Command::new("go")
        .args(["tool", "pprof", "-top", "-nodecount=5"])
        .arg(path)
        .output();
    match output {
        Err(err) => format!("no `go`: {err}"),
        Ok(output) if output.status.success() => {
            let lines = String::from_utf8_lossy(&output.stdout).lines().count();
            format!("{lines} lines in {:.1} s", started.elapsed().as_secs_f64())
        }
        Ok(output) => format!("failed: {}", String::from_utf8_lossy(&output.stderr).trim()),
    }
}
