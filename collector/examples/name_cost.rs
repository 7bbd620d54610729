//! Measures the cost of naming: time and memory of the child, for the kernel or for files.
//!
//! `name_cost COLLECTOR ADDRESSES kernel|FILE…` names this many addresses, spread over the code of
//! each file, with one child for all files. Prints one line per file: cold, the CPU time of child
//! and collector together; warm, the collector's CPU time for a million addresses that are in its
//! cache.

use std::error::Error;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use collector::file::{ElfFile, FileKey, Inode};
use collector::name::{CpuBudget, Namer, NamerOptions, Naming, Object, Readings};
use elf::{Headers, Limits};
use rustix::time::{ClockId, clock_gettime};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let program = arguments
        .next()
        .ok_or("the collector's program is missing")?;
    let count: usize = arguments.next().ok_or("a number is missing")?.parse()?;
    let mut namer = Namer::new(NamerOptions {
        program: program.into(),
        window_time: Duration::MAX,
        cpu: CpuBudget::UNLIMITED,
        ..NamerOptions::default()
    });
    println!(
        "first ms  all ms  cpu ms  warm ms/M  private MB  resident MB  peak MB  named  frames  cache KB  ends"
    );
    for name in arguments {
        let (object, addresses) = match name.as_str() {
            "kernel" => (Object::Kernel(Readings::ALL), spread(0..20 << 20, count)),
            path => read_file(Path::new(path), count)?,
        };
        let cpu_before_ns = namer.stats().child_cpu_ns + own_cpu_ns();
        let started = Instant::now();
        namer.name(&object, &addresses[..1]);
        let first = started.elapsed();
        let namings = namer.name(&object, &addresses);
        let cold = started.elapsed();
        let stats = namer.stats();
        let cpu_ns = stats.child_cpu_ns + own_cpu_ns() - cpu_before_ns;
        let warm_ns = name_a_million(&mut namer, &object, &addresses);
        let child = stats.child.unwrap_or_default();
        let frames: usize = namings
            .iter()
            .map(|naming| match naming {
                Naming::Named(frames) => frames.len(),
                Naming::Unnamed(_) | Naming::InFunction(_) => 0,
            })
            .sum();
        let named = namings
            .iter()
            .filter(|naming| matches!(naming, Naming::Named(_)))
            .count();
        println!(
            "{:8}  {:6}  {:6}  {:9}  {:10.1}  {:11.1}  {:7.1}  {:5}  {:6}  {:8}  {:?}  {name}",
            first.as_millis(),
            cold.as_millis(),
            cpu_ns / 1_000_000,
            warm_ns / 1_000_000,
            megabytes(child.private_bytes),
            megabytes(child.resident_bytes),
            megabytes(stats.child_resident_peak_bytes),
            named,
            frames,
            stats.cache_bytes >> 10,
            stats.ends,
        );
    }
    Ok(())
}

/// CPU time of a million addresses that have been named before, in nanoseconds.
fn name_a_million(namer: &mut Namer, object: &Object, addresses: &[u64]) -> u64 {
    let rounds = 1_000_000_usize.div_ceil(addresses.len());
    let before_ns = own_cpu_ns();
    for _ in 0..rounds {
        std::hint::black_box(namer.name(object, addresses));
    }
    (own_cpu_ns() - before_ns) * 1_000_000 / (rounds * addresses.len()) as u64
}

/// CPU time of this process so far, in nanoseconds.
fn own_cpu_ns() -> u64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

fn spread(range: std::ops::Range<u64>, count: usize) -> Vec<u64> {
    let step = (range.end - range.start) / count as u64;
    (0..count as u64)
        .map(|index| range.start + index * step + step / 2)
        .collect()
}

/// The file, and offsets in its executable segment.
fn read_file(path: &Path, count: usize) -> Result<(Object, Vec<u64>), Box<dyn Error>> {
    let path = path.canonicalize()?;
    let stat = fs::metadata(&path)?;
    let head = fs::read(&path)?;
    let word = |at: usize| -> Result<u64, Box<dyn Error>> {
        Ok(u64::from_le_bytes(
            head.get(at..at + 8).ok_or("short file")?.try_into()?,
        ))
    };
    // Program headers of a 64-bit file: type and flags, offset, ..., size in the file.
    let code = (0..usize::from(head[56]))
        .map(|index| 64 + index * 56)
        .find(|at| matches!(head.get(*at..at + 5), Some([1, .., flags]) if flags & 1 != 0))
        .ok_or("no executable segment")?;
    let (offset, size) = (word(code + 8)?, word(code + 32)?);
    let file = ElfFile {
        key: FileKey::Place(u128::from(stat.ino())),
        path: path.into(),
        // The debug file is found by it.
        build_id: Headers::read(&*head, Limits::MAPPED)?.build_id(&*head),
        inode: Some(Inode {
            device: stat.dev(),
            number: stat.ino(),
        }),
        candidates: Vec::new(),
        held: None,
    };
    Ok((
        Object::Elf(Arc::new(file)),
        spread(offset..offset + size, count),
    ))
}
