//! An hour of one busy node, 360 windows of 1,000 rows: receiving it, and queries with an empty and with a warm
//! cache. Goals: a flame graph in less than 200 ms warm and 1 s cold.
//!
//! `cargo bench -p pilotlight-server`

#![allow(missing_docs, clippy::unwrap_used, reason = "a bench")]

#[path = "../src/receive/grpc/test_push.rs"]
mod test_push;

use std::cell::RefCell;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use axum::body::HttpBody;
use axum::response::IntoResponse;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use model::tables::{LocationId, StackId, TagSetId};
use model::text;
use model::{
    Charge, ChargedBuffer, Dictionary, Function, LabelSet, Line, Location, Mapping, MappingFlags,
    Row, StackNode, Tag, TagValue, TimeRange, Unnamed, Window,
};
use query::functions::{FunctionOrder, list_functions};
use query::stacks::report_stacks;
use query::timeseries::{Steps, sum_over_time};
use query::{Profiles, Selection, Tree, build_tree, parse_selector};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use render::graph::lay_out;
use render::pprof::render_pprof;
use server::receive::grpc::{CheckLimits, check_push};
use server::serve::http::answer::FlamegraphAnswer;
use server::serve::http::columns::{MEDIA_TYPE, write_columns};
use server::serve::http::encoding::Encoding;
use store::{EmbeddedStore, Store, StoreMetrics, StoreOptions};

const START_MS: i64 = 1_795_312_800_000;
const WINDOWS: u64 = 360;
const ROWS: usize = 1000;
const SERIES: usize = 100;
/// Different stacks in the hour; the first ones are much more frequent than the last.
const STACKS: usize = 20_000;
const FUNCTIONS: usize = 8_000;
const FILES: usize = 60;
const THREADS: usize = 16;

/// The parent of each stack as a random tree: 2 to 60 frames deep, 30 at the median.
struct Model {
    series: Vec<LabelSet>,
    stacks: Vec<Vec<usize>>,
}

impl Model {
    fn new() -> Self {
        let mut random = StdRng::seed_from_u64(1);
        let label = |n: usize| {
            let (comm, exe) = (
                format!("program-{n}"),
                format!("/usr/lib/programs/bin/program-{n}"),
            );
            LabelSet::from_sorted([
                ("comm", comm.as_str()),
                ("exe", &exe),
                ("node", "a"),
                ("profile_type", "cpu"),
            ])
            .unwrap()
        };
        let mut stacks: Vec<Vec<usize>> = Vec::with_capacity(STACKS);
        for _ in 0..STACKS {
            // Most of a stack is shared with another one, as in real programs.
            let mut stack = match stacks.len() {
                0 => Vec::new(),
                known => stacks[random.random_range(0..known)].clone(),
            };
            stack.truncate(random.random_range(1..=stack.len().max(1)));
            let depth = random.random_range(2..60_usize).max(stack.len());
            stack.resize_with(depth, || random.random_range(0..FUNCTIONS));
            stacks.push(stack);
        }
        Self {
            series: (0..SERIES).map(label).collect(),
            stacks,
        }
    }

    fn window(&self, sequence: u64) -> Window {
        let mut random = StdRng::seed_from_u64(sequence);
        let mut dictionary = Dictionary::default();
        let rows = (0..ROWS).map(|_| {
            // The cube of an even number makes the first tenth of the stacks half of all rows.
            let stack = (random.random::<f64>().powi(3) * STACKS as f64) as usize;
            let series = (stack * 7 + random.random_range(0..3)) % SERIES;
            let thread = random.random_range(0..THREADS);
            let tags = intern_tags(&mut dictionary, thread, random.random_range(0..1000));
            let stack = self.stacks[stack]
                .iter()
                .fold(StackId(0), |parent, function| {
                    let location = intern_function(&mut dictionary, *function);
                    dictionary.intern_stack(StackNode { parent, location })
                });
            let samples = random.random_range(1..4);
            Row {
                series: series as u32,
                tags,
                stack,
                samples,
                ns: samples * text::SAMPLE_NS,
            }
        });
        let rows: Vec<Row> = rows.collect();
        text::finish_window(
            dictionary,
            self.series.clone(),
            rows,
            START_MS + 10_000 * sequence as i64,
            sequence,
        )
    }
}

/// Of a thousand samples, five are incomplete and one was compared.
fn intern_tags(dictionary: &mut Dictionary, thread: usize, chance: usize) -> TagSetId {
    let mut tag = |key: &str, value: &str| Tag {
        key: dictionary.intern_string(key),
        value: TagValue::Text(dictionary.intern_string(value)),
    };
    let mut tags = vec![tag("thread", &format!("worker-{thread}"))];
    match chance {
        0..5 => tags.push(tag("outcome", ["no_rows", "bad_frame"][chance % 2])),
        5 => tags.push(tag("check", "agreed")),
        _ => {}
    }
    dictionary.intern_tag_set(&tags)
}

fn intern_function(dictionary: &mut Dictionary, function: usize) -> LocationId {
    let module = function % FILES;
    let file =
        dictionary.intern_string(&format!("/usr/lib/x86_64-linux-gnu/libmodule-{module}.so"));
    let build_id = dictionary.intern_string(&format!("{module:040x}"));
    let flags = MappingFlags(MappingFlags::FUNCTIONS);
    let mapping = dictionary.intern_mapping(Mapping {
        file,
        build_id,
        start: 0,
        limit: 1 << 40,
        offset: 0,
        flags,
        file_id: Default::default(),
    });
    let name = dictionary.intern_string(&format!(
        "module{module}::part{}::function_{function}",
        function % 97
    ));
    let source = dictionary.intern_string(&format!("src/module{module}/part{}.rs", function % 97));
    let function_id = dictionary.intern_function(Function {
        name,
        system_name: name,
        file: source,
        start_line: 1 + function as i64,
    });
    let lines = [Line {
        function: function_id,
        line: 5 + function as i64,
    }];
    let address = 0x1000 + 64 * function as u64;
    let location = Location {
        mapping: Some(mapping),
        address,
        lines_start: 0,
        lines_end: 0,
        is_folded: false,
        unnamed: Unnamed::default(),
    };
    dictionary.intern_location(location, &lines)
}

fn open(path: &Path) -> EmbeddedStore {
    let options = StoreOptions {
        block_bytes_max: 256 << 20,
        ..StoreOptions::keep_all(path)
    };
    EmbeddedStore::open(&options, StoreMetrics::default()).unwrap()
}

fn select(query: &str) -> Selection {
    let range = TimeRange {
        from_ms: START_MS,
        to_ms: START_MS + 10_000 * (WINDOWS as i64 + 1),
    };
    Selection {
        selector: parse_selector(query).unwrap(),
        range,
    }
}

fn flame_graph(store: &EmbeddedStore, selection: &Selection) -> (Tree, usize) {
    let snapshot = store.snapshot(selection.range).unwrap();
    let tree = build_tree(Profiles::unnamed(&*snapshot), &selection.selector).unwrap();
    let graph = lay_out(tree.walk(), tree.walk().root(), 200_000).unwrap();
    assert!(tree.total().samples > 0);
    let nodes = graph.nodes.depth.len();
    (tree, nodes)
}

fn bench_queries(criterion: &mut Criterion) {
    let model = Model::new();
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    for sequence in 1..=WINDOWS {
        store.append(model.window(sequence)).unwrap();
    }
    store.settle();
    let all = select("{}");
    let (tree, nodes) = flame_graph(&store, &all);
    let bytes: u64 = walk_bytes(&folder.path().join("default/segments"));
    println!(
        "{} samples, {nodes} nodes, {} functions, {bytes} bytes in segments, {:.1} a row",
        tree.total().samples,
        list_functions(&tree, FunctionOrder::Own, "", 0..200).count,
        bytes as f64 / (WINDOWS as usize * ROWS) as f64,
    );
    drop((tree, store));

    let mut group = criterion.benchmark_group("an hour of one node");
    group
        .sample_size(10)
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(5));
    group.bench_function("flame graph, cold", |bencher| {
        // One store at a time has the directory: each is closed before the next is opened.
        let last: RefCell<Option<EmbeddedStore>> = RefCell::new(None);
        bencher.iter_batched_ref(
            || {
                drop(last.take());
                last.replace(Some(open(folder.path())));
            },
            |()| flame_graph(last.borrow().as_ref().unwrap(), &all).1,
            BatchSize::PerIteration,
        );
    });
    let store = open(folder.path());
    group.bench_function("flame graph, warm", |bencher| {
        bencher.iter(|| flame_graph(&store, &all).1)
    });
    let one = select("{comm=\"program-7\"}");
    group.bench_function("flame graph of one program, warm", |bencher| {
        bencher.iter(|| flame_graph(&store, &one).1)
    });
    group.bench_function("functions, warm", |bencher| {
        bencher.iter(|| {
            let snapshot = store.snapshot(all.range).unwrap();
            let tree = build_tree(Profiles::unnamed(&*snapshot), &all.selector).unwrap();
            list_functions(&tree, FunctionOrder::Own, "", 0..200).count
        });
    });
    group.bench_function("stacks, warm", |bencher| {
        bencher.iter(|| {
            let snapshot = store.snapshot(all.range).unwrap();
            let report = report_stacks(Profiles::unnamed(&*snapshot), &all.selector);
            report.unwrap().stops.len()
        })
    });
    group.bench_function("time series by program, warm", |bencher| {
        let steps = Steps::fit(all.range, 10_000, 360);
        bencher.iter(|| {
            let snapshot = store.snapshot(all.range).unwrap();
            let answer = sum_over_time(&*snapshot, &all.selector, Some("comm"), steps);
            answer.unwrap().groups.len()
        });
    });
    let (tree, _) = flame_graph(&store, &all);
    let graph = lay_out(tree.walk(), tree.walk().root(), 200_000).unwrap();
    let answer = FlamegraphAnswer::new(all.range, &tree, graph, None);
    for encoding in [Encoding::Identity, Encoding::Gzip, Encoding::Zstd] {
        let buffer = || ChargedBuffer::new(Charge::default(), usize::MAX);
        let encode = || encoding.json(&answer, buffer()).unwrap().into_response();
        let bytes = encode().body().size_hint().exact().unwrap_or(0);
        let name = format!("flame graph as JSON, {encoding:?}, {bytes} bytes");
        group.bench_function(name, |bencher| bencher.iter(encode));
    }
    let mut without = answer;
    let columns = without.take_columns();
    for encoding in [Encoding::Identity, Encoding::Gzip, Encoding::Zstd] {
        let encode = || {
            let buffer = ChargedBuffer::new(Charge::default(), usize::MAX);
            let write = |out: &mut dyn Write| write_columns(out, &without, &columns.list());
            encoding
                .write(MEDIA_TYPE, buffer, write)
                .unwrap()
                .into_response()
        };
        let bytes = encode().body().size_hint().exact().unwrap_or(0);
        let name = format!("flame graph as columns, {encoding:?}, {bytes} bytes");
        group.bench_function(name, |bencher| bencher.iter(encode));
    }
    group.bench_function("pprof, warm", |bencher| {
        bencher.iter(|| {
            let snapshot = store.snapshot(all.range).unwrap();
            let profiles = Profiles::unnamed(&*snapshot);
            let pprof = render_pprof(profiles, &all.selector, &|_| None, Vec::new()).unwrap();
            pprof.unwrap().len()
        })
    });
    group.finish();
}

fn bench_windows(criterion: &mut Criterion) {
    let model = Model::new();
    let window = model.window(1);
    let request = test_push::push_request(&window);
    println!("{} bytes on the wire", request.profile_zstd.len());
    let mut group = criterion.benchmark_group("one window");
    group
        .sample_size(20)
        .throughput(Throughput::Elements(ROWS as u64));
    let limits = CheckLimits {
        profile_bytes_max: 256 << 20,
    };
    group.bench_function("check", |bencher| {
        bencher.iter(|| {
            check_push(request.clone(), i64::MAX, limits)
                .unwrap()
                .rows
                .len()
        })
    });
    group.finish();
}

fn walk_bytes(path: &Path) -> u64 {
    let entries = std::fs::read_dir(path)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    entries
        .map(|path| {
            if path.is_dir() {
                walk_bytes(&path)
            } else {
                path.metadata().unwrap().len()
            }
        })
        .sum()
}

criterion_group!(benches, bench_queries, bench_windows);
criterion_main!(benches);
