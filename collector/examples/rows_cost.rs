//! What it costs to make unwind rows of files: CPU time and bytes, for each file.
//!
//! `rows_cost FILE…` reads each file as the collector does: never mapped, since a file that is cut short
//! meanwhile would end its reader. Each file is evaluated three times, the first of which may wait for the disk; the
//! fastest counts. With the time of the whole it prints the part that is reading the bytes of the file, which
//! is copying by the kernel, and how long it takes when the rows are kept on disk: the same bytes are read, for
//! their digest, and then the rows.

use std::error::Error;
use std::fs::File;
use std::time::Duration;

use collector::unwind::{
    CallFrameInformation, Evaluated, Limits, RuleSet, decode_table, encode_table, read_table,
};
use object::ReadCache;
use object::elf::{PF_X, PT_LOAD};
use object::read::elf::{ElfFile64, ProgramHeader as _};
use object::{LittleEndian, Object as _, ObjectSection as _};
use rustix::time::{ClockId, clock_gettime};

const ROUNDS: usize = 3;

/// What one file took.
struct Cost {
    evaluated: Evaluated,
    cpu: Duration,
    reading: Duration,
    kept: Duration,
    code_bytes: u64,
}

fn main() -> Result<(), Box<dyn Error>> {
    println!(
        "CPU ms  reading ms  kept ms  code MB  ms/MB      rows  table KB  functions  damaged  unsupported  file"
    );
    for path in std::env::args().skip(1) {
        let mut best = measure(&path)?;
        for _ in 1..ROUNDS {
            let again = measure(&path)?;
            let kept = best.kept.min(again.kept);
            if again.cpu < best.cpu {
                best = again;
            }
            best.kept = kept;
        }
        print_line(&path, &best);
    }
    Ok(())
}

fn measure(path: &str) -> Result<Cost, Box<dyn Error>> {
    let file = File::open(path)?;
    let start = thread_cpu();
    let cache = ReadCache::new(file);
    let mut rules = RuleSet::new();
    let evaluated = read_table(&cache, &mut rules, &Limits::default())?;
    let cpu = thread_cpu() - start;

    let cache = ReadCache::new(File::open(path)?);
    let elf = ElfFile64::<LittleEndian, _>::parse(&cache)?;
    let is_code = |flags: u32, kind: u32| kind == PT_LOAD.0 && flags & PF_X.0 != 0;
    let code_bytes = elf
        .elf_program_headers()
        .iter()
        .filter(|it| is_code(it.p_flags(LittleEndian).0, it.p_type(LittleEndian).0))
        .map(|it| it.p_filesz(LittleEndian))
        .sum();
    let start = thread_cpu();
    for name in [".eh_frame", ".debug_frame"] {
        if let Some(section) = elf.section_by_name(name) {
            section.data()?;
        }
    }
    let reading = thread_cpu() - start;
    let kept_in = std::env::temp_dir().join(format!("rows_cost.{}", std::process::id()));
    std::fs::write(&kept_in, encode_table(&evaluated.table, &rules))?;
    let start = thread_cpu();
    let cache = ReadCache::new(File::open(path)?);
    CallFrameInformation::read(&cache, &Limits::default())?.digest();
    let (table, _) = decode_table(&std::fs::read(&kept_in)?, &Limits::default())?;
    let kept = thread_cpu() - start;
    std::fs::remove_file(&kept_in)?;
    assert_eq!(table, evaluated.table);
    Ok(Cost {
        kept,
        evaluated,
        cpu,
        reading,
        code_bytes,
    })
}

fn print_line(path: &str, cost: &Cost) {
    let ms = |it: Duration| it.as_secs_f64() * 1e3;
    let code_mb = cost.code_bytes as f64 / 1e6;
    let Evaluated {
        table,
        functions,
        damaged,
        unsupported_rows,
        ..
    } = &cost.evaluated;
    println!(
        "{:6.1} {:11.1} {:8.1} {code_mb:8.1} {:6.2} {:9} {:9} {functions:10} {damaged:8} {unsupported_rows:12}  {path}",
        ms(cost.cpu),
        ms(cost.reading),
        ms(cost.kept),
        ms(cost.cpu) / code_mb.max(1e-9),
        table.rows().len(),
        table.bytes() / 1000,
    );
}

/// CPU time of this thread.
fn thread_cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
