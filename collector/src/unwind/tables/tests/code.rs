//! Rows by instructions in the tables.

use super::*;
use crate::unwind::CodeRows;

/// A rule by instructions, one for each number.
fn code_rule(number: i32) -> Rule {
    Rule {
        source: 1,
        ..Rule::at_register(7, number * 8)
    }
}

fn code_rows(ranges: &[(u64, u64, i32)]) -> CodeRows {
    let mut rows = CodeRows::default();
    for (start, end, number) in ranges {
        rows.insert(*start, end - start, code_rule(*number));
    }
    rows
}

struct Machine {
    tables: Tables,
    kernel: Kernel,
    code: Arc<MappedFile>,
    mapped: Arc<Mappings>,
    now_ns: u64,
}

impl Machine {
    /// A process that maps a file, with call frame information for a part of it.
    fn new(rows: Evaluation) -> Self {
        let code = file(&mut Files::new(), 3);
        let mut machine = Self {
            tables: Tables::new(4 * PAGE_BYTES),
            kernel: Kernel::new(),
            mapped: mappings(&[(0x10_0000, 0x20_0000, 0, &code)]),
            code,
            now_ns: 1,
        };
        machine.tables.set_process(5, 55, &machine.mapped, 1);
        load(&mut machine.tables, &machine.code, rows, 1);
        machine.flush();
        machine
    }

    fn load_code(&mut self, rows: &CodeRows) {
        let key = TableKey::of(&self.code).unwrap();
        self.tables.load_code(&key, rows, self.now_ns);
    }

    /// Writes until nothing waits for its time.
    fn flush(&mut self) {
        for _ in 0..5 {
            self.now_ns += DRAIN_NS;
            flush(&mut self.tables, &mut self.kernel, self.now_ns);
        }
    }

    /// Checks the rule at an offset in user space, and the kernel's.
    fn check(&self, offset: u64, expected: Option<Rule>) {
        let address = 0x10_0000 + offset;
        let found = self.tables.find_rule(&self.mapped, address);
        let kernels = answer(&self.kernel, 5, address);
        match expected {
            Some(rule) => {
                assert_eq!(found, Found::Rule(rule), "{offset:#x}");
                assert_eq!(kernels, Answer::Rule(rule), "{offset:#x}");
            }
            None => {
                assert!(matches!(found, Found::Unread { .. }), "{offset:#x}");
                assert_eq!(kernels, Answer::Copy, "{offset:#x}");
            }
        }
    }
}

/// Check that rows by instructions fill the holes of call frame information, also in blocks that had none, and never take
/// its place; that user space has them at once; and that later ones are added.
#[test]
fn rows_fill_holes() {
    let mut machine = Machine::new(rows_of(3, 0x2_0000, 0x2_0300));
    let first = code_rows(&[
        (0x1_fff0, 0x2_0400, 1),
        (0x2_0500, 0x2_0600, 2),
        (0x8_0000, 0x8_0010, 3),
    ]);
    machine.load_code(&first);
    let found = machine.tables.find_rule(&machine.mapped, 0x12_0500);
    assert_eq!(found, Found::Rule(code_rule(2)));
    assert_eq!(answer(&machine.kernel, 5, 0x12_0500), Answer::Copy);
    machine.flush();
    let holds = [
        (0x1_ffef, None),
        (0x1_fff0, Some(code_rule(1))),
        (0x2_0000, Some(rule_of(3, 0x2_0000))),
        (0x2_02ff, Some(rule_of(3, 0x2_0200))),
        (0x2_0300, Some(code_rule(1))),
        (0x2_0400, None),
        (0x2_05ff, Some(code_rule(2))),
        (0x2_0600, None),
        (0x8_000f, Some(code_rule(3))),
        (0x8_0010, None),
    ];
    for (offset, expected) in holds {
        machine.check(offset, expected);
    }
    machine.load_code(&code_rows(&[(0x2_0500, 0x2_0700, 4)]));
    machine.flush();
    machine.check(0x2_05ff, Some(code_rule(2)));
    machine.check(0x2_06ff, Some(code_rule(4)));
    machine.check(0x2_0100, Some(rule_of(3, 0x2_0100)));
    assert_eq!(
        (
            machine.tables.stats().files,
            machine.tables.stats().code_ranges
        ),
        (1, 4)
    );
}

/// Check that an evicted file has its rows by instructions again after its call frame information was evaluated once more.
#[test]
fn rows_outlive_an_eviction() {
    let mut machine = Machine::new(rows_of(3, 0x2_0000, 0x2_0300));
    machine.load_code(&code_rows(&[(0x100, 0x200, 1)]));
    machine.flush();
    machine.check(0x100, Some(code_rule(1)));
    machine.kernel.processes.clear();
    machine.tables.reset(machine.now_ns);
    machine
        .tables
        .set_process(5, 55, &machine.mapped, machine.now_ns);
    let rows = rows_of(3, 0x2_0000, 0x2_0300);
    load(&mut machine.tables, &machine.code, rows, machine.now_ns);
    machine.flush();
    machine.check(0x100, Some(code_rule(1)));
    machine.check(0x2_0000, Some(rule_of(3, 0x2_0000)));
}

/// Check that two files with the same call frame information do not share rows by instructions, but equal ones once.
#[test]
fn rows_belong_to_a_file() {
    let mut machine = Machine::new(rows_of(3, 0x2_0000, 0x2_0300));
    let other = file(&mut Files::new(), 6);
    let mapped = mappings(&[(0x10_0000, 0x20_0000, 0, &other)]);
    machine.tables.set_process(6, 66, &mapped, machine.now_ns);
    let rows = rows_of(3, 0x2_0000, 0x2_0300);
    load(&mut machine.tables, &other, rows, machine.now_ns);
    let rows = code_rows(&[(0x100, 0x200, 1)]);
    machine.load_code(&rows);
    machine.flush();
    machine.check(0x100, Some(code_rule(1)));
    assert_eq!(answer(&machine.kernel, 6, 0x10_0100), Answer::Copy);
    assert_eq!(machine.tables.stats().files, 2);
    machine
        .tables
        .load_code(&TableKey::of(&other).unwrap(), &rows, machine.now_ns);
    machine.flush();
    assert_eq!(
        answer(&machine.kernel, 6, 0x10_0100),
        Answer::Rule(code_rule(1))
    );
    assert_eq!(machine.tables.stats().files, 1);
}

/// Check that a file with too many ranges loses them, and gets new ones afterwards.
#[test]
fn too_many_ranges() {
    let mut machine = Machine::new(rows_of(3, 0x2_0000, 0x2_0300));
    for part in 0..20u64 {
        let ranges = (0..4_000u64).map(|number| {
            let start = 0x3_0000 + part * 40_000 + number * 10;
            (start, start + 5, (number % 100) as i32 + 1)
        });
        let ranges: Vec<_> = ranges.collect();
        machine.load_code(&code_rows(&ranges));
        machine.now_ns += 1;
    }
    let stats = machine.tables.stats();
    assert_eq!((stats.code_evictions, stats.code_ranges), (1, 16_000));
    let rows = rows_of(3, 0x2_0000, 0x2_0300);
    load(&mut machine.tables, &machine.code, rows, machine.now_ns);
    machine.flush();
    machine.check(0x2_0000, Some(rule_of(3, 0x2_0000)));
    machine.check(0x3_0000, None);
    machine.check(0x3_0000 + 19 * 40_000, Some(code_rule(1)));
}
