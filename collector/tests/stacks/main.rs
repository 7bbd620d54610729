//! Our walk against the truth, stack by stack: programs are run one instruction at a time by `testdata/unwind/stepper.c`,
//! which sees each call and so knows each stack; at each instruction that is reached for the first time, and at many others,
//! the walk over the copied stack has to find the same frames.
//!
//! `PILOTLIGHT_ALL_STACKS=1` adds programs of the system and everything that takes longer. A test is ignored, and says why,
//! when there is no compiler or when one process may not trace another.

mod process;
mod stepper;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Arc;

use collector::unwind::{Lookup, walk};
use libtest_mimic::{Arguments, Failed, Trial};
use process::Process;
use profiler_bpf::arch::x86_64::rule::Rule;
use profiler_bpf::outcome::Outcome;
use stepper::{Record, Stepper, Stop};

/// Minimum share of equal stacks. The test prints the others.
const SAME_MIN: f64 = 0.999;

/// Deeper than any of the programs.
const FRAMES_MAX: usize = 2048;

/// A program that is stepped through.
struct Program {
    name: &'static str,
    command: &'static [&'static str],
    /// It gets a signal about once in so many instructions; 0 is never.
    signal_every: u64,
    /// Sends a signal about once in this many instructions; 0: never.
    by_gdb: Option<&'static str>,
    /// Runs only with `PILOTLIGHT_ALL_STACKS=1`.
    is_extra: bool,
}

const fn program(command: &'static [&'static str]) -> Program {
    Program {
        name: command[0],
        command,
        signal_every: 0,
        by_gdb: None,
        is_extra: false,
    }
}

const fn also_by_gdb(command: &'static [&'static str]) -> Program {
    Program {
        by_gdb: Some("main"),
        ..program(command)
    }
}

const fn extra(name: &'static str, command: &'static [&'static str]) -> Program {
    Program {
        name,
        is_extra: true,
        ..program(command)
    }
}

const fn with_signals(name: &'static str, command: &'static [&'static str], every: u64) -> Program {
    Program {
        name,
        signal_every: every,
        by_gdb: Some("on_user2"),
        ..also_by_gdb(command)
    }
}

/// `testdata/unwind/Makefile` builds those without a path.
const PROGRAMS: &[Program] = &[
    also_by_gdb(&["shapes_lazy"]),
    program(&["shapes_now"]),
    program(&["shapes_framed"]),
    program(&["shapes_plain"]),
    also_by_gdb(&["shapes_static"]),
    program(&["shapes_fixed"]),
    also_by_gdb(&["shapes_probed"]),
    also_by_gdb(&["vectors"]),
    with_signals("signals", &["signals"], 1000),
    with_signals("signals_on_a_stack_of_their_own", &["signals", "1"], 1000),
    also_by_gdb(&["throws"]),
    also_by_gdb(&["loads"]),
    program(&["threads"]),
    also_by_gdb(&["release"]),
    program(&["library_calls_static"]),
    program(&["library_calls"]),
    program(&["registers"]),
    extra("throws_shared", &["throws_shared"]),
    extra("ls", &["/usr/bin/ls", "-l", "/usr"]),
    extra("sort", &["/usr/bin/sort", "/etc/passwd"]),
    extra(
        "bash",
        &[
            "/usr/bin/bash",
            "-c",
            "for x in 1 2 3; do printf '%s\\n' $((x * 7)); done",
        ],
    ),
    extra(
        "openssl",
        &["/usr/bin/openssl", "dgst", "-sha256", "/etc/passwd"],
    ),
    extra(
        "perl",
        &[
            "/usr/bin/perl",
            "-e",
            "print join ',', sort map { $_ x 2 } qw(b a c)",
        ],
    ),
    extra("xz", &["/usr/bin/xz", "-c", "/etc/services"]),
];

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(2);
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("stacks");
    let missing = if arguments.list {
        None
    } else {
        build(&folder).err()
    };
    let missing = missing.or_else(|| stepper::try_out(&folder).err());
    let all = std::env::var_os("PILOTLIGHT_ALL_STACKS").is_some();
    let folder = Arc::new(folder);
    let wanted = PROGRAMS.iter().filter(|program| all || !program.is_extra);
    let mut trials: Vec<Trial> = wanted
        .map(|program| {
            let folder = Arc::clone(&folder);
            let name = match &missing {
                Some(reason) if !arguments.list => format!("stacks::{} ({reason})", program.name),
                _ => format!("stacks::{}", program.name),
            };
            Trial::test(name, move || check(&folder, program, all))
                .with_ignored_flag(missing.is_some())
        })
        .collect();
    let missing = missing.or_else(|| {
        let found = arguments.list || Command::new("gdb").arg("--version").output().is_ok();
        (!found).then(|| "there is no gdb".to_owned())
    });
    for program in PROGRAMS.iter().filter(|program| program.by_gdb.is_some()) {
        let folder = Arc::clone(&folder);
        let name = match &missing {
            Some(reason) => format!("gdb::{} ({reason})", program.name),
            None => format!("gdb::{}", program.name),
        };
        let trial = Trial::test(name, move || check_by_gdb(&folder, program, all));
        trials.push(trial.with_ignored_flag(missing.is_some()));
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// Builds the programs. An error is the reason to ignore the tests.
fn build(folder: &Path) -> Result<(), String> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/unwind");
    for tool in ["make", "cc", "c++", "rustc"] {
        if Command::new(tool).arg("--version").output().is_err() {
            return Err(format!("there is no {tool}"));
        }
    }
    let built = Command::new("make")
        .arg("-C")
        .arg(source)
        .arg(format!("OUT={}", folder.display()))
        .output();
    match built {
        Ok(output) if output.status.success() => Ok(()),
        // A program that fails to build fails only its own test.
        Ok(output) => {
            eprintln!("{}", String::from_utf8_lossy(&output.stderr));
            Ok(())
        }
        Err(err) => Err(format!("make: {err}")),
    }
}

/// The comparison of a program's stacks.
#[derive(Debug, Default)]
struct Sums {
    stops: u64,
    frames: u64,
    deepest: usize,
    on_two_stacks: u64,
    /// Walked to their end, by rows that may be wrong.
    uncertain: u64,
    in_handlers: u64,
    different: Differences,
    /// Stops drawn at random, and how many of them differ, except for those in `replaced` and `interrupted`.
    drawn: u64,
    drawn_different: u64,
}

/// Different stacks, by cause.
#[derive(Debug, Default)]
struct Differences {
    /// The instructions of code without call frame information do not tell the caller, and the walk reports that.
    undecided: u64,
    /// The rows have an unsupported form, and the walk reports that: `longjmp`, where registers
    /// already belong to the target frame.
    without_rule: u64,
    /// The C++ runtime's unwinder is replacing its own frame by the catching one.
    replaced: u64,
    /// In the handler of a signal that interrupted code of the first two kinds. How many there are depends on where signals
    /// fall, which the processor's choice of functions in libc moves: one that falls into `longjmp` gives about a hundred.
    interrupted: u64,
    /// None of these.
    unexplained: u64,
}

impl Differences {
    /// Those that do not depend on where signals fall.
    fn sum(&self) -> u64 {
        self.undecided + self.without_rule + self.replaced + self.unexplained
    }
}

/// Functions of libgcc that overwrite their frames' saved values, so that they return to the code
/// that catches an exception. No unwinder can follow that.
const REPLACING: [&str; 4] = [
    "uw_install_context_1",
    "_Unwind_RaiseException",
    "_Unwind_Resume",
    "_Unwind_Resume_or_Rethrow",
];

fn check(folder: &Path, program: &Program, all: bool) -> Result<(), Failed> {
    let mut command: Vec<PathBuf> = program.command.iter().map(PathBuf::from).collect();
    command[0] = folder.join(&command[0]);
    let one_in = if all { 16 } else { 64 };
    let steps_max = if all { 20_000_000 } else { 2_000_000 };
    let mut stepper = Stepper::start(folder, &command, steps_max, one_in, program.signal_every)?;
    let mut process = Process::default();
    let mut sums = Sums::default();
    let (steps, instructions) = loop {
        match stepper.next()? {
            Record::Mappings(text) => process.set_mappings(&text),
            Record::Vdso(bytes) => process.set_vdso(&bytes),
            Record::Stop(stop) => compare(&mut process, &stop, &mut sums),
            Record::End {
                steps,
                instructions,
            } => break (steps, instructions),
        }
    };
    println!(
        "{}: {steps} steps over {instructions} instructions\n  {sums:?}",
        program.name
    );
    let stops = sums.stops as f64;
    let demand = |holds: bool, what: &str| {
        if holds {
            Ok(())
        } else {
            Err(format!("{what}: {sums:?}"))
        }
    };
    demand(sums.stops > 5_000 && sums.drawn > 1_000, "too few stops")?;
    // A handler runs for about a hundred stops.
    demand(
        program.signal_every == 0 || sums.in_handlers > 300,
        "too few signals",
    )?;
    demand(
        command.len() == 1 || program.signal_every == 0 || sums.on_two_stacks > 300,
        "too few stops on a second stack",
    )?;
    demand(
        sums.different.interrupted <= sums.in_handlers / 3,
        "stacks of handlers that are different",
    )?;
    // At any instruction, however rarely it is reached.
    let unexplained = sums.different.unexplained as f64;
    demand(
        unexplained <= (1.0 - SAME_MIN) * stops,
        "stacks that are different",
    )?;
    demand(
        sums.different.sum() as f64 <= 0.015 * stops,
        "stacks that are different",
    )?;
    // At random times.
    let drawn_different = sums.drawn_different as f64;
    demand(
        drawn_different <= (1.0 - SAME_MIN) * sums.drawn as f64 + 5.0,
        "stacks that are different at random times",
    )?;
    Ok(())
}

/// Compares with gdb's stacks, at fewer stops.
fn check_by_gdb(folder: &Path, program: &Program, all: bool) -> Result<(), Failed> {
    let mut command: Vec<PathBuf> = program.command.iter().map(PathBuf::from).collect();
    command[0] = folder.join(&command[0]);
    let stops = if all { 2_000 } else { 100 };
    let mut stepper = {
        let out = folder.join(program.name).with_extension("gdb");
        Stepper::run_gdb(&out, &command, program.by_gdb.unwrap_or("main"), stops)?
    };
    let mut process = Process::default();
    let mut sums = Sums::default();
    loop {
        match stepper.next()? {
            Record::Mappings(text) => process.set_mappings(&text),
            Record::Vdso(bytes) => process.set_vdso(&bytes),
            Record::Stop(stop) => compare(&mut process, &stop, &mut sums),
            Record::End { .. } => break,
        }
    }
    println!("{} by gdb\n  {sums:?}", program.name);
    if program.signal_every > 0 && sums.in_handlers < 5 {
        return Err(format!("too few signals: {sums:?}").into());
    }
    if sums.stops < 50 || sums.different.unexplained > sums.stops / 100 {
        return Err(format!("stacks that are different from gdb's: {sums:?}").into());
    }
    Ok(())
}

/// Walks the stack of a stop, and compares it.
fn compare(process: &mut Process, stop: &Stop, sums: &mut Sums) {
    let mut frames = Vec::new();
    let mut is_call = false;
    let rule_at = |at| {
        let found = process.rule_at(at, is_call);
        is_call = found != Lookup::Rule(Rule::SIGNAL);
        found
    };
    let outcome = walk(
        &stop.registers,
        |at| stop.read(at),
        rule_at,
        &mut frames,
        FRAMES_MAX,
    );
    sums.stops += 1;
    sums.drawn += u64::from(stop.is_drawn);
    sums.frames += stop.frames.len() as u64;
    sums.deepest = sums.deepest.max(stop.frames.len());
    sums.on_two_stacks += u64::from(stop.memory.len() > 1);
    sums.in_handlers += u64::from(
        stop.frames
            .iter()
            .any(|address| process.is_trampoline(*address)),
    );
    let has_ended = outcome.is_complete() || outcome == Outcome::Uncertain;
    sums.uncertain += u64::from(outcome == Outcome::Uncertain);
    if frames == stop.frames && has_ended {
        return;
    }
    let right = frames
        .iter()
        .zip(&stop.frames)
        .take_while(|(ours, theirs)| ours == theirs)
        .count();
    let is_interrupted = right > 1 && process.is_trampoline(frames[right - 2]);
    let is_undecided = outcome == Outcome::Undecided && frames.len() == right;
    let has_no_rule = outcome == Outcome::RuleUnsupported && frames.len() == right;
    let different = &mut sums.different;
    if is_interrupted && (is_undecided || has_no_rule) {
        different.interrupted += 1;
        return;
    } else if has_no_rule {
        different.without_rule += 1;
    } else if stop
        .frames
        .iter()
        .any(|address| process.is_in(*address, &REPLACING))
    {
        different.replaced += 1;
        return;
    } else if is_undecided {
        different.undecided += 1;
    } else {
        different.unexplained += 1;
        if different.unexplained <= 20 {
            let show = |frames: &[u64]| -> Vec<String> {
                let from = right.saturating_sub(1).min(frames.len());
                let to = frames.len().min(right + 3);
                frames[from..to]
                    .iter()
                    .map(|address| process.describe(*address))
                    .collect()
            };
            println!(
                "at {}: {outcome:?}, {right} frames are the same\n  ours   {:?}\n  theirs {:?}",
                process.describe(stop.registers[16]),
                show(&frames),
                show(&stop.frames),
            );
        }
    }
    sums.drawn_different += u64::from(stop.is_drawn);
}
