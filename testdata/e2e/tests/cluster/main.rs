//! The Helm chart and the images: rendered and checked offline, and installed in a Kubernetes of one
//! node (testdata/cluster/).
//!
//! `cargo test -p pilotlight-e2e --test cluster` runs all of it after `testdata/cluster/build` and
//! `deploy/build`; `… --test cluster -- chart` needs no cluster. A test is ignored, with the reason,
//! if the machine lacks a requirement.

mod accounting;
mod chart;
mod identity;
mod images;
mod install;
mod leftovers;
mod policy;
mod release;
mod rights;
mod tools;
mod upgrade;
mod workloads;

use std::process::ExitCode;

use anyhow::Result;
use libtest_mimic::{Arguments, Completion, Trial};

/// A test: its name, and what it does.
type Check = (&'static str, fn() -> Result<()>);

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // There is one cluster.
    arguments.test_threads = Some(1);
    let missing_tools = tools::find_missing("chart");
    let missing_images = tools::find_missing("images");
    let missing_cluster = tools::find_missing("cluster");
    let mut trials = Vec::new();
    for (name, check) in chart::CHECKS {
        trials.push(trial(&format!("chart::{name}"), &missing_tools, check));
    }
    for (name, check) in images::CHECKS {
        trials.push(trial(&format!("images::{name}"), &missing_images, check));
    }
    trials.push(trial(
        "cluster::leftovers",
        &missing_cluster,
        leftovers::check,
    ));
    trials.push(trial("cluster::install", &missing_cluster, install::check));
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// A trial that is ignored, with the reason, if a requirement is missing.
fn trial(name: &str, missing: &Option<String>, check: fn() -> Result<()>) -> Trial {
    let missing = missing.clone();
    Trial::ignorable_test(name, move || match missing {
        Some(reason) => Ok(Completion::ignored_with(reason)),
        None => check()
            .map(|()| Completion::Completed)
            .map_err(|error| format!("{error:#}").into()),
    })
}
