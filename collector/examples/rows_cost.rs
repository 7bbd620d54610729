//! Measures CPU time and bytes of making unwind rows, for each file.
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
use elf::{Headers, ReadAt as _};
use rustix::time::{ClockId, clock_gettime};

const ROUNDS: usize = 3;

/// The cost of one file.
struct Cost {
    evaluated: Evaluated,
    cpu: Duration,
    reading: Duration,
    kept: Duration,
    code_bytes: u64,
    rules: usize,
}

fn main() -> Result<(), Box<dyn Error>> {
    println!(
        "CPU ms  reading ms  kept ms  code MB  ms/MB      rows  rules  table KB  functions  damaged  unsupported  file"
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
    let mut rules = RuleSet::new();
    let evaluated = read_table(&file, &mut rules, &Limits::default())?;
    let cpu = thread_cpu() - start;

    let headers = Headers::read(&file, elf::Limits::MAPPED)?;
    let code = headers.loads().filter(|header| header.is_code());
    let code_bytes = code.map(|header| header.range.bytes).sum();
    let start = thread_cpu();
    for name in [&b".eh_frame"[..], b".debug_frame"] {
        if let Some(section) = headers.section(name) {
            file.read_range(section.range);
        }
    }
    let reading = thread_cpu() - start;
    let kept_in = std::env::temp_dir().join(format!("rows_cost.{}", std::process::id()));
    std::fs::write(&kept_in, encode_table(&evaluated.table, &rules))?;
    let start = thread_cpu();
    CallFrameInformation::read(&File::open(path)?, &Limits::default())?.digest();
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
        rules: rules.as_slice().len(),
    })
}

fn print_line(path: &str, cost: &Cost) {
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    let code_mb = cost.code_bytes as f64 / 1e6;
    let Evaluated {
        table,
        functions,
        damaged,
        unsupported_rows,
        ..
    } = &cost.evaluated;
    println!(
        "{:6.1} {:11.1} {:8.1} {code_mb:8.1} {:6.2} {:9} {:6} {:9} {functions:10} {damaged:8} {unsupported_rows:12}  {path}",
        ms(cost.cpu),
        ms(cost.reading),
        ms(cost.kept),
        ms(cost.cpu) / code_mb.max(1e-9),
        table.rows().len(),
        cost.rules,
        table.bytes() / 1000,
    );
}

/// CPU time of this thread.
fn thread_cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
