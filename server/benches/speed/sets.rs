//! The sets: pushes, their times, and the goals.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Result;
use fleet::Shape;

use crate::generate::record_fleets;
use crate::goals::{CLUSTER, FOUR_TIMES, GENERATED, Goals, MONTH, REAL, REAL_ONE};
use crate::options::Options;
use crate::plan::{DAY_MS, HOUR_MS, Plan, Timeline, WINDOW_MS};
use crate::recording::{Recording, is_complete};

/// Pushes into one store.
pub(crate) struct Set {
    /// Of its folder.
    pub(crate) name: &'static str,
    pub(crate) description: String,
    pub(crate) goals: &'static Goals,
    /// More options of the server.
    pub(crate) options: Vec<String>,
    recording: PathBuf,
    times: Times,
}

/// When windows were.
enum Times {
    Generated {
        recorded_nodes: usize,
        nodes: usize,
        windows: usize,
        distance_ms: i64,
    },
    /// As they were recorded, of one collector or of all.
    Real { node: Option<String> },
}

impl Set {
    /// The start of its first window's hour, so that all hours have ended long enough ago to be merged.
    pub(crate) fn from_ms(&self) -> i64 {
        let now_ms = SystemTime::now().duration_since(UNIX_EPOCH);
        let now_ms = now_ms.map_or(0, |now| now.as_millis() as i64);
        match &self.times {
            Times::Generated {
                windows,
                distance_ms,
                ..
            } if *windows as i64 * distance_ms > DAY_MS => {
                now_ms / DAY_MS * DAY_MS - *windows as i64 * distance_ms
            }
            Times::Generated { .. } => now_ms / HOUR_MS * HOUR_MS - 2 * HOUR_MS,
            // A recording of an hour is in two.
            Times::Real { .. } => now_ms / HOUR_MS * HOUR_MS - 4 * HOUR_MS,
        }
    }

    /// Whether its windows are rolled up in the end.
    pub(crate) fn is_rolled_up(&self) -> bool {
        matches!(self.times, Times::Real { .. })
    }

    pub(crate) fn plan(&self, from_ms: i64) -> Result<Plan> {
        let recording = Recording::open(&self.recording)?;
        Ok(match &self.times {
            Times::Generated {
                recorded_nodes,
                nodes,
                windows,
                distance_ms,
            } => Plan::repeat(
                recording,
                &Timeline {
                    recorded_nodes: *recorded_nodes,
                    nodes: *nodes,
                    windows: *windows,
                    from_ms,
                    distance_ms: *distance_ms,
                },
            ),
            Times::Real { node } => Plan::replay(recording, from_ms, node.as_deref()),
        })
    }
}

/// The generated cluster, and the same for a longer time.
pub(crate) fn generated(data: &Path, options: &Options) -> Result<Vec<Set>> {
    let Shape { nodes, windows, .. } = options.shape;
    let times = options.number("times");
    let recording = record_generated(data, options)?;
    let set = |name, goals, windows| Set {
        name,
        description: Shape {
            windows,
            ..options.shape
        }
        .to_string(),
        goals,
        options: vec!["--roll-up=none".to_owned()],
        recording: recording.clone(),
        times: Times::Generated {
            recorded_nodes: nodes,
            nodes,
            windows,
            distance_ms: WINDOW_MS,
        },
    };
    Ok(vec![
        set("generated", &GENERATED, windows),
        set("generated-longer", &FOUR_TIMES, windows * times),
    ])
}

/// Clusters of several seeds as one, and its windows several times.
pub(crate) fn cluster(data: &Path, options: &Options) -> Result<Vec<Set>> {
    let (seeds, repeats) = (options.number("seeds"), options.number("repeats"));
    let shape = options.shape;
    let shapes = (0..seeds).map(|seed| Shape {
        seed: shape.seed + seed as u64,
        ..shape
    });
    let recording = record(data, "cluster", &shapes.collect::<Vec<_>>())?;
    Ok(vec![Set {
        name: "cluster",
        description: format!("{seeds} seeds of {shape}, {repeats} times"),
        goals: &CLUSTER,
        options: vec!["--roll-up=none".to_owned()],
        recording,
        times: Times::Generated {
            recorded_nodes: shape.nodes * seeds,
            nodes: shape.nodes * seeds,
            windows: shape.windows * repeats,
            distance_ms: WINDOW_MS,
        },
    }])
}

/// Days of one node and of all, with some windows an hour. An hour's windows are spread over it, so that one that was rolled up to ten
/// minutes has one of them.
pub(crate) fn month(data: &Path, options: &Options) -> Result<Vec<Set>> {
    let shape = options.shape;
    let recording = record_generated(data, options)?;
    let days = options.number("days");
    let set = |name, nodes, hourly: usize| Set {
        name,
        description: format!("{days} days of {nodes} nodes, {hourly} windows an hour of {shape}"),
        goals: &MONTH,
        options: Vec::new(),
        recording: recording.clone(),
        times: Times::Generated {
            recorded_nodes: shape.nodes,
            nodes,
            windows: days * 24 * hourly,
            distance_ms: HOUR_MS / hourly as i64,
        },
    };
    Ok(vec![
        set("month-of-one", 1, options.number("hourly-of-one")),
        set("month", shape.nodes, options.number("hourly")),
    ])
}

/// Pushes of real collectors: of all, and of the first one.
pub(crate) fn real(path: &Path) -> Result<Vec<Set>> {
    let recording = Recording::open(path)?;
    let first = recording.messages.iter().map(|message| &message.node).min();
    let set = |name, goals, node: Option<String>| Set {
        name,
        description: format!("{} of {}", node.as_deref().unwrap_or("all"), path.display()),
        goals,
        options: vec!["--roll-up=none".to_owned()],
        recording: path.to_owned(),
        times: Times::Real { node },
    };
    Ok(vec![
        set("real", &REAL, None),
        set("real-one", &REAL_ONE, first.cloned()),
    ])
}

/// The windows of the generated cluster for the longer time; sets of a shorter one have the first of them, of a longer one all again.
fn record_generated(data: &Path, options: &Options) -> Result<PathBuf> {
    let shape = Shape {
        windows: options.shape.windows * options.number("times"),
        ..options.shape
    };
    record(data, "generated", &[shape])
}

/// Makes a recording, if it is not there.
fn record(data: &Path, name: &str, shapes: &[Shape]) -> Result<PathBuf> {
    let shape = shapes[0].to_string().replace(' ', ",");
    let path = data.join(format!("{name},seeds={},{shape}.pushes", shapes.len()));
    if !is_complete(&path) {
        record_fleets(&path, shapes)?;
    }
    Ok(path)
}
