//! The CPU and the time of questions about a generated cluster in segments, without the server and its answers' encoding.
//! `testdata/bench/store-questions` has the options.

#![allow(missing_docs, clippy::unwrap_used, reason = "a bench")]

use std::path::{Path, PathBuf};
use std::time::Instant;

use fleet::{Fleet, SAMPLE_NS, START_MS, Shape, WINDOW_MS};
use model::TimeRange;
use query::functions::{FunctionOrder, list_functions};
use query::timeseries::{Steps, sum_over_time};
use query::{Profiles, build_tree, parse_selector};
use render::graph::lay_out;
use render::pprof::render_pprof;
use rustix::time::{ClockId, clock_gettime};
use store::{EmbeddedStore, Store, StoreMetrics, StoreOptions};

/// Times that a question is asked, each with another range.
const ROUNDS: usize = 5;

/// A route.
#[derive(Clone, Copy, Debug)]
enum Route {
    FlameGraph,
    Top,
    TimeSeries,
    Pprof,
}

fn main() {
    let options: Vec<String> = std::env::args()
        .skip(1)
        .filter(|option| option != "--bench")
        .collect();
    let (own, shape): (Vec<String>, Vec<String>) = options
        .into_iter()
        .partition(|option| option.starts_with("repeat=") || option.starts_with("data="));
    let shape = Shape::parse(shape).unwrap_or_else(|err| {
        eprintln!("{err}");
        std::process::exit(2);
    });
    let value = |name: &str| own.iter().find_map(|option| option.strip_prefix(name));
    let repeat = value("repeat=").map_or(usize::MAX, |text| text.parse().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let data = value("data=").map_or(folder.path().to_owned(), PathBuf::from);
    let fleet = Fleet::new(shape);
    if !data.join("default").exists() {
        fill(&data, &fleet, repeat);
    }
    ask_all(&data, &fleet);
}

fn open(data: &Path) -> EmbeddedStore {
    EmbeddedStore::open(&StoreOptions::keep_all(data), StoreMetrics::default()).unwrap()
}

/// Stores the windows, of which the first `repeat` of each node come again.
fn fill(data: &Path, fleet: &Fleet, repeat: usize) {
    let shape = fleet.shape();
    let store = open(data);
    for node in 0..shape.nodes {
        let kept: Vec<_> = (0..repeat.min(shape.windows))
            .map(|number| fleet.window(node, number))
            .collect();
        for number in 0..shape.windows {
            let mut window = kept[number % kept.len()].clone();
            window.head.key.start_ms = START_MS + WINDOW_MS * number as i64;
            window.head.key.sequence = number as u64 + 1;
            store.append(window).unwrap();
        }
        if node % 10 == 9 {
            store.settle();
        }
    }
    store.settle();
    println!("{} {:?}", shape, store.numbers());
    store.close();
}

fn ask_all(data: &Path, fleet: &Fleet) {
    let labels = &fleet.window(0, 0).series[0];
    let pod = format!("{{pod=\"{}\"}}", labels.value("pod"));
    let namespace = format!("{{namespace=\"{}\"}}", labels.value("namespace"));
    println!(
        "{:<34} {:>10} {:>22} {:>22} {:>22}",
        "ms: CPU, time", "samples", "first", "other bounds, best", "same again, best"
    );
    for (route, query) in [
        (Route::FlameGraph, "{}"),
        (Route::FlameGraph, &pod),
        (Route::FlameGraph, &namespace),
        (Route::Top, "{}"),
        (Route::TimeSeries, "{}"),
        (Route::TimeSeries, &pod),
        (Route::Pprof, "{}"),
    ] {
        let store = open(data);
        let whole = TimeRange {
            from_ms: START_MS,
            to_ms: START_MS + WINDOW_MS * fleet.shape().windows as i64,
        };
        let within = |round: usize| TimeRange {
            from_ms: whole.from_ms + WINDOW_MS * (2 + round as i64) / 2,
            to_ms: whole.to_ms - WINDOW_MS * (2 + round as i64) / 2,
        };
        let mut times = Vec::new();
        let mut samples = 0;
        for round in 0..ROUNDS {
            let (time, found) = measure(|| ask(&store, route, query, within(round)));
            times.push(time);
            samples = found;
        }
        let again = (0..ROUNDS).map(|_| measure(|| ask(&store, route, query, within(0))).0);
        let again = best(again.collect());
        let first = times.remove(0);
        let show = |[cpu, time]: [f64; 2]| format!("{cpu:>9.1} {time:>9.1}");
        let mut name = format!("{route:?} {query}");
        name.truncate(34);
        println!(
            "{name:<34} {samples:>10} {:>22} {:>22} {:>22}",
            show(first),
            show(best(times)),
            show(again)
        );
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find(|line| line.starts_with("VmHWM:"));
    println!("{}", peak.unwrap_or_default());
}

fn ask(store: &EmbeddedStore, route: Route, query: &str, range: TimeRange) -> u64 {
    let selector = parse_selector(query).unwrap();
    let snapshot = store.snapshot(range).unwrap();
    let profiles = Profiles::unnamed(&*snapshot);
    match route {
        Route::FlameGraph => {
            let tree = build_tree(profiles, &selector).unwrap();
            let graph = lay_out(&tree, 200_000);
            graph.nodes.self_ns.iter().sum::<u64>() / SAMPLE_NS
        }
        Route::Top => {
            let tree = build_tree(profiles, &selector).unwrap();
            let functions = list_functions(&tree, FunctionOrder::Own, "");
            functions.iter().map(|function| function.own.samples).sum()
        }
        Route::TimeSeries => {
            let steps = Steps::fit(range, WINDOW_MS, 360);
            let series = sum_over_time(&*snapshot, &selector, Some("namespace"), steps).unwrap();
            series.groups.iter().map(|group| group.total.samples).sum()
        }
        Route::Pprof => {
            let pprof = render_pprof(profiles, &selector, &|_| None, Vec::new()).unwrap();
            pprof.map_or(0, |bytes| bytes.len() as u64)
        }
    }
}

/// CPU and time in milliseconds, and the result.
fn measure<T>(work: impl FnOnce() -> T) -> ([f64; 2], T) {
    let cpu_ms = || {
        let now = clock_gettime(ClockId::ProcessCPUTime);
        1e3 * now.tv_sec as f64 + now.tv_nsec as f64 / 1e6
    };
    let (cpu, started) = (cpu_ms(), Instant::now());
    let result = work();
    let elapsed = started.elapsed().as_secs_f64() * 1e3;
    ([cpu_ms() - cpu, elapsed], result)
}

fn best(times: Vec<[f64; 2]>) -> [f64; 2] {
    times.into_iter().fold([f64::MAX; 2], |best, time| {
        [best[0].min(time[0]), best[1].min(time[1])]
    })
}
