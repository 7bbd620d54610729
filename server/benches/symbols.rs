//! Cost of an index: making and opening it, and naming a million frames with it, inlined calls, files and lines
//! included. Goal: a million in less than a second, warm.
//!
//! `cargo bench -p pilotlight-server --bench symbols`, on two programs: this bench itself (Rust, line tables only, some 50 MB), and
//! one in C++ with all debug information, if there is a g++. `PILOTLIGHT_BENCH_ELF=FILE` takes another.

#![allow(missing_docs, clippy::unwrap_used, reason = "a bench")]

#[path = "../tests/symbols/build.rs"]
#[allow(
    dead_code,
    unreachable_pub,
    reason = "of the tests' programs, one is used"
)]
mod build;

use std::hint::black_box;
use std::io::Cursor;
use std::time::Duration;

use build::{Built, CPP, Workshop};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use object::{Object, ObjectSection};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use symbolize::index::{Index, convert};

const FRAMES: usize = 1_000_000;

fn draw_offsets(program: &Built) -> Vec<u64> {
    let file = object::File::parse(&*program.bytes).unwrap();
    let text = file.section_by_name(".text").unwrap();
    let (offset, bytes) = text.file_range().unwrap();
    let mut random = StdRng::seed_from_u64(1);
    (0..FRAMES)
        .map(|_| offset + random.random_range(0..bytes))
        .collect()
}

fn make(program: &Built) -> Vec<u8> {
    let mut out = Cursor::new(Vec::new());
    convert(&program.bytes, &program.build_id(), "bench", &mut out).unwrap();
    out.into_inner()
}

fn measure(criterion: &mut Criterion, name: &str, program: &Built) {
    let layout = program.facts.layout.clone().unwrap();
    let offsets = draw_offsets(program);
    let bytes = make(program);
    let index = Index::from_bytes(bytes.clone()).unwrap();
    let (mut named, mut frames) = (0usize, 0usize);
    index
        .name(&layout, &offsets, &mut |_, found| {
            named += 1;
            frames += found.len();
        })
        .unwrap();
    println!(
        "{name}: a file of {} KiB, an index of {} KiB; of {FRAMES} random addresses {named} have a name, {:.2} functions each",
        program.bytes.len() >> 10,
        bytes.len() >> 10,
        frames as f64 / named as f64
    );
    let mut group = criterion.benchmark_group(name);
    group
        .sample_size(10)
        .measurement_time(Duration::from_secs(10));
    group.bench_function("make", |bench| bench.iter(|| make(program)));
    group.bench_function("open", |bench| {
        bench.iter(|| Index::from_bytes(bytes.clone()).unwrap())
    });
    group.throughput(Throughput::Elements(FRAMES as u64));
    group.bench_function("name_a_million", |bench| {
        bench.iter(|| {
            let mut length = 0;
            let mut look = |_: usize, found: &[symbolize::index::SourceFrame<'_>]| {
                length += found
                    .iter()
                    .map(|frame| frame.function.len() + frame.file.len())
                    .sum::<usize>();
            };
            index.name(&layout, black_box(&offsets), &mut look).unwrap();
            length
        });
    });
    group.finish();
}

fn benches(criterion: &mut Criterion) {
    if let Some(path) = std::env::var_os("PILOTLIGHT_BENCH_ELF") {
        return measure(criterion, "given", &Built::read(path.as_ref()));
    }
    measure(criterion, "rust", &Built::read("/proc/self/exe".as_ref()));
    if std::process::Command::new("g++")
        .arg("--version")
        .output()
        .is_ok()
    {
        let workshop = Workshop::new();
        measure(
            criterion,
            "cpp",
            &workshop.compile("cart", CPP, &["-g", "-O2", "-std=c++17"]),
        );
    }
}

criterion_group!(symbols, benches);
criterion_main!(symbols);
