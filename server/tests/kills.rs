//! The real server, killed again and again while it takes windows, writes segments, merges, rolls up and evicts.
//!
//! Four collectors send the windows of a generated cluster, an hour of its time in each step, so that days go by in seconds and
//! all of the store's work in the background is going on at every kill. A window that was not answered is sent again, unchanged. In the
//! end each acknowledged window is there once, but for the oldest ones, which were evicted.
//!
//! `PILOTLIGHT_KILLS=200 PILOTLIGHT_KILLS_SEED=7` for more kills at other moments: `testdata/bench/store-kills`.

#![allow(clippy::unwrap_used, reason = "a test")]

mod process;
mod running;
#[path = "../src/receive/grpc/test_push.rs"]
mod test_push;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use fleet::{Fleet, Shape};
use model::Window;
use process::{Process, runtime};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use segment::{Effort, Segment, Source, WindowSet, replay};
use store::embedded::span::{Level, SegmentName};
use test_push::push_request;

const COLLECTORS: usize = 4;
const STEP_MS: i64 = 60 * 60 * 1000;
const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// Age of the first window. 200 kills take some thousand steps, and there is room for 36,000.
const AGE_MS: i64 = 1500 * DAY_MS;

/// Bytes that are kept, for each kill: some days of the cluster, and less than half of what is sent.
const RETENTION_KIB: u64 = 50;

/// Time in which a server that is not killed answers.
const ANSWER_TIME: Duration = Duration::from_secs(30);

/// Kills in `make test`: a minute on a busy machine.
const KILLS: u64 = 30;

fn number_from(variable: &str, default: u64) -> u64 {
    let text = std::env::var(variable);
    text.map_or(default, |text| text.parse().unwrap())
}

/// Collectors and what the server answered to them.
struct Cluster {
    fleet: Fleet,
    first_ms: i64,
    /// Windows that were made for all collectors: a step is one of each.
    made: AtomicU64,
    answered: AtomicU64,
}

/// A collector: its number, the next window, and one that was not answered.
struct Collector {
    node: usize,
    next: u64,
    unanswered: Option<Window>,
    acknowledged: Vec<Window>,
}

impl Cluster {
    fn new(seed: u64) -> Self {
        let shape = Shape {
            seed,
            nodes: COLLECTORS,
            pods: 1,
            ..Shape::default()
        };
        let now_ms = server::serve::http::routes::now_ms();
        Self {
            fleet: Fleet::new(shape),
            first_ms: (now_ms - AGE_MS) / STEP_MS * STEP_MS,
            made: AtomicU64::new(0),
            answered: AtomicU64::new(0),
        }
    }

    fn make_window(&self, collector: &mut Collector) -> Window {
        let step = self.made.fetch_add(1, Ordering::Relaxed) / COLLECTORS as u64;
        let mut window = self
            .fleet
            .window(collector.node, collector.next as usize % 360);
        window.head.key.start_ms = self.first_ms + STEP_MS * step as i64;
        window.head.key.instance = [collector.node as u8 + 1; 16];
        collector.next += 1;
        window.head.key.sequence = collector.next;
        window
    }

    /// Sends windows until the server is gone.
    async fn send(&self, grpc: SocketAddr, mut collector: Collector) -> Collector {
        // A connection to a port that was just closed may hang, or even connect to itself.
        let connect = tokio::time::timeout(ANSWER_TIME, running::connect(grpc));
        let Ok(Ok(mut client)) = connect.await else {
            return collector;
        };
        loop {
            let window = match collector.unanswered.take() {
                Some(window) => window,
                None => self.make_window(&mut collector),
            };
            let answer = tokio::time::timeout(ANSWER_TIME, client.push(push_request(&window)));
            match answer.await {
                Ok(Ok(_)) => {
                    self.answered.fetch_add(1, Ordering::Relaxed);
                    collector.acknowledged.push(window);
                }
                Ok(Err(status)) if status.code() == tonic::Code::AlreadyExists => {
                    panic!("{}: {status}", window.head.key)
                }
                _ => {
                    collector.unanswered = Some(window);
                    return collector;
                }
            }
        }
    }
}

/// What a data directory has.
#[derive(Default)]
struct Found {
    /// The merges, or logs, that have a message.
    messages: BTreeMap<([u8; 16], u64), BTreeSet<String>>,
    samples: u64,
    /// Ends of the windows of each file.
    ends_ms: Vec<i64>,
}

/// What the store has done, as its files show.
#[derive(Debug, Default)]
struct Done {
    levels: BTreeSet<Level>,
    has_rolled_up: bool,
    replacements_finished: u64,
}

impl Done {
    fn note(&mut self, data: &Path) {
        for path in files(data, "segments") {
            let name = path.file_name().unwrap().to_str().unwrap();
            if let Some(name) = SegmentName::parse(name) {
                self.levels.insert(name.span.level);
                let segment = Segment::open(File::open(&path).unwrap()).unwrap();
                self.has_rolled_up |= segment.summary().resolution_ms > 0;
            }
        }
    }
}

impl Found {
    fn read(data: &Path) -> Self {
        let mut found = Self::default();
        for path in files(data, "segments") {
            let name = path.file_name().unwrap().to_str().unwrap();
            let name = SegmentName::parse(name).unwrap_or_else(|| panic!("{name} is left"));
            let segment = Segment::open(File::open(&path).unwrap()).unwrap();
            assert_eq!(segment.verify(Effort::ONE), [], "{name}");
            found.add(&segment, &name.id.to_string());
            let summary = segment.summary();
            found.samples += summary.samples;
            found.ends_ms.push(summary.to_ms);
        }
        for path in files(data, "log") {
            let log = replay(&fs::read(&path).unwrap()).unwrap();
            assert_eq!(log.damage, [], "{}", path.display());
            found.add(&log.builder, &path.display().to_string());
            let all = WindowSet::all(log.builder.window_count());
            let windows = log.builder.read_whole_windows(&all, Effort::ONE).unwrap();
            found.samples += windows.iter().map(samples_of).sum::<u64>();
        }
        assert!(files(data, "replacements").is_empty());
        found
    }

    fn add(&mut self, source: &dyn Source, merge: &str) {
        for message in source.read_messages().unwrap().value {
            let key = (message.instance, message.message.sequence);
            self.messages
                .entry(key)
                .or_default()
                .insert(merge.to_owned());
        }
    }
}

fn samples_of(window: &Window) -> u64 {
    window.rows.iter().map(|row| row.samples).sum()
}

fn files(data: &Path, folder: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(data.join("default").join(folder)).unwrap();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

/// Compares a data directory with what was acknowledged. Returns how many windows were evicted.
fn compare(found: &Found, collectors: &[Collector]) -> usize {
    let acknowledged = collectors
        .iter()
        .flat_map(|collector| &collector.acknowledged);
    let unanswered = collectors
        .iter()
        .filter_map(|collector| collector.unanswered.as_ref());
    let (mut evicted, mut samples, mut evicted_ms) = (0, 0, i64::MIN);
    let mut known = 0;
    for (window, is_acknowledged) in acknowledged
        .map(|window| (window, true))
        .chain(unanswered.map(|window| (window, false)))
    {
        let key = window.head.key;
        match found.messages.get(&(key.instance, key.sequence)) {
            Some(merges) => {
                assert_eq!(merges.len(), 1, "{key} is in {merges:?}");
                samples += samples_of(window);
                known += 1;
            }
            None if is_acknowledged => {
                evicted += 1;
                evicted_ms = evicted_ms.max(key.start_ms);
            }
            None => {}
        }
    }
    assert_eq!(found.messages.len(), known, "windows that nobody sent");
    assert_eq!(found.samples, samples, "samples of these windows");
    // Collectors are a step or two apart.
    for end_ms in &found.ends_ms {
        assert!(
            *end_ms + 2 * STEP_MS >= evicted_ms,
            "a window of {evicted_ms} is gone, and one of {end_ms} is not"
        );
    }
    evicted
}

#[test]
fn kills_lose_and_double_nothing() {
    let kills = number_from("PILOTLIGHT_KILLS", KILLS);
    let mut random = StdRng::seed_from_u64(number_from("PILOTLIGHT_KILLS_SEED", 1));
    let folder = tempfile::tempdir().unwrap();
    let cluster = Arc::new(Cluster::new(7));
    let mut collectors: Vec<Collector> = (0..COLLECTORS)
        .map(|node| Collector {
            node,
            next: 0,
            unanswered: None,
            acknowledged: Vec::new(),
        })
        .collect();
    let bytes = format!("--retention-bytes={}KiB", RETENTION_KIB * kills);
    let options = [&bytes, "--retention=forever", "--roll-up=1d:1h"];
    let mut done = Done::default();
    for kill in 1..=kills + 1 {
        let process = Process::start(folder.path(), &options).unwrap();
        done.replacements_finished += process.recovery("replacements_finished").unwrap();
        for kind in ["segments_damaged", "records_damaged", "lists_damaged"] {
            assert_eq!(process.recovery(kind).unwrap(), 0, "{kind}");
        }
        let wanted = cluster.answered.load(Ordering::Relaxed) + random.random_range(0..24);
        let time = Duration::from_micros(random.random_range(0..200_000));
        let grpc = process.grpc;
        runtime().block_on(async {
            let sending: Vec<_> = collectors
                .drain(..)
                .map(|collector| {
                    let cluster = Arc::clone(&cluster);
                    tokio::spawn(async move { cluster.send(grpc, collector).await })
                })
                .collect();
            let started = Instant::now();
            while cluster.answered.load(Ordering::Relaxed) < wanted {
                assert!(
                    started.elapsed() < ANSWER_TIME,
                    "the server does not answer"
                );
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            // Anywhere in what follows, not right after an answer.
            tokio::time::sleep(time).await;
            // The last time it is stopped, so that its files are those of one moment.
            if kill <= kills {
                process.kill().unwrap()
            } else {
                process.stop().unwrap()
            }
            for collector in sending {
                collectors.push(collector.await.unwrap());
            }
        });
        done.note(folder.path());
        if kill % 50 == 0 {
            eprintln!(
                "{kill} kills, {} windows",
                cluster.answered.load(Ordering::Relaxed)
            );
        }
    }
    let found = Found::read(folder.path());
    let evicted = compare(&found, &collectors);
    let acknowledged: usize = collectors
        .iter()
        .map(|found| found.acknowledged.len())
        .sum();
    eprintln!(
        "{kills} kills, {acknowledged} windows acknowledged, {evicted} of them evicted, {done:?}"
    );
    assert!(acknowledged as u64 > 5 * kills);
    assert!(evicted > 0 && done.has_rolled_up && done.levels.len() > 1);
}
