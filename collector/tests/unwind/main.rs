//! Compares our rows with those of `llvm-dwarfdump`, an independent reader of the same format.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../../../testdata/fuzz/src/inputs/elves.rs"]
mod elves;
mod go;
mod reference;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use collector::unwind::{CfiError, Limits, RuleSet, read_table};
use elf::Segment;
use reference::{ReferenceRow, describe, read_reference};

/// Folders of the system's files.
const FOLDERS: [&str; 3] = ["/usr/bin", "/usr/sbin", "/usr/lib"];

/// Minimum share of equal rows. The test prints the others.
const SAME_MIN: f64 = 0.9999;

/// Checks one in this many files, chosen by path, and none above [`BYTES_MAX`].
/// `PILOTLIGHT_ALL_FILES=1` checks all, which takes some minutes.
const ONE_IN: u64 = 25;
const BYTES_MAX: u64 = 20 << 20;

/// The comparison of a file's rows.
#[derive(Debug, Default)]
struct Sums {
    files: u64,
    functions: u64,
    compared: u64,
    different: u64,
    /// Rows whose rule we report as unsupported.
    unsupported: u64,
    damaged: u64,
    rows: u64,
    table_bytes: u64,
    code_bytes: u64,
    time: Duration,
}

/// Check each row of each function of the system's own programs and libraries.
#[test]
fn rows_are_those_of_dwarfdump() {
    let all = std::env::var_os("PILOTLIGHT_ALL_FILES").is_some();
    let files = FOLDERS.iter().flat_map(|folder| elf_files(folder.as_ref()));
    let files: Vec<PathBuf> = files
        .filter(|path| all || (is_drawn(path) && fs::metadata(path).unwrap().len() <= BYTES_MAX))
        .collect();
    assert!(!files.is_empty());
    let mut rules = RuleSet::new();
    let mut sums = Sums::default();
    for path in &files {
        compare(path, &mut rules, &mut sums);
    }
    let Sums {
        files,
        functions,
        compared,
        different,
        unsupported,
        damaged,
        rows,
        table_bytes,
        code_bytes,
        time,
    } = sums;
    eprintln!(
        "{files} files, {functions} functions: {compared} rows compared, {different} different, {unsupported} without a \
         rule, {damaged} functions damaged\n{rows} rows in {table_bytes} bytes of tables, {} different rules; {:.0} ms a \
         megabyte of code ({} MB)",
        rules.as_slice().len(),
        time.as_secs_f64() * 1e3 / (code_bytes as f64 / 1e6),
        code_bytes / 1_000_000,
    );
    assert_eq!(rules.refused(), 0);
    assert!(compared > 50_000, "only {compared} rows were compared");
    let same = 1.0 - (different + unsupported) as f64 / compared as f64;
    assert!(same >= SAME_MIN, "{same} of the rows are the same");
}

/// The 64-bit x86-64 ELF files in a folder and its subfolders.
fn elf_files(folder: &Path) -> Vec<PathBuf> {
    let mut folders = vec![folder.to_owned()];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let kind = entry.file_type().unwrap();
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file() && is_elf(&entry.path()) {
                files.push(entry.path());
            }
        }
    }
    files.sort();
    files
}

fn is_elf(path: &Path) -> bool {
    use std::io::Read as _;
    let mut head = [0; 20];
    let read = fs::File::open(path).and_then(|mut file| file.read_exact(&mut head));
    // ELF, 64 bits, little-endian; machine 62. Type 2 or 3: objects are not linked yet.
    read.is_ok()
        && head.starts_with(b"\x7fELF\x02\x01")
        && head[18..] == [62, 0]
        && matches!(head[16], 2 | 3)
}

/// A pseudo-random choice that is the same in each run on a machine.
fn is_drawn(path: &Path) -> bool {
    let bytes = path.as_os_str().as_encoded_bytes();
    let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
    });
    (hash >> 32).is_multiple_of(ONE_IN)
}

fn compare(path: &Path, rules: &mut RuleSet, sums: &mut Sums) {
    let data = fs::read(path).unwrap();
    let started = Instant::now();
    let evaluated = read_table(&*data, rules, &Limits::default());
    sums.time += started.elapsed();
    let evaluated = evaluated.unwrap_or_else(|err| panic!("{}: {err}", path.display()));
    assert!(!evaluated.is_cut, "{}", path.display());
    let code = code_ranges(&data);
    sums.files += 1;
    sums.functions += evaluated.functions;
    sums.damaged += evaluated.damaged;
    sums.rows += evaluated.table.rows().len() as u64;
    sums.table_bytes += evaluated.table.bytes() as u64;
    sums.code_bytes += code.iter().map(|range| range.bytes).sum::<u64>();
    // Go's own table counts before its call frame information: crates/symbolize/tests/go_frames.rs compares both.
    let headers = elf::Headers::read(&*data, elf::Limits::MAPPED).unwrap();
    if headers.section(b".gopclntab").is_some() {
        return;
    }
    let mut shown = 0;
    for reference in read_reference(path) {
        let ReferenceRow { address, ref text } = reference;
        let Some(offset) = code.iter().find_map(|range| range.offset_of(address)) else {
            continue;
        };
        sums.compared += 1;
        let rule = evaluated
            .table
            .find(offset)
            .and_then(|number| rules.get(number));
        let ours = rule.map_or("no row".to_owned(), describe);
        if ours == "unsupported" {
            sums.unsupported += 1;
        } else if ours != *text {
            sums.different += 1;
            if shown < 3 {
                shown += 1;
                eprintln!(
                    "{} {address:#x}\n  ours   {ours}\n  theirs {text}",
                    path.display()
                );
            }
        }
    }
}

/// The parts of the file that are mapped as code, from its program headers.
fn code_ranges(data: &[u8]) -> Vec<Segment> {
    let word = |at: usize| u64::from_le_bytes(data[at..at + 8].try_into().unwrap());
    let half = |at: usize| u16::from_le_bytes(data[at..at + 2].try_into().unwrap());
    (0..usize::from(half(56)))
        .map(|index| word(32) as usize + index * 56)
        .filter(|at| data[*at] == 1 && data[at + 4] & 1 != 0)
        .map(|at| Segment {
            file_offset: word(at + 8),
            address: word(at + 16),
            bytes: word(at + 32),
        })
        .collect()
}

/// Check 4,000 damaged copies of a program: truncated anywhere, or with changed bytes in the
/// headers and the call frame information. Each gives a table within the limits or an error, but no
/// panic.
#[test]
fn damaged_files_give_rows_or_an_error() {
    let whole = fs::read("/usr/bin/true").unwrap();
    let limits = Limits {
        rows_max: 10_000,
        functions_max: 1_000,
        ..Limits::default()
    };
    let mut state = 0x5eed_u64;
    let mut random = |end: usize| {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        (state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16) as usize % end
    };
    let frames = whole
        .windows(4)
        .position(|bytes| bytes == b"\x01zR\0")
        .unwrap();
    let (mut tables, mut damaged, mut errors) = (0, 0, 0);
    for round in 0..4000 {
        let mut data = whole.clone();
        if round % 8 == 0 {
            data.truncate(random(whole.len()));
        }
        for _ in 0..1 + random(8) {
            let at = match random(3) {
                0 => random(64 + 13 * 56),
                1 => frames + random(4096),
                _ => whole.len() - 1 - random(2048),
            };
            if let Some(byte) = data.get_mut(at) {
                *byte = random(256) as u8;
            }
        }
        match read_table(&*data, &mut RuleSet::new(), &limits) {
            Ok(evaluated) => {
                assert!(evaluated.table.rows().len() <= limits.rows_max);
                tables += 1;
                damaged += u64::from(evaluated.damaged > 0 || evaluated.is_cut);
            }
            Err(_) => errors += 1,
        }
    }
    eprintln!("{tables} tables, {damaged} of them of damaged information; {errors} errors");
    assert!(tables > 100 && damaged > 10 && errors > 100);
}

/// Check that invalid entries count as work: entries for no code, and entries whose common part is
/// long and invalid.
#[test]
fn entries_that_lead_nowhere_have_an_end() {
    for (augmentation_bytes, work_bytes_max) in [(0, 20_000), (10_000, 1 << 20)] {
        let augmentation = vec![b'?'; augmentation_bytes];
        let head = [0xff, 0xff, 0xff, 0xff, 4];
        let shared = [&head[..], &augmentation, &[0, 8, 0, 1, 0x78, 16]].concat();
        let shared = [&(shared.len() as u32).to_le_bytes()[..], &shared].concat();
        // Inside of the first entry, since invalid data of its own would end the list.
        let first = [shared.len() as u32 + 4, 8].map(u32::to_le_bytes).concat();
        // For eight bytes at address 1.
        let entry = [20_u32, 8, 1, 0, 8, 0].map(u32::to_le_bytes).concat();
        let section = [first, shared, entry.repeat(1000)].concat();
        let read = |work_bytes_max| {
            let limits = Limits {
                work_bytes_max,
                ..Limits::default()
            };
            read_table(&*elves::wrap(&section, true), &mut RuleSet::new(), &limits)
        };
        assert_eq!(read(work_bytes_max), Err(CfiError::TooLarge));
        let evaluated = read(20 << 20).unwrap();
        assert_eq!((evaluated.functions, evaluated.is_cut), (0, false));
    }
}

/// Check that the seeds are valid: each section has its rows, in both forms.
#[test]
fn seeds_of_the_fuzz_targets_are_whole() {
    for elf in elves::make_elves() {
        let mut rules = RuleSet::new();
        let evaluated = read_table(&*elf, &mut rules, &Limits::default()).unwrap();
        assert!(evaluated.functions > 0 && evaluated.table.rows().len() > 1);
        assert_eq!((evaluated.damaged, evaluated.is_cut), (0, false));
        // A signal trampoline's information is no rule if its entry is not marked as a signal
        // frame.
        assert!(evaluated.unsupported_rows <= 1, "{evaluated:?}");
    }
}
