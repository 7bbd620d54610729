//! Goals of each set, on two cores.

use crate::questions::{FLAME_GRAPH, PPROF};

/// Goals; `None` and `NAN` where there are none.
pub(crate) struct Goals {
    pub(crate) rows_a_second: Option<f64>,
    pub(crate) rows_a_second_one_in_flight: Option<f64>,
    pub(crate) cpu_us_a_row: Option<f64>,
    /// Bytes a row of the log, merged, and rolled up to a minute.
    pub(crate) log_bytes: Option<f64>,
    pub(crate) merged_bytes: Option<f64>,
    pub(crate) rolled_up_bytes: Option<f64>,
    /// Milliseconds by question, cold and warm.
    pub(crate) answers: &'static [(&'static str, f64, f64)],
}

const NONE: Goals = Goals {
    rows_a_second: None,
    rows_a_second_one_in_flight: None,
    cpu_us_a_row: None,
    log_bytes: None,
    merged_bytes: None,
    rolled_up_bytes: None,
    answers: &[],
};

/// Of ingest, and of each question.
pub(crate) const PEAK_BYTES: u64 = 500_000_000;
pub(crate) const START_MS: f64 = 200.0;
pub(crate) const START_WITHOUT_CATALOG_MS: f64 = 2000.0;

pub(crate) const GENERATED: Goals = Goals {
    rows_a_second: Some(1e6),
    rows_a_second_one_in_flight: Some(4e5),
    cpu_us_a_row: Some(1.5),
    log_bytes: Some(2.0),
    merged_bytes: Some(1.1),
    answers: &[
        (FLAME_GRAPH, 150.0, 100.0),
        ("flame graph of one pod", 15.0, 5.0),
        ("flame graph of one namespace", 20.0, 10.0),
        ("time series of all", 50.0, 2.0),
    ],
    ..NONE
};

pub(crate) const FOUR_TIMES: Goals = Goals {
    merged_bytes: Some(0.9),
    answers: &[(FLAME_GRAPH, 200.0, 150.0)],
    ..NONE
};

pub(crate) const CLUSTER: Goals = Goals {
    answers: &[
        (FLAME_GRAPH, f64::NAN, 1000.0),
        ("top", f64::NAN, 1000.0),
        ("time series by namespace", f64::NAN, 1000.0),
        ("flame graph of one pod", f64::NAN, 50.0),
        (PPROF, f64::NAN, 5000.0),
    ],
    ..NONE
};

pub(crate) const MONTH: Goals = Goals {
    answers: &[(FLAME_GRAPH, 3000.0, 3000.0)],
    ..NONE
};

pub(crate) const REAL: Goals = Goals {
    cpu_us_a_row: Some(4.0),
    log_bytes: Some(17.0),
    merged_bytes: Some(9.0),
    rolled_up_bytes: Some(8.0),
    answers: &[
        (FLAME_GRAPH, 400.0, 250.0),
        ("flame graph of one program", 80.0, 60.0),
    ],
    ..NONE
};

/// One collector has fewer repeats.
pub(crate) const REAL_ONE: Goals = NONE;

impl Goals {
    /// Milliseconds, cold and warm.
    pub(crate) fn answer_ms(&self, question: &str) -> (f64, f64) {
        let goal = self.answers.iter().find(|(name, ..)| *name == question);
        goal.map_or((f64::NAN, f64::NAN), |(_, cold, warm)| (*cold, *warm))
    }
}
