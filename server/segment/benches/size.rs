//! Bytes and CPU a row of a generated cluster in the log and in segments, as they are written, merged and rolled up. `testdata/bench/store-size` has the
//! options.

#![allow(missing_docs, clippy::unwrap_used, reason = "a bench")]

use std::cell::Cell;
use std::fs;
use std::io::{self, BufWriter, Write};
use std::ops::Range;
use std::path::PathBuf;

use fleet::{Fleet, START_MS, Shape};
use rustix::time::{ClockId, clock_gettime};
use segment::{
    Builder, Effort, LogWriter, MergeOptions, Section, Segment, WriteOptions, drop_addresses, merge,
};
use tempfile::TempDir;

/// Windows of a segment before it is merged: five minutes.
const FRESH: usize = 30;
/// Windows of a write of the log.
const WRITE_WINDOWS: usize = 8;
/// Windows of a segment that was merged once.
const MERGED: usize = 90;

type File = Segment<fs::File>;

/// What the segments of one kind took.
struct Cost {
    rows: u64,
    bytes: u64,
    cpu_ns: u64,
}

impl Cost {
    const fn new() -> Self {
        Self {
            rows: 0,
            bytes: 0,
            cpu_ns: 0,
        }
    }

    fn add(&mut self, files: &[File], cpu_ns: u64) {
        self.rows += files.iter().map(|file| file.summary().rows).sum::<u64>();
        self.bytes += files.iter().map(File::file_bytes).sum::<u64>();
        self.cpu_ns += cpu_ns;
    }

    /// Prints it, by the rows that were received.
    fn print(&self, what: &str, received: u64) {
        let rows = self.rows as f64;
        println!(
            "{what:<24} {:>10.2} {:>10.3} {:>10.3}",
            rows / 1e6,
            self.bytes as f64 / received as f64,
            self.cpu_ns as f64 / received as f64 / 1000.0
        );
    }
}

fn read_cpu_ns() -> u64 {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    1_000_000_000 * now.tv_sec as u64 + now.tv_nsec as u64
}

/// The CPU time that `work` takes.
fn measure(work: impl FnOnce()) -> u64 {
    let start_ns = read_cpu_ns();
    work();
    read_cpu_ns() - start_ns
}

/// A directory with segments.
struct Files {
    directory: TempDir,
    count: Cell<usize>,
}

impl Files {
    fn create(&self) -> io::Result<BufWriter<fs::File>> {
        self.count.set(self.count.get() + 1);
        fs::File::create_new(self.path(self.count.get())).map(BufWriter::new)
    }

    fn path(&self, number: usize) -> PathBuf {
        self.directory.path().join(number.to_string())
    }

    /// Opens those that were created since there were `count`.
    fn open_since(&self, count: usize) -> Vec<File> {
        let numbers = count + 1..=self.count.get();
        let open = |number| Segment::open(fs::File::open(self.path(number)).unwrap()).unwrap();
        numbers.map(open).collect()
    }

    /// Adds some windows of all nodes to a log, and writes their segment. Times do not include the generation of windows.
    fn build(
        &self,
        fleet: &Fleet,
        windows: Range<usize>,
        log_cost: &mut Cost,
        cost: &mut Cost,
    ) -> Vec<File> {
        let count = self.count.get();
        let mut builder = Builder::default();
        let mut log = LogWriter::new(START_MS);
        let mut log_file = tempfile::tempfile_in(self.directory.path()).unwrap();
        let mut pending = Vec::new();
        let mut log_ns = 0;
        for number in windows {
            let nodes: Vec<usize> = (0..fleet.shape().nodes).collect();
            for nodes in nodes.chunks(WRITE_WINDOWS) {
                for node in nodes {
                    let window = fleet.window(*node, number);
                    log_ns += measure(|| builder.add(&window).unwrap());
                }
                log_ns += measure(|| {
                    pending.clear();
                    log.encode(&builder, &mut pending);
                    log_file.write_all(&pending).unwrap();
                    log.commit();
                });
            }
        }
        let cpu_ns = measure(|| {
            let out = self.create().unwrap();
            builder.write(&WriteOptions::FAST, out).unwrap();
        });
        let made = self.open_since(count);
        cost.add(&made, cpu_ns);
        log_cost.rows += made.iter().map(|file| file.summary().rows).sum::<u64>();
        log_cost.bytes += log.durable_bytes();
        log_cost.cpu_ns += log_ns;
        made
    }

    fn merge(&self, inputs: &[File], resolution_ms: Option<u64>, cost: &mut Cost) -> Vec<File> {
        let count = self.count.get();
        let options = MergeOptions {
            resolution_ms,
            ..MergeOptions::default()
        };
        let cpu_ns = measure(|| {
            let inputs: Vec<_> = inputs.iter().collect();
            merge(&inputs, &options, || self.create()).unwrap();
        });
        let made = self.open_since(count);
        cost.add(&made, cpu_ns);
        made
    }
}

impl Files {
    fn drop_addresses(&self, inputs: &[File], cost: &mut Cost) {
        let count = self.count.get();
        let cpu_ns = measure(|| {
            for input in inputs {
                let out = self.create().unwrap();
                drop_addresses(input, &WriteOptions::SMALL, out).unwrap();
            }
        });
        cost.add(&self.open_since(count), cpu_ns);
    }
}

fn main() {
    // `cargo bench` adds an option of its own.
    let options = std::env::args()
        .skip(1)
        .filter(|option| option != "--bench");
    let shape = Shape::parse(options).unwrap_or_else(|err| {
        eprintln!("{err}");
        std::process::exit(2);
    });
    println!("{shape}");
    println!(
        "{:<24} {:>10} {:>10} {:>10}",
        "", "M rows", "bytes/row", "CPU us/row"
    );
    let files = Files {
        directory: tempfile::tempdir().unwrap(),
        count: Cell::new(0),
    };
    let fleet = Fleet::new(shape);
    let [mut log, mut fresh, mut merged, mut all] = [const { Cost::new() }; 4];
    let mut quarters = Vec::new();
    for quarter in (0..shape.windows).step_by(MERGED) {
        let end = shape.windows.min(quarter + MERGED);
        let parts = (quarter..end).step_by(FRESH).flat_map(|part| {
            let windows = part..end.min(part + FRESH);
            files.build(&fleet, windows, &mut log, &mut fresh)
        });
        let parts: Vec<File> = parts.collect();
        quarters.extend(files.merge(&parts, None, &mut merged));
    }
    let received = fresh.rows;
    log.print("log", received);
    fresh.print("5 minutes", received);
    merged.print("15 minutes, merged", received);
    let whole = files.merge(&quarters, None, &mut all);
    all.print("all, merged", received);
    for (what, resolution_ms) in [("to minutes", 60_000), ("to 10 minutes", 600_000)] {
        let [mut rolled_up, mut dropped] = [const { Cost::new() }; 2];
        let made = files.merge(&whole, Some(resolution_ms), &mut rolled_up);
        rolled_up.print(what, received);
        files.drop_addresses(&made, &mut dropped);
        dropped.print("  without addresses", received);
    }
    let mut verified = Cost::new();
    for file in &whole {
        let cpu_ns = measure(|| assert_eq!(file.verify(Effort::ONE), []));
        verified.add(std::slice::from_ref(file), cpu_ns);
    }
    verified.print("verified", received);
    print_sections(&whole, received);
}

/// Prints the sections of some segments.
fn print_sections(files: &[File], received: u64) {
    println!(
        "\n{:<24} {:>10} {:>10}",
        "all, merged", "entries", "bytes/row"
    );
    for section in Section::ALL {
        let sizes = files.iter().map(|file| file.section(section));
        let (entries, bytes) = sizes.fold((0, 0), |sum, own| (sum.0 + own.0, sum.1 + own.1));
        let bytes = bytes as f64 / received as f64;
        println!("{:<24} {entries:>10} {bytes:>10.3}", section.name());
    }
}
