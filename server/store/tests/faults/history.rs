//! Random histories: windows are appended, written as segments, merged, rolled up and evicted, with a fault at any operation.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use model::text::window_at;
use model::{FunctionNames, SeriesTable, TimeRange, Window};
use store::{
    Appended, EmbeddedStore, RetentionFlags, RollUp, RollUpAddresses, SeriesFilter, Snapshot,
    Store, StoreMetrics, StoreOptions,
};
use tempfile::TempDir;

use crate::disk::{Fault, SimDisk};

const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;
/// The begin of an hour.
const START_MS: i64 = 1_795_312_800_000;
/// Windows of that time are evicted.
const OLD_MS: i64 = START_MS - 400 * DAY_MS;
const ALWAYS: TimeRange = TimeRange {
    from_ms: 0,
    to_ms: i64::MAX,
};

/// How many times each window is in an answer, by its number, and what the answer lacks.
type Answer = (BTreeMap<u64, u64>, Vec<String>);

/// Samples of a window.
const SAMPLES: u64 = 7;

pub(crate) fn window(number: u64, start_ms: i64) -> Window {
    let lines = format!(
        "comm=c{0},node=a,window={number} | main work_{0} | {SAMPLES}",
        number % 3
    );
    window_at(&lines, start_ms, number)
}

/// A store on a disk with faults.
pub(crate) struct Rig {
    pub(crate) folder: TempDir,
    pub(crate) disk: Arc<SimDisk>,
    store: Option<EmbeddedStore>,
    /// Bytes of segments that are verified a second.
    pub(crate) verify_bytes_per_second: Option<u64>,
    pub(crate) metrics: StoreMetrics,
}

impl Rig {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            folder: TempDir::new().unwrap(),
            disk: Arc::new(SimDisk::new(seed)),
            store: None,
            verify_bytes_per_second: None,
            metrics: StoreMetrics::default(),
        }
    }

    pub(crate) fn store(&self) -> &EmbeddedStore {
        self.store.as_ref().unwrap()
    }

    pub(crate) fn open(&mut self) -> anyhow::Result<()> {
        let now_ms = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
        let options = StoreOptions {
            retention: RetentionFlags {
                age_ms: Some(now_ms.as_millis() as i64 - START_MS + 200 * DAY_MS),
                bytes_max: Some(u64::MAX),
                roll_ups: vec![RollUp {
                    after_ms: 0,
                    resolution_ms: 60_000,
                }],
                roll_up_addresses: RollUpAddresses::Drop,
            },
            verify_bytes_per_second: self.verify_bytes_per_second,
            ..StoreOptions::keep_all(self.folder.path())
        };
        let disk = Arc::clone(&self.disk);
        self.store = Some(EmbeddedStore::open_on(
            disk,
            &options,
            self.metrics.clone(),
        )?);
        Ok(())
    }

    /// Stops the server.
    pub(crate) fn close(&mut self) {
        self.store = None;
    }

    /// Stops the machine, and starts it again.
    pub(crate) fn crash(&mut self) {
        self.store = None;
        self.disk = Arc::new(self.disk.crash());
    }

    /// Lets the store do what is due. Returns whether it did, on a disk that fails again and again.
    pub(crate) fn settle(&self) -> bool {
        let before = self.disk.failures();
        let store = self.store();
        std::thread::scope(|scope| {
            let settling = scope.spawn(|| store.settle());
            while !settling.is_finished() && self.disk.failures() < before + 5 {
                std::thread::sleep(Duration::from_millis(1));
            }
            let is_settled = settling.is_finished();
            if !is_settled {
                store.close();
            }
            is_settled
        })
    }

    /// What the store has. No fault hits the question.
    pub(crate) fn ask(&self) -> Answer {
        self.disk.pause(|| {
            let snapshot = self.store().snapshot(ALWAYS).unwrap();
            let series = snapshot
                .list_series(&SeriesFilter {
                    equal: Vec::new(),
                    matches: &|_| true,
                })
                .unwrap();
            let stacks = count_stacks(&*snapshot, &series);
            let totals = count_totals(&*snapshot);
            let unread = snapshot.unread().into_iter().map(|unread| unread.reason);
            let unread: Vec<String> = unread.collect();
            // The sums of a window may be whole where its stacks are damaged; then it is told.
            assert!(totals == stacks || !unread.is_empty());
            (stacks, unread)
        })
    }
}

fn number_of(labels: &model::LabelSet) -> u64 {
    labels.value("window").parse().unwrap()
}

fn count(samples: BTreeMap<u64, u64>) -> BTreeMap<u64, u64> {
    let times = samples.into_iter().map(|(number, samples)| {
        assert_eq!(samples % SAMPLES, 0, "a part of window {number}");
        (number, samples / SAMPLES)
    });
    times.collect()
}

fn count_stacks(snapshot: &dyn Snapshot, series: &SeriesTable) -> BTreeMap<u64, u64> {
    let numbers: Vec<u64> = series.iter().map(number_of).collect();
    let groups: Vec<u32> = (0..numbers.len() as u32).collect();
    let mut samples = BTreeMap::new();
    snapshot
        .sum_stacks(series, &groups, FunctionNames::All, &mut |sums| {
            for sum in sums.sums {
                *samples.entry(numbers[sum.group as usize]).or_default() += sum.samples;
            }
        })
        .unwrap();
    count(samples)
}

fn count_totals(snapshot: &dyn Snapshot) -> BTreeMap<u64, u64> {
    let mut samples = BTreeMap::new();
    snapshot
        .scan_totals(&mut |totals| {
            let labels = snapshot.find_labels(&totals.series).unwrap();
            for (labels, of_series) in labels.iter().zip(&totals.samples) {
                *samples.entry(number_of(labels)).or_default() += of_series;
            }
        })
        .unwrap();
    count(samples)
}

/// What the test knows of a window.
struct Sent {
    window: Window,
    is_acknowledged: bool,
}

impl Sent {
    /// Whether it may be gone, since it is old.
    fn is_old(&self) -> bool {
        self.window.head.key.start_ms < OLD_MS + DAY_MS
    }
}

/// A history.
pub(crate) struct History {
    random: Rng,
    rig: Rig,
    sent: Vec<Sent>,
}

impl History {
    pub(crate) fn new(seed: u64) -> Self {
        let mut rig = Rig::new(seed);
        rig.open().unwrap();
        Self {
            random: Rng::with_seed(seed),
            rig,
            sent: Vec::new(),
        }
    }

    /// Some windows that are in segments already.
    fn begin(&mut self) {
        for _ in 0..8 {
            self.append();
        }
        self.rig.settle();
        self.rig.close();
        copy_folder(&self.catalog(), &self.rig.folder.path().join("older"));
        self.rig.open().unwrap();
    }

    fn catalog(&self) -> std::path::PathBuf {
        self.rig.folder.path().join("default/catalog")
    }

    fn append(&mut self) {
        let number = self.sent.len() as u64 + 1;
        let start_ms = match self.random.u8(0..10) {
            0 => OLD_MS,
            1..4 => START_MS + HOUR_MS * self.random.i64(0..30),
            _ => START_MS,
        };
        let window = window(number, start_ms + 10_000 * (number as i64 % 300));
        let is_acknowledged = (0..self.random.usize(1..3)).any(|_| {
            let appended = self.rig.store().append(window.clone());
            // Nobody else sends it, and it is not known before it is stored.
            assert_ne!(appended, Ok(Appended::Duplicate), "{number}");
            appended.is_ok()
        });
        self.sent.push(Sent {
            window,
            is_acknowledged,
        });
    }

    /// Goes on until a fault ends it.
    fn go_on(&mut self) {
        for step in 0..14 {
            self.append();
            let is_alive = match (step, self.random.u8(0..5)) {
                (_, 0) => self.rig.settle(),
                (_, 1) => {
                    self.rig.close();
                    self.rig.open().is_ok()
                }
                _ => true,
            };
            if !is_alive {
                return;
            }
            self.check("while it runs", true);
        }
        self.rig.settle();
    }

    /// Compares what the store has with what was acknowledged.
    fn check(&self, when: &str, may_lack: bool) {
        let (times, unread) = self.rig.ask();
        // What cannot be read at a start is told by answers until the next one. A catalog of an earlier time knows segments that were
        // evicted since.
        let lacks: Vec<&String> = unread
            .iter()
            .filter(|reason| !reason.contains("is gone"))
            .collect();
        assert!(may_lack || lacks.is_empty(), "{when}: {lacks:?}");
        for sent in &self.sent {
            let number = sent.window.head.key.sequence;
            let found = times.get(&number).copied().unwrap_or(0);
            let is_right = match found {
                0 => !sent.is_acknowledged || sent.is_old() || !lacks.is_empty(),
                1 => true,
                _ => false,
            };
            assert!(
                is_right,
                "{when}: window {number} is there {found} times, acknowledged: {}\n{}",
                sent.is_acknowledged,
                self.rig.disk.trace()
            );
        }
    }

    /// Lets the machine crash, and checks what a start finds.
    fn crash(&mut self) {
        self.rig.crash();
        let catalog = self.catalog();
        match self.random.u8(0..3) {
            0 => {}
            1 => fs::remove_dir_all(catalog).unwrap(),
            _ => {
                fs::remove_dir_all(&catalog).unwrap();
                copy_folder(&self.rig.folder.path().join("older"), &catalog);
            }
        }
        self.rig.open().unwrap();
    }

    /// Checks that a start finds what was acknowledged, and takes what was not.
    fn check_restarts(&mut self) {
        self.crash();
        self.check("after a crash", false);
        let (times, _) = self.rig.ask();
        for sent in &mut self.sent {
            let number = sent.window.head.key.sequence;
            let expected = if times.contains_key(&number) {
                Appended::Duplicate
            } else {
                Appended::Stored
            };
            let appended = self.rig.store().append(sent.window.clone()).unwrap();
            // Old ones are evicted meanwhile.
            if !sent.is_old() {
                assert_eq!(appended, expected, "window {number} is sent again");
            }
            sent.is_acknowledged = true;
        }
        self.check("when all were sent again", false);
        assert!(self.rig.settle());
        self.check("when all is in segments", false);
        for path in self.rig.disk.names() {
            let name = path.to_string_lossy();
            let is_final = name.ends_with(".seg") || name.ends_with("limits.json");
            assert!(is_final, "{name} is left\n{}", self.rig.disk.trace());
        }
        self.crash();
        self.check("after another crash", false);
    }
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let copy = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy_folder(&path, &copy);
        } else {
            fs::copy(&path, &copy).unwrap();
        }
    }
}

/// The number of histories, and of the operations of which one is chosen.
fn extent(seeds: u64, steps: [usize; 2]) -> (u64, [usize; 2]) {
    match std::env::var("PILOTLIGHT_FAULT_SEEDS") {
        Ok(seeds) => (seeds.parse().unwrap(), [1, steps[1] / steps[0]]),
        Err(_) => (seeds, steps),
    }
}

/// Runs histories with faults that are made of the number of an operation: of one in so many that change something, and that do not.
fn run_histories(seeds: u64, steps: [usize; 2], fault: impl Fn(&mut Rng, u64) -> Fault) {
    let (seeds, steps) = extent(seeds, steps);
    for seed in 0..seeds {
        let mut whole = History::new(seed);
        whole.begin();
        whole.rig.disk.set_fault(None);
        whole.go_on();
        let operations = whole.rig.disk.operations();
        whole.check_restarts();
        let mut random = Rng::with_seed(seed);
        for (operations, step) in operations.iter().zip(steps) {
            let first = random.usize(0..step);
            for at in operations.iter().skip(first).step_by(step) {
                let fault = fault(&mut random, *at);
                run_history(seed, fault, random.bool());
            }
        }
    }
}

fn run_history(seed: u64, fault: Fault, writes_short: bool) {
    // Shown if the test fails.
    println!("history {seed}, {fault:?}");
    let mut history = History::new(seed);
    history.begin();
    if writes_short {
        history.rig.disk.write_short();
    }
    history.rig.disk.set_fault(Some(fault));
    history.go_on();
    history.rig.disk.set_fault(match fault {
        Fault::Crash { .. } => Some(Fault::Crash { at: 0 }),
        Fault::Fail { .. } => None,
    });
    history.check_restarts();
}

/// Check that windows are there once after a crash at any operation.
#[test]
fn a_crash_loses_nothing() {
    run_histories(2, [6, usize::MAX], |_, at| Fault::Crash { at });
}

/// Check that windows are there once after a failure of any operation, and of some after it.
#[test]
fn a_failure_loses_nothing() {
    run_histories(2, [9, 150], |random, at| Fault::Fail {
        at,
        count: random.choice([1, 1, 2, 3, u64::MAX]).unwrap(),
        kind: random
            .choice([ErrorKind::Other, ErrorKind::StorageFull])
            .unwrap(),
        crash_after: random.bool().then(|| random.u64(1..40)),
    });
}
