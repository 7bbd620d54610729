//! Hostile files, and long uptime: full tables empty again.

use std::ops::Range;

use super::*;
use crate::unwind::tables::files::FILES_MAX;

/// Time between two samples of a process.
const SAMPLE_NS: u64 = 500_000_000;

/// A process that maps one file at 0.
struct Program {
    pid: u32,
    file: Arc<MappedFile>,
    mappings: Arc<Mappings>,
}

/// Tables with a kernel, and a clock.
struct Machine {
    files: Files,
    tables: Tables,
    kernel: Kernel,
    now_ns: u64,
}

impl Machine {
    fn new() -> Self {
        Self {
            files: Files::new(),
            tables: Tables::new(24 << 20),
            kernel: Kernel::new(),
            now_ns: 1,
        }
    }

    fn start(&mut self, pid: u32, file_number: u64) -> Program {
        let file = file(&mut self.files, file_number * 3);
        let mappings = mappings(&[(0, 2 << 30, 0, &file)]);
        Program {
            pid,
            file,
            mappings,
        }
    }

    /// Takes a sample in the code of a program, whose file has these rows, and writes what it wants.
    fn sample(&mut self, program: &Program, rows: impl FnOnce() -> Evaluation) {
        let Program {
            pid,
            file,
            mappings,
        } = program;
        file.used_ns.store(self.now_ns, Ordering::Relaxed);
        self.tables.set_process(*pid, 1, mappings, self.now_ns);
        self.tables.touch_process(*pid, self.now_ns);
        if self.tables.wants(file, self.now_ns) {
            let key = TableKey::of(file).unwrap();
            self.tables.load(&key, rows(), self.now_ns);
        }
        flush(&mut self.tables, &mut self.kernel, self.now_ns);
    }

    fn is_walked(&self, program: &Program, address: u64) -> bool {
        self.kernel.processes.contains_key(&program.pid)
            && matches!(answer(&self.kernel, program.pid, address), Answer::Rule(_))
    }
}

/// So many rules, as of a file with that many offsets of its frames.
fn many_rules(file: u64, count: i32) -> Evaluation {
    let rows = (0..count).map(|place| {
        let rule = Rule::at_register(7, (file as i32) << 20 | place);
        (place as u64 * 4, Some(rule))
    });
    evaluation([file, 1, 1], rows, count as u64 * 4)
}

/// One rule for each of these parts of a file.
fn spread_code(file: u64, parts: &[Range<u64>]) -> Evaluation {
    let rows = parts
        .iter()
        .flat_map(|part| [(part.start, Some(rule_of(file, 0))), (part.end, None)]);
    let end = parts.last().map_or(0, |part| part.end);
    evaluation([file, 2, 2], rows, end)
}

/// Samples hostile programs all the time, and honest ones, which must all be walked in the kernel at some moment within
/// this time, each several times.
fn check_that_honest_programs_are_walked(
    hostile_count: u64,
    hostile: impl Fn(u64) -> Evaluation,
    seconds: u64,
) -> TablesStats {
    let mut machine = Machine::new();
    let hostiles: Vec<Program> = (0..hostile_count)
        .map(|number| machine.start(number as u32 + 1, number))
        .collect();
    let honest_numbers = 1_000..1_010;
    let honests: Vec<Program> = honest_numbers
        .map(|number| machine.start(number as u32, number))
        .collect();
    // First the hostile ones alone.
    let mut walked = vec![0; honests.len()];
    for step in 0..(seconds + 4) * 2 {
        for (program, number) in hostiles.iter().zip(0..) {
            machine.sample(program, || hostile(number));
        }
        if step >= 8 {
            for (program, walked) in honests.iter().zip(&mut walked) {
                let number = u64::from(program.pid);
                machine.sample(program, || rows_of(number, 0, 500 * 256));
                *walked += u32::from(machine.is_walked(program, 0x500));
            }
        }
        machine.now_ns += SAMPLE_NS;
    }
    let stats = machine.tables.stats();
    assert!(
        walked.iter().all(|count| *count > 2),
        "{walked:?} {stats:?}"
    );
    stats
}

/// Check that files with as many rules as there are numbers get no more than a file may have, and that honest files
/// have rows beside many of them that are in use.
#[test]
fn files_with_all_rules() {
    let stats = check_that_honest_programs_are_walked(1, |file| many_rules(file, 65_536), 2);
    assert!(stats.refused.rules > 50_000, "{stats:?}");
    assert_eq!(stats.evictions, 0);
    let stats = check_that_honest_programs_are_walked(40, |file| many_rules(file, 5_000), 60);
    assert!(stats.evictions > 0 && stats.rules_reused > 0, "{stats:?}");
}

/// Check that files with code at both ends of a gigabyte take blocks for their code only, and that honest files have
/// rows beside many that have code all over it.
#[test]
fn sparse_files() {
    let ends = |file| spread_code(file, &[0..0x100, (1 << 30) - 0x100..1 << 30]);
    let stats = check_that_honest_programs_are_walked(100, ends, 2);
    assert_eq!((stats.evictions, stats.refused.blocks), (0, 0));
    assert!(stats.blocks <= 100 * 2 + 10 * 2, "{stats:?}");
    let whole = |file| spread_code(file, std::slice::from_ref(&(0..1 << 30)));
    let stats = check_that_honest_programs_are_walked(12, whole, 60);
    assert!(stats.evictions > 0, "{stats:?}");
    // More pieces than a file may have.
    let pieces: Vec<Range<u64>> = (0..100)
        .map(|piece| (piece * 10) << 20)
        .map(|start| start..start + 64)
        .collect();
    let stats = check_that_honest_programs_are_walked(1, |file| spread_code(file, &pieces), 2);
    assert_eq!((stats.refused.blocks, stats.blocks), (1, 10 * 2));
}

/// Check that a file with code in two pieces has its rows in both, and none between.
#[test]
fn code_in_pieces() {
    let mut machine = Machine::new();
    let program = machine.start(1, 1);
    let parts = [0x1000..0x2000, (1 << 30) - 0x3000..(1 << 30) - 0x1000];
    machine.sample(&program, || spread_code(1, &parts));
    for address in [
        0,
        0xfff,
        0x1000,
        0x1fff,
        0x2000,
        1 << 29,
        (1 << 30) - 0x3001,
        (1 << 30) - 0x3000,
        1 << 30,
    ] {
        let is_code = parts.iter().any(|part| part.contains(&address));
        let found = machine.tables.find_rule(&program.mappings, address);
        let expected = if is_code {
            assert_eq!(found, Found::Rule(rule_of(1, 0)), "{address:#x}");
            Answer::Rule(rule_of(1, 0))
        } else {
            assert!(matches!(found, Found::Unread { .. }), "{address:#x}");
            Answer::Copy
        };
        assert_eq!(
            answer(&machine.kernel, 1, address),
            expected,
            "{address:#x}"
        );
    }
}

/// Check that a process with more than a quarter of the rules for itself makes room for others at once, though all of its
/// files are in use.
#[test]
fn a_process_with_too_much() {
    let mut machine = Machine::new();
    let files: Vec<Arc<MappedFile>> = (0..16)
        .map(|number| file(&mut machine.files, number * 3))
        .collect();
    let list: Vec<_> = (0..16u64)
        .map(|at| (at << 20, (at + 1) << 20, 0, &files[at as usize]))
        .collect();
    let mapped = mappings(&list);
    machine.tables.set_process(1, 1, &mapped, 1);
    for (file, number) in files.iter().zip(0..) {
        file.used_ns.store(machine.now_ns, Ordering::Relaxed);
        load(&mut machine.tables, file, many_rules(number, 4_095), 1);
    }
    flush(&mut machine.tables, &mut machine.kernel, 1);
    assert!(machine.tables.stats().rules > 60_000);
    let honest = machine.start(2, 1_000);
    for _ in 0..4 {
        machine.sample(&honest, || rows_of(1_000, 0, 5_000 * 256));
        machine.now_ns += SAMPLE_NS;
        for file in &files {
            file.used_ns.store(machine.now_ns, Ordering::Relaxed);
        }
    }
    assert!(machine.is_walked(&honest, 0x500));
    assert_eq!(machine.tables.stats().evictions, 1);
}

/// Check that after 100,000 files, each of a program of its own that has ended, a new one has its rows, and that no more is
/// kept than may be.
#[test]
fn long_uptime() {
    let mut machine = Machine::new();
    for number in 0..100_000u32 {
        let program = machine.start(number % 30_000 + 1, number.into());
        let now_ns = machine.now_ns;
        program.file.used_ns.store(now_ns, Ordering::Relaxed);
        machine
            .tables
            .set_process(program.pid, 1, &program.mappings, now_ns);
        let evaluation = match number % 2 {
            0 => Evaluation::NoRows,
            _ => rows_of(number.into(), 0, 4 * 256),
        };
        load(&mut machine.tables, &program.file, evaluation, now_ns);
        machine.tables.remove_process(program.pid, now_ns);
        if number % 10 == 0 {
            machine.tables.take_writes();
            machine.tables.end_epoch(now_ns);
        }
        machine.now_ns += 20_000_000;
    }
    let program = machine.start(1, 200_000);
    // Everything that the kernel has not heard of.
    machine.tables.reset(machine.now_ns);
    for _ in 0..2 {
        machine.now_ns += SAMPLE_NS;
        flush(&mut machine.tables, &mut machine.kernel, machine.now_ns);
    }
    machine.sample(&program, || rows_of(200_000, 0, 4 * 256));
    let stats = machine.tables.stats();
    assert!(machine.is_walked(&program, 0x100), "{stats:?}");
    assert!(stats.files_known <= FILES_MAX, "{stats:?}");
    assert!(
        stats.file_evictions > 15_000 && stats.rules_reused > 50_000,
        "{stats:?}"
    );
    assert_eq!((stats.processes, stats.refused.processes), (1, 0));
}

/// Check that a file that was forgotten while a process maps it has its rows again when it is sampled, and the process
/// hears of them.
#[test]
fn forgotten_files_come_back() {
    let mut machine = Machine::new();
    let program = machine.start(1, 1);
    machine.sample(&program, || rows_of(1, 0, 20 * 256));
    for number in 2..FILES_MAX as u64 + 2 {
        let other = file(&mut machine.files, number * 3);
        load(&mut machine.tables, &other, Evaluation::NoRows, number);
    }
    machine.now_ns += SAMPLE_NS;
    flush(&mut machine.tables, &mut machine.kernel, machine.now_ns);
    assert_eq!(answer(&machine.kernel, 1, 0x500), Answer::Copy);
    machine.sample(&program, || rows_of(1, 0, 20 * 256));
    assert_eq!(
        answer(&machine.kernel, 1, 0x500),
        Answer::Rule(rule_of(1, 0x500))
    );
}
