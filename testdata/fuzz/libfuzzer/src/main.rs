//! Runs the target that `PILOTLIGHT_FUZZ_TARGET` names, after its seeds were written to the folder `PILOTLIGHT_FUZZ_SEEDS`.
#![no_main]

use std::env;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind, set_hook};
use std::path::Path;
use std::sync::{Mutex, OnceLock};

use fuzz::{TARGETS, Target};
use libfuzzer_sys::fuzz_target;

static TARGET: OnceLock<Target> = OnceLock::new();

static LAST_PANIC: Mutex<String> = Mutex::new(String::new());

fuzz_target!(init: prepare(), |input: &[u8]| {
    let target = TARGET.get().expect("libFuzzer initializes first");
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| (target.run)(input))) {
        eprintln!("{}", LAST_PANIC.lock().expect("the hook does not panic"));
        resume_unwind(panic);
    }
});

fn prepare() {
    // libFuzzer's own hook ends the run at each panic, but one that a target catches is no finding.
    set_hook(Box::new(|panic| {
        if let Ok(mut last) = LAST_PANIC.lock() {
            *last = panic.to_string();
        }
    }));
    let name = env::var("PILOTLIGHT_FUZZ_TARGET").unwrap_or_default();
    let found = TARGETS.iter().find(|target| target.name == name);
    let target =
        TARGET.get_or_init(|| *found.unwrap_or_else(|| panic!("no target has the name `{name}`")));
    if let Some(folder) = env::var_os("PILOTLIGHT_FUZZ_SEEDS") {
        for (number, seed) in (target.make_seeds)().into_iter().enumerate() {
            let path = Path::new(&folder).join(format!("seed-{number}"));
            fs::write(path, seed).expect("the corpus can be written");
        }
    }
}
