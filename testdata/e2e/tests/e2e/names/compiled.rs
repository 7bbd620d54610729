//! Languages whose names differ from their symbols, and inlined calls, which have no symbol.

use std::process::Command;

use anyhow::{Context as _, Result};
use e2e::graph::{Frame, Stack};
use tempfile::TempDir;

use super::case::{Case, all, check_cases, user_leaf};
use super::{run, source, start};
use crate::rig::Rig;

/// Check C++ with and without debug information, and Rust with its inlined calls.
pub(super) fn check(rig: &Rig) -> Result<()> {
    let directory = TempDir::new().context("failed to make a directory")?;
    let at = |name: &str| directory.path().join(name);
    for (comm, options) in [("nm-cc", &[][..]), ("nm-cc-debug", &["-g"])] {
        let mut command = Command::new("c++");
        command
            .args(["-O2", "-o"])
            .args([&at(comm), &source("burner.cc")]);
        run(command.args(options))?;
    }
    let mut rustc = Command::new("rustc");
    rustc.args(["--edition", "2024", "-O", "-g", "-o"]);
    run(rustc.args([&at("nm-rust"), &source("burner.rs")]))?;
    let case = |what, query, is_named| Case {
        what,
        query,
        counts: all,
        is_named,
        unnamed_max: 0.02,
    };
    let cases = [
        case("C++ with symbols only", r#"{comm="nm-cc"}"#, is_method),
        case(
            "C++ with debug information",
            r#"{comm="nm-cc-debug"}"#,
            is_method,
        ),
        case(
            "Rust with its inlined calls",
            r#"{comm="nm-rust"}"#,
            has_inlined_calls,
        ),
    ];
    check_cases(rig, &cases, || {
        let names = ["nm-cc", "nm-cc-debug", "nm-rust"];
        names.iter().map(|comm| start(&at(comm))).collect()
    })
}

/// Check a static program that is linked with musl.
pub(super) fn check_musl(rig: &Rig) -> Result<()> {
    let directory = TempDir::new().context("failed to make a directory")?;
    let path = directory.path().join("nm-musl");
    let mut command = Command::new("musl-gcc");
    command.args([
        "-O2",
        "-static",
        "-DFUNCTION=burn_in_musl",
        "-DSALT=77",
        "-o",
    ]);
    run(command.args([&path, &source("burner.c")]))?;
    let case = Case {
        what: "a static program of musl's",
        query: r#"{comm="nm-musl"}"#,
        counts: all,
        is_named: |stack| {
            let leaf = user_leaf(stack);
            leaf.is_some_and(|leaf| leaf.name == "burn_in_musl") && stack.contains("main")
        },
        unnamed_max: 0.02,
    };
    check_cases(rig, &[case], || Ok(vec![start(&path)?]))
}

fn is_method(stack: &Stack<'_>) -> bool {
    let name = "burning::Burner<unsigned long>::burn_in_cc(unsigned long)";
    user_leaf(stack).is_some_and(|leaf| leaf.name == name) && stack.contains("main")
}

/// `leaf` inlined into `middle`, inlined into `outer`, called by `main`, in this order.
fn has_inlined_calls(stack: &Stack<'_>) -> bool {
    let expected = [
        ("main", false),
        ("outer", false),
        ("middle", true),
        ("leaf", true),
    ];
    let is_it = |(frame, (name, is_inlined)): (&Frame<'_>, (&str, bool))| {
        frame.name.ends_with(&format!("::{name}")) && frame.is_inlined() == is_inlined
    };
    let mut calls = stack.frames.windows(expected.len());
    calls.any(|frames| frames.iter().zip(expected).all(is_it))
}
