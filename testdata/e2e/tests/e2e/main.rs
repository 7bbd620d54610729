//! The end-to-end test: the real collector and server on the real kernel, with programs whose
//! profiles are known.
//!
//! `cargo test -p pilotlight-e2e --test e2e` runs all of it, `… --test e2e -- syscalls` one part.
//! It needs root, a kernel with BTF, both programs built (`cargo build --release`), and `go` for
//! `go tool pprof`. Without one of them each test is ignored, with the reason.

mod container;
mod hand_over;
mod hanging;
mod instructions;
mod labels;
mod names;
mod policy;
mod profile;
mod rig;
mod sent;
mod trouble;
mod workload;

use std::process::ExitCode;
use std::sync::{Arc, Mutex};

use anyhow::{Context as _, Result};
use libtest_mimic::{Arguments, Completion, Conclusion, Trial};

use crate::rig::Rig;

/// The workloads, by the names of their expected profiles.
const WORKLOADS: [&str; 7] = [
    "shares_c",
    "shares_rust",
    "threads_c",
    "blink",
    "syscalls_c",
    "in_step",
    "deep_c",
];

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // Two workloads at a time keep two CPUs busy; the tests in `trouble` have their own collector
    // and server.
    arguments.test_threads.get_or_insert(2);
    if let Err(error) = rig::end_programs_on_signal() {
        eprintln!("{error:#}");
        return ExitCode::FAILURE;
    }
    let missing = Arc::new(rig::find_missing());
    let shared = Arc::new(SharedRig::default());

    let mut trials: Vec<Trial> = Vec::new();
    for name in WORKLOADS {
        let shared = Arc::clone(&shared);
        trials.push(trial(&format!("profile::{name}"), &missing, move || {
            profile::check(&*shared.get()?, name)
        }));
    }
    for (name, check) in labels::CHECKS {
        let shared = Arc::clone(&shared);
        trials.push(trial(&format!("labels::{name}"), &missing, move || {
            check(&*shared.get()?)
        }));
    }
    // An emulated guest has no build tools.
    if !rig::is_emulated() {
        for (name, check, tools) in names::CHECKS {
            let shared = Arc::clone(&shared);
            let missing = with_tools(&missing, tools);
            trials.push(trial(&format!("names::{name}"), &missing, move || {
                check(&*shared.get()?)
            }));
        }
        for (name, check, tools) in instructions::CHECKS {
            let shared = Arc::clone(&shared);
            let missing = with_tools(&missing, tools);
            trials.push(trial(
                &format!("instructions::{name}"),
                &missing,
                move || check(&*shared.get()?),
            ));
        }
        trials.push(trial("policy::rules_change", &missing, policy::check));
        let tools = hanging::TOOLS.as_slice();
        let missing_for_hanging = Arc::new(
            with_tools(&missing, tools)
                .as_ref()
                .clone()
                .or_else(hanging::find_missing),
        );
        trials.push(trial(
            "hanging::file_system",
            &missing_for_hanging,
            hanging::check,
        ));
        for (name, check) in hand_over::CHECKS {
            trials.push(trial(&format!("hand_over::{name}"), &missing, check));
        }
        for (name, check, tools) in sent::CHECKS {
            let missing = with_tools(&missing, tools);
            trials.push(trial(&format!("sent::{name}"), &missing, check));
        }
    }
    let no_module =
        || "needs a kernel that loads the module raid6_pq, as in deploy/test-kernels".to_owned();
    let missing_module = missing
        .as_ref()
        .clone()
        .or_else(|| names::find_module().is_none().then(no_module));
    let module_rig = Arc::clone(&shared);
    trials.push(trial(
        "names::kernel_module",
        &Arc::new(missing_module),
        move || names::MODULE_CHECK(&*module_rig.get()?),
    ));
    for (name, check) in container::CHECKS {
        trials.push(trial(&format!("container::{name}"), &missing, check));
    }
    for (name, check) in trouble::CHECKS {
        trials.push(trial(&format!("trouble::{name}"), &missing, check));
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    end(&shared, &conclusion)
}

/// The missing requirement of all tests, or else of those that need these tools.
fn with_tools(missing: &Option<String>, tools: &[&str]) -> Arc<Option<String>> {
    let missing = missing.clone();
    Arc::new(missing.or_else(|| rig::find_missing_tool(tools)))
}

/// A trial that is ignored, with the reason, if a requirement is missing.
fn trial(
    name: &str,
    missing: &Arc<Option<String>>,
    check: impl FnOnce() -> Result<()> + Send + 'static,
) -> Trial {
    let missing = Arc::clone(missing);
    Trial::ignorable_test(name, move || match missing.as_ref() {
        Some(reason) => Ok(Completion::ignored_with(reason.clone())),
        None => check()
            .map(|()| Completion::Completed)
            .map_err(|error| format!("{error:#}").into()),
    })
}

/// The collector and server that all workloads share, started by the first workload.
#[derive(Default)]
struct SharedRig {
    rig: Mutex<Option<Arc<Rig>>>,
}

impl SharedRig {
    fn get(&self) -> Result<Arc<Rig>> {
        let mut rig = self
            .rig
            .lock()
            .ok()
            .context("the test that started the collector panicked")?;
        if let Some(rig) = rig.as_ref() {
            return Ok(Arc::clone(rig));
        }
        let started = Arc::new(Rig::start("shared")?);
        Ok(Arc::clone(rig.insert(started)))
    }

    fn take(&self) -> Option<Rig> {
        self.rig.lock().ok()?.take().and_then(Arc::into_inner)
    }
}

/// Stops the shared programs, which must exit with status 0 and with all samples accounted for, and
/// returns the exit code of the test.
fn end(shared: &SharedRig, conclusion: &Conclusion) -> ExitCode {
    let accounting = shared.take().map(|mut rig| {
        rig.stop_collectors()?;
        rig.check_accounting()?;
        rig.stop_server()
    });
    if let Some(Err(error)) = accounting {
        eprintln!("after the workloads: {error:#}");
        return ExitCode::FAILURE;
    }
    conclusion.exit_code()
}
