//! Bytes and CPU a row of the log, each window in a record of its own: windows added to a block, their records, and all read back; and
//! the time of a question to the block.
//!
//! `cargo bench -p pilotlight-segment --bench log -- [NAME=NUMBER...]` with the options of testdata/bench/store-size, or with `file=PATH`
//! for the windows of a segment.

#![allow(missing_docs, clippy::unwrap_used, reason = "a bench")]

use std::fs::File;

use fleet::{Fleet, Shape};
use model::{FunctionNames, Window};
use rustix::time::{ClockId, clock_gettime};
use segment::{Builder, Effort, LogWriter, Segment, Selection, Source, WindowSet, replay};

fn read_cpu_ns() -> u64 {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    1_000_000_000 * now.tv_sec as u64 + now.tv_nsec as u64
}

/// What `work` gives, and its CPU time.
fn measure<T>(work: impl FnOnce() -> T) -> (T, u64) {
    let start_ns = read_cpu_ns();
    let made = work();
    (made, read_cpu_ns() - start_ns)
}

#[derive(Default)]
struct Block {
    rows: u64,
    builder: Builder,
    file: Vec<u8>,
    add_ns: u64,
    encode_ns: u64,
}

impl Block {
    fn add(&mut self, log: &mut LogWriter, window: &Window) {
        self.rows += window.rows.len() as u64;
        let (added, add_ns) = measure(|| self.builder.add_message(window, Some([7; 16])));
        added.unwrap();
        let ((), encode_ns) = measure(|| {
            log.encode(&self.builder, &mut self.file);
            log.commit();
        });
        self.add_ns += add_ns;
        self.encode_ns += encode_ns;
    }

    fn print(self) {
        let rows = self.rows as f64;
        let print = |what: &str, ns: u64| println!("{what:<12} {:>8.0} ns a row", ns as f64 / rows);
        println!("{:<12} {:>8.2} million rows", "", rows / 1e6);
        print("add", self.add_ns);
        print("encode", self.encode_ns);
        let (read, replay_ns) = measure(|| replay(&self.file).unwrap());
        print("replay", replay_ns);
        assert_eq!(read.builder.window_count(), self.builder.window_count());
        println!(
            "{:<12} {:>8.2} bytes a row",
            "log",
            self.file.len() as f64 / rows
        );
        println!(
            "{:<12} {:>8} MiB",
            "memory",
            self.builder.heap_bytes() >> 20
        );
        let all = self.builder.find_series(&mut |_| true);
        for (what, series) in [("all", &all[..]), ("a series", &all[..1])] {
            let windows = &WindowSet::all(self.builder.window_count());
            let selection = Selection { series, windows };
            let (stacks, ns) = measure(|| flame_graph(&self.builder, &selection));
            let ms = ns as f64 / 1e6;
            println!("{what:<12} {ms:>8.2} ms for a flame graph of {stacks} stacks");
        }
    }
}

/// Sums by stack, and the tables for all of them.
fn flame_graph(source: &dyn Source, selection: &Selection<'_>) -> usize {
    let sums = source.sum_stacks(selection, Effort::ONE).whole().unwrap();
    let stacks: Vec<u32> = sums.iter().map(|sum| sum.stack).collect();
    let read = source.read_stacks(&stacks, &[], FunctionNames::Shown, Effort::ONE);
    read.whole().unwrap().stacks.len()
}

/// Windows that are read at a time.
const WINDOWS_AT_ONCE: usize = 32;

/// Adds the windows of a segment, by time.
fn add_file(block: &mut Block, log: &mut LogWriter, path: &str) {
    let segment = Segment::open(File::open(path).unwrap()).unwrap();
    let numbers: Vec<usize> = (0..segment.window_count()).collect();
    for part in numbers.chunks(WINDOWS_AT_ONCE) {
        let wanted = WindowSet::of(&numbers, |number| part.contains(number));
        for window in segment.read_whole_windows(&wanted, Effort::ONE).unwrap() {
            block.add(log, &window);
        }
    }
}

fn main() {
    let options = std::env::args()
        .skip(1)
        .filter(|option| option != "--bench");
    let (files, options): (Vec<String>, Vec<String>) =
        options.partition(|option| option.starts_with("file="));
    let (mut block, mut log) = (Block::default(), LogWriter::new(0));
    if let Some(path) = files.first().and_then(|file| file.strip_prefix("file=")) {
        add_file(&mut block, &mut log, path);
        return block.print();
    }
    let shape = Shape::parse(options.into_iter()).unwrap_or_else(|err| {
        eprintln!("{err}");
        std::process::exit(2);
    });
    println!("{shape}");
    let fleet = Fleet::new(shape);
    for number in 0..shape.windows {
        for node in 0..shape.nodes {
            block.add(&mut log, &fleet.window(node, number));
        }
    }
    block.print();
}
