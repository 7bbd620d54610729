//! A server with many collectors and a full store, asked all the while: what it takes of memory and disk, and how long pushes and
//! queries take, minute by minute. `testdata/bench/store-soak` has the options.

#![allow(missing_docs, clippy::unwrap_used, reason = "a bench")]

#[path = "../tests/process/mod.rs"]
mod process;
#[path = "../tests/running/mod.rs"]
mod running;
#[path = "../src/receive/grpc/test_push.rs"]
mod test_push;

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use fleet::{Fleet, Shape};
use process::{Process, runtime};
use proto::v1;
use test_push::push_request;

const WINDOW_MS: i64 = 10_000;

/// Different windows of a node, which are sent in turns.
const WINDOWS: usize = 2;

/// Between two questions of one client, as of a person who looks at an answer for a moment.
const THINK_TIME: Duration = Duration::from_millis(200);

/// Kinds of requests whose times are measured.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Push,
    PodGraph,
    GraphOfAll,
    SeriesOfAll,
}

/// Times of a minute.
#[derive(Default)]
struct Times {
    times: BTreeMap<Kind, Vec<Duration>>,
    failures: u64,
}

impl Times {
    /// The time that so many of a hundred requests do not exceed, in milliseconds.
    fn percentile(&mut self, kind: Kind, percent: usize) -> f64 {
        let times = self.times.entry(kind).or_default();
        times.sort_unstable();
        let last = times.len().saturating_sub(1);
        let time = times.get((times.len() * percent / 100).min(last));
        time.map_or(f64::NAN, |time| time.as_secs_f64() * 1000.0)
    }
}

type Shared = Arc<Mutex<Times>>;

fn note(shared: &Shared, kind: Kind, started: Instant, is_answered: bool) {
    let mut times = shared.lock().unwrap();
    match is_answered {
        true => times.times.entry(kind).or_default().push(started.elapsed()),
        false => times.failures += 1,
    }
}

fn main() {
    let mut options: BTreeMap<&str, u64> = [
        ("collectors", 200),
        ("pods", 10),
        ("seconds", 1200),
        ("every", 60),
        ("retention-mib", 48),
        ("clients", 2),
    ]
    .into();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    for argument in arguments.iter().filter(|argument| *argument != "--bench") {
        let option = argument.split_once('=').unwrap_or((argument, ""));
        let known = options.get_mut(option.0);
        let number = option.1.parse().ok();
        match (known, number) {
            (Some(known), Some(number)) => *known = number,
            _ => panic!("no option NAME=NUMBER: `{argument}`"),
        }
    }
    run(&options);
}

fn run(options: &BTreeMap<&str, u64>) {
    let fleet = Fleet::new(Shape {
        nodes: options["collectors"] as usize,
        pods: options["pods"] as usize,
        ..Shape::default()
    });
    let folder = tempfile::tempdir().unwrap();
    let retention = format!("--retention-bytes={}MiB", options["retention-mib"]);
    let process = Process::start(folder.path(), &[&retention]).unwrap();
    let times = Shared::default();
    let (mut pods, mut senders, mut rows) = (Vec::new(), Vec::new(), 0);
    for node in 0..options["collectors"] as usize {
        let windows = (0..WINDOWS).map(|number| fleet.window(node, number));
        let windows: Vec<_> = windows.collect();
        pods.extend(
            windows[0]
                .series
                .iter()
                .map(|set| set.value("pod").to_owned()),
        );
        rows += windows[0].rows.len();
        let requests = windows.iter().map(push_request).collect();
        let share = node as u64 * WINDOW_MS as u64 / options["collectors"];
        let delay = Duration::from_millis(share);
        let (grpc, times) = (process.grpc, Arc::clone(&times));
        senders.push(runtime().spawn(send(grpc, node, requests, delay, times)));
    }
    println!(
        "{} collectors with {} pods, {rows} rows each 10 s, {retention}",
        options["collectors"], options["pods"]
    );
    println!(
        "seconds  RSS MiB  disk MiB   pushes  push p50  push p99  pod p50  pod p99  all p99  series p99 ms  failed"
    );
    for client in 0..options["clients"] as usize {
        let (http, times, pods) = (process.http, Arc::clone(&times), pods.clone());
        std::thread::spawn(move || ask(http, client, &pods, &times));
    }
    let started = Instant::now();
    let every = Duration::from_secs(options["every"]);
    for minute in 1..=(options["seconds"] / options["every"]) as u32 {
        std::thread::sleep((every * minute).saturating_sub(started.elapsed()));
        let mut minute = std::mem::take(&mut *times.lock().unwrap());
        print(started, &process, folder.path(), &mut minute);
    }
    senders.iter().for_each(tokio::task::JoinHandle::abort);
}

fn print(started: Instant, process: &Process, data: &Path, minute: &mut Times) {
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let pushes = minute.times.get(&Kind::Push).map_or(0, Vec::len);
    println!(
        "{:>7} {:>8.1} {:>9.1} {pushes:>8} {:>9.1} {:>9.1} {:>8.1} {:>8.1} {:>8.1} {:>14.1} {:>7}",
        started.elapsed().as_secs(),
        mib(process.resident_bytes().unwrap()),
        mib(bytes_of(&data.join("default"))),
        minute.percentile(Kind::Push, 50),
        minute.percentile(Kind::Push, 99),
        minute.percentile(Kind::PodGraph, 50),
        minute.percentile(Kind::PodGraph, 99),
        minute.percentile(Kind::GraphOfAll, 99),
        minute.percentile(Kind::SeriesOfAll, 99),
        minute.failures
    );
}

/// Bytes of all files below a folder; some are removed meanwhile.
fn bytes_of(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let bytes = entries.map(|entry| match entry.metadata() {
        Ok(found) if found.is_dir() => bytes_of(&entry.path()),
        Ok(found) => found.len(),
        Err(_) => 0,
    });
    bytes.sum()
}

/// Sends a window of a node each ten seconds.
async fn send(
    grpc: SocketAddr,
    node: usize,
    requests: Vec<v1::PushRequest>,
    delay: Duration,
    times: Shared,
) {
    tokio::time::sleep(delay).await;
    let mut ticks = tokio::time::interval(Duration::from_millis(WINDOW_MS as u64));
    let mut client = running::connect(grpc).await.unwrap();
    let mut instance = [0; 16];
    instance[..8].copy_from_slice(&(node as u64 + 1).to_le_bytes());
    for sequence in 1.. {
        ticks.tick().await;
        let mut request = requests[sequence as usize % requests.len()].clone();
        let now_ms = server::serve::http::routes::now_ms();
        request.window_start_ms = now_ms / WINDOW_MS * WINDOW_MS - WINDOW_MS;
        request.sequence = sequence;
        request.collector_instance = instance.to_vec();
        let started = Instant::now();
        let answer = client.push(request).await;
        if let Err(status) = &answer {
            eprintln!("node {node}: {status}");
        }
        note(&times, Kind::Push, started, answer.is_ok());
    }
}

/// Asks for the graphs of pods, and now and then for those of everything.
fn ask(http: SocketAddr, client: usize, pods: &[String], times: &Shared) {
    for question in client.. {
        let (kind, path) = match question % 20 {
            0 => (
                Kind::GraphOfAll,
                "/api/v1/flamegraph?from=now-15m".to_owned(),
            ),
            10 => (
                Kind::SeriesOfAll,
                "/api/v1/timeseries?from=now-15m&by=namespace".to_owned(),
            ),
            _ => {
                let pod = &pods[question * 7919 % pods.len()];
                let path = format!("/api/v1/flamegraph?query={{pod=\"{pod}\"}}&from=now-15m");
                (Kind::PodGraph, path)
            }
        };
        let started = Instant::now();
        let answer = running::get(http, &path, "soak");
        // A pod has no windows in the first seconds.
        let is_answered = answer.is_ok_and(|answer| [200, 404].contains(&answer.status));
        note(times, kind, started, is_answered);
        std::thread::sleep(THINK_TIME);
    }
}
