//! Random histories: windows, repeats, reports, restarts and questions, put to a store and to the reference.

use fastrand::Rng;
use model::{TimeRange, Window, WindowTotals};
use store::{MemoryStore, Store};

use crate::answers::{self, ALWAYS, Filter};
use crate::stores::StoreUnderTest;
use crate::windows::{
    START_MS, of_any_collector, random_filter, random_range, random_report, random_window,
};

const STEPS: usize = 120;

/// Check that a store has the answers of the reference to all questions at any moment of a history.
pub(crate) fn histories_have_the_answers_of_the_reference<S: StoreUnderTest>() {
    let seeds = std::env::var("PILOTLIGHT_CONFORMANCE_SEEDS");
    let seeds = seeds.map_or(6, |seeds| seeds.parse().unwrap());
    let mut left_out = 0;
    for seed in 0..seeds {
        // Shown if the test fails.
        println!("history {seed}");
        let mut history = History::<S>::new(seed);
        for _ in 0..STEPS {
            history = history.step();
        }
        for _ in 0..20 {
            history.ask();
        }
        history.compare(ALWAYS, &Filter::default());
        left_out += history.count_left_out();
    }
    assert!(left_out as u64 > seeds, "{left_out} windows were left out");
}

struct History<S> {
    random: Rng,
    tested: S,
    reference: MemoryStore,
    sent: Vec<Window>,
}

impl<S: StoreUnderTest> History<S> {
    fn new(seed: u64) -> Self {
        Self {
            random: Rng::with_seed(seed),
            tested: S::create(),
            reference: MemoryStore::default(),
            sent: Vec::new(),
        }
    }

    fn step(mut self) -> Self {
        match self.random.u8(0..100) {
            0..60 => {
                let sequence = self.sent.len() as u64 + 1;
                let window = random_window(&mut self.random, sequence);
                let window = of_any_collector(&mut self.random, window);
                self.append(window.clone());
                self.sent.push(window);
            }
            60..70 => {
                if let Some(window) = self.random.choice(&self.sent) {
                    self.append(window.clone());
                }
            }
            70..75 => {
                let time_ms = START_MS + self.sent.len() as i64;
                let report = random_report(&mut self.random, time_ms);
                self.tested.store().put_report(report.clone()).unwrap();
                self.reference.put_report(report).unwrap();
            }
            75..78 => self.tested = self.tested.restart(),
            _ => self.ask(),
        }
        self
    }

    fn count_left_out(&self) -> usize {
        let mut count = 0;
        let snapshot = self.reference.snapshot(ALWAYS).unwrap();
        let mut add = |totals: &WindowTotals| count += usize::from(totals.overlap.is_left_out());
        snapshot.scan_totals(&mut add).unwrap();
        count
    }

    fn append(&self, window: Window) {
        let expected = self.reference.append(window.clone()).unwrap();
        assert_eq!(self.tested.store().append(window).unwrap(), expected);
    }

    fn ask(&mut self) {
        let range = random_range(&mut self.random);
        let filter = random_filter(&mut self.random);
        self.compare(range, &filter);
    }

    fn compare(&self, range: TimeRange, filter: &Filter) {
        let (tested, reference) = (self.tested.store(), &self.reference);
        let listed = answers::list_series(reference, range, filter);
        assert_eq!(answers::list_series(tested, range, filter), listed);
        let found = answers::find_series(tested, range, filter);
        let all = answers::find_series(reference, ALWAYS, filter);
        assert!(
            listed.iter().all(|labels| found.contains(labels)),
            "{listed:?} of {found:?}"
        );
        assert!(
            found.iter().all(|labels| all.contains(labels)),
            "{found:?} of {all:?}"
        );
        assert_eq!(answers::reports(tested), answers::reports(reference));
        assert_eq!(answers::versions(tested), answers::versions(reference));
        let tested = tested.snapshot(range).unwrap();
        let reference = reference.snapshot(range).unwrap();
        assert_eq!(answers::totals(&*tested), answers::totals(&*reference));
        assert_eq!(
            answers::stacks(&*tested, filter),
            answers::stacks(&*reference, filter)
        );
    }
}
