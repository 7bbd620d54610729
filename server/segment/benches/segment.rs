//! A cluster's windows in segments: bytes a row by section, and the time to build, merge and ask them.
//!
//! `cargo bench -p pilotlight-segment`; with other numbers by `SEGMENT_NODES=20 SEGMENT_WINDOWS=90`, the load test's 7.5 million rows, and
//! by `SEGMENT_NEW_STACKS=60`, the percentage of rows with a stack that never comes again, as on a machine that builds.

#![allow(missing_docs, clippy::unwrap_used, reason = "a bench")]

use std::time::{Duration, Instant};

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use fleet::{Fleet, START_MS, Shape};
use model::{FunctionNames, TimeRange, Window};
use segment::{
    Builder, Effort, MergeOptions, Section, Segment, Selection, Source, WindowSet, WriteOptions,
    merge,
};

const TWO: Effort<'static> = Effort {
    threads: 2,
    question: None,
};

fn read_number(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

/// The segment of some windows of all nodes.
fn build(fleet: &Fleet, nodes: usize, windows: std::ops::Range<usize>) -> Vec<u8> {
    let mut builder = Builder::default();
    let (mut rows, mut adding) = (0, Duration::ZERO);
    for number in windows {
        for node in 0..nodes {
            let window = fleet.window(node, number);
            rows += window.rows.len();
            let start = Instant::now();
            builder.add(&window).unwrap();
            adding += start.elapsed();
        }
    }
    let heap_bytes = builder.heap_bytes();
    let mut bytes = Vec::new();
    let start = Instant::now();
    builder.write(&WriteOptions::FAST, &mut bytes).unwrap();
    println!(
        "{rows} rows: added in {} ns a row, written in {}; {} MiB while building",
        adding.as_nanos() / rows as u128,
        start.elapsed().as_nanos() / rows as u128,
        heap_bytes >> 20,
    );
    bytes
}

fn print_sections(segment: &Segment<Vec<u8>>) {
    let rows = segment.summary().rows as f64;
    for section in Section::ALL {
        let (entries, bytes) = segment.section(section);
        let name = section.name();
        println!(
            "{name:<12} {entries:>9} entries {bytes:>9} bytes {:>7.4} a row",
            bytes as f64 / rows
        );
    }
    let bytes = segment.file_bytes();
    println!(
        "{:<12} {:>17} {bytes:>9} bytes {:>7.4} a row",
        "all",
        "",
        bytes as f64 / rows
    );
    println!("{:?}", segment.summary());
}

fn merge_halves(halves: &[Segment<Vec<u8>>], options: &MergeOptions) -> Vec<u8> {
    let mut merged = Vec::new();
    let mut outputs = vec![&mut merged];
    let halves: Vec<_> = halves.iter().collect();
    merge(&halves, options, || {
        outputs.pop().ok_or(std::io::ErrorKind::Unsupported.into())
    })
    .unwrap();
    merged
}

/// Sums by stack, and the tables for all of them: what a flame graph needs.
fn flame_graph(segment: &Segment<Vec<u8>>, selection: &Selection<'_>) -> usize {
    let sums = segment.sum_stacks(selection, TWO).whole().unwrap();
    let stacks: Vec<u32> = sums.iter().map(|sum| sum.stack).collect();
    let read = segment.read_stacks(&stacks, &[], FunctionNames::Shown, TWO);
    read.whole().unwrap().tables.stacks.len()
}

fn bench_segments(criterion: &mut Criterion) {
    let nodes = read_number("SEGMENT_NODES", 4);
    let windows = read_number("SEGMENT_WINDOWS", 30);
    let fleet = Fleet::new(Shape {
        nodes,
        new_stacks: read_number("SEGMENT_NEW_STACKS", 0) as u32,
        ..Shape::default()
    });
    let halves = [0..windows / 2, windows / 2..windows];
    let halves = halves.map(|windows| Segment::open(build(&fleet, nodes, windows)).unwrap());
    let options = MergeOptions {
        write: WriteOptions::FAST,
        ..MergeOptions::default()
    };
    let bytes = merge_halves(&halves, &options);
    let segment = Segment::open(bytes.clone()).unwrap();
    print_sections(&segment);

    let mut group = criterion.benchmark_group("segment");
    group.sample_size(10);
    let first: Vec<Window> = (0..nodes).map(|node| fleet.window(node, 0)).collect();
    group.bench_function("build a window of each node", |bencher| {
        bencher.iter_batched(
            Builder::default,
            |mut builder| {
                first.iter().for_each(|window| builder.add(window).unwrap());
                builder.write(&WriteOptions::FAST, std::io::sink()).unwrap();
            },
            BatchSize::PerIteration,
        );
    });
    group.bench_function("merge two halves", |bencher| {
        bencher.iter(|| merge_halves(&halves, &options).len());
    });
    let minutes = MergeOptions {
        resolution_ms: Some(60_000),
        ..options
    };
    group.bench_function("roll up to minutes", |bencher| {
        bencher.iter(|| merge_halves(&halves, &minutes).len());
    });
    group.bench_function("verify", |bencher| {
        bencher.iter(|| assert_eq!(segment.verify(TWO), []));
    });
    group.bench_function("compare a window of each node", |bencher| {
        let build = || {
            let mut builder = Builder::default();
            first.iter().for_each(|window| builder.add(window).unwrap());
            let mut bytes = Vec::new();
            builder.write(&WriteOptions::FAST, &mut bytes).unwrap();
            (builder, Segment::open(bytes).unwrap())
        };
        bencher.iter_batched(
            build,
            |(builder, segment)| builder.compare(&segment, TWO).unwrap(),
            BatchSize::PerIteration,
        );
    });
    group.bench_function("open", |bencher| {
        bencher.iter(|| Segment::open(&bytes[..]).unwrap().series_count());
    });

    let starts = segment.read_window_starts().unwrap();
    let whole = WindowSet::all(starts.len());
    let range = TimeRange {
        from_ms: START_MS + 25_000,
        to_ms: START_MS + 10_000 * windows as i64 - 25_000,
    };
    let inside = WindowSet::in_range(&starts, range);
    let all: Vec<u32> = (0..segment.series_count() as u32).collect();
    let namespace = segment.find_series(|labels| labels.value("namespace") == "ns-07");
    for (what, series) in [
        ("all", &all),
        ("one pod", &vec![7]),
        ("one namespace", &namespace),
    ] {
        for (when, windows) in [("whole", &whole), ("inside", &inside)] {
            let selection = Selection { series, windows };
            group.bench_function(format!("sums of {what}, {when}"), |bencher| {
                bencher.iter(|| segment.sum_stacks(&selection, TWO).value.len());
            });
            group.bench_function(format!("flame graph of {what}, {when}"), |bencher| {
                bencher.iter(|| flame_graph(&segment, &selection));
            });
            group.bench_function(format!("summed rows of {what}, {when}"), |bencher| {
                let names = FunctionNames::Shown;
                bencher.iter(|| {
                    segment
                        .read_summed_rows(&selection, names, TWO)
                        .value
                        .rows
                        .len()
                });
            });
            group.bench_function(format!("window sums of {what}, {when}"), |bencher| {
                bencher.iter(|| segment.read_window_sums(&selection).unwrap().value.len());
            });
        }
    }
    let selection = Selection {
        series: &all,
        windows: &inside,
    };
    group.bench_function("cells of all, inside", |bencher| {
        bencher.iter(|| {
            let mut sum = 0;
            let read = segment.read_cells(&selection, |_, cells| {
                sum += cells.iter().map(|cell| cell.ns).sum::<u64>();
            });
            read.whole().unwrap();
            sum
        });
    });
    group.finish();
}

criterion_group!(benches, bench_segments);
criterion_main!(benches);
