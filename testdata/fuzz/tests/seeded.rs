//! Runs each fuzz target on its seeds, on what fuzzing found interesting, and on mutations of both, in the same
//! order in each run.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fastrand::Rng;
use fuzz::mutate::mutate;
use fuzz::{TARGETS, Target};

/// Mutations of a target at least; the slowest one takes ten seconds for them.
const MUTATIONS_MIN: usize = 3_000;

/// For as long as a target goes on with mutations: a minute for all of them.
const TIME: Duration = Duration::from_millis(2_500);

/// No input of at most 64 KiB may take longer, on a busy machine and without optimization.
const DEADLINE: Duration = Duration::from_secs(10);

/// Inputs that fuzzing found interesting.
fn read_corpus(name: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("corpus")
        .join(name);
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    let read = |path| fs::read(path).expect("the corpus is readable");
    paths.iter().map(read).collect()
}

/// Runs an input. One that panics is written to a file, which `testdata/fuzz/run` could have found too.
fn run(target: Target, input: &[u8]) {
    let started = Instant::now();
    if catch_unwind(AssertUnwindSafe(|| (target.run)(input))).is_err() {
        let path = std::env::temp_dir().join(format!("{}-{}", target.name, std::process::id()));
        fs::write(&path, input).expect("a temporary file can be written");
        panic!("the target {} panics on {}", target.name, path.display());
    }
    let time = started.elapsed();
    assert!(
        time < DEADLINE,
        "{}: {time:?} for {} bytes",
        target.name,
        input.len()
    );
}

fn check(name: &str) {
    let target = *TARGETS
        .iter()
        .find(|target| target.name == name)
        .expect("it is a target");
    let mut inputs = (target.make_seeds)();
    assert!(!inputs.is_empty());
    inputs.extend(read_corpus(name));
    inputs.iter().for_each(|input| run(target, input));
    let mut random = Rng::with_seed(1);
    let started = Instant::now();
    let mut mutations = 0;
    while mutations < MUTATIONS_MIN || started.elapsed() < TIME {
        run(target, &mutate(&inputs, &mut random));
        mutations += 1;
    }
}

macro_rules! check_targets {
    ($($name:ident)*) => {
        $(#[test] fn $name() { check(stringify!($name)); })*

        /// Check that no target is without a test.
        #[test]
        fn all_targets_are_checked() {
            let checked = [$(stringify!($name)),*];
            assert!(TARGETS.iter().map(|target| target.name).eq(checked));
        }
    };
}

check_targets! {
    record maps namer frames selector segment columnar log push entries pprof elf cfi walk rows code go jit tables debug symbols cgroup
    pod relabel policy
}
