//! The pushes of a set, each with its time, and what a right answer adds up to.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use anyhow::Result;
use proto::v1::PushRequest;

use crate::recording::{Message, Recording};

pub(crate) const WINDOW_MS: i64 = 10_000;
pub(crate) const HOUR_MS: i64 = 3_600_000;
pub(crate) const DAY_MS: i64 = 24 * HOUR_MS;

/// A message at a time.
struct Push {
    message: usize,
    start_ms: i64,
    sequence: u64,
}

/// The pushes of a set, in the order of time.
pub(crate) struct Plan {
    recording: Recording,
    pushes: Vec<Push>,
}

/// Windows of some nodes in equal distances.
pub(crate) struct Timeline {
    /// Nodes of each window in the recording.
    pub(crate) recorded_nodes: usize,
    /// Nodes of them that are pushed: the first ones.
    pub(crate) nodes: usize,
    /// Windows of each node. The recording begins again at its end.
    pub(crate) windows: usize,
    pub(crate) from_ms: i64,
    pub(crate) distance_ms: i64,
}

impl Plan {
    pub(crate) fn repeat(recording: Recording, timeline: &Timeline) -> Self {
        let recorded = recording.messages.len() / timeline.recorded_nodes;
        let window = |window: usize| {
            let first = window % recorded * timeline.recorded_nodes;
            (first..first + timeline.nodes).map(move |message| Push {
                message,
                start_ms: timeline.from_ms + timeline.distance_ms * window as i64,
                sequence: window as u64 + 1,
            })
        };
        Self {
            pushes: (0..timeline.windows).flat_map(window).collect(),
            recording,
        }
    }

    /// The pushes of real collectors, moved by whole hours so that the first one is in the hour of `from_ms`.
    pub(crate) fn replay(recording: Recording, from_ms: i64, node: Option<&str>) -> Self {
        let hour_of = |ms: i64| ms.div_euclid(HOUR_MS);
        let first_ms = recording.messages.iter().map(|message| message.start_ms);
        let hours = hour_of(from_ms) - first_ms.min().map_or(0, hour_of);
        let messages = recording.messages.iter().enumerate();
        let pushes = messages.filter(|(_, message)| node.is_none_or(|node| node == message.node));
        let pushes = pushes.map(|(number, message)| Push {
            message: number,
            start_ms: message.start_ms + hours * HOUR_MS,
            sequence: message.sequence,
        });
        let mut pushes: Vec<Push> = pushes.collect();
        pushes.sort_by_key(|push| push.start_ms);
        Self { pushes, recording }
    }

    pub(crate) fn len(&self) -> usize {
        self.pushes.len()
    }

    /// A push, as its collector would send it.
    pub(crate) fn request(&self, number: usize) -> Result<PushRequest> {
        let push = &self.pushes[number];
        let mut request = self.recording.read(push.message)?;
        request.window_start_ms = push.start_ms;
        request.sequence = push.sequence;
        Ok(request)
    }

    /// Only the first pushes.
    pub(crate) fn truncate(&mut self, count: usize) {
        self.pushes.truncate(count);
    }

    fn message(&self, push: &Push) -> &Message {
        &self.recording.messages[push.message]
    }

    pub(crate) fn rows(&self) -> u64 {
        let rows = self.pushes.iter().map(|push| self.message(push).rows);
        rows.sum()
    }

    /// Starts of windows.
    pub(crate) fn starts(&self) -> Vec<i64> {
        let starts: BTreeSet<i64> = self.pushes.iter().map(|push| push.start_ms).collect();
        starts.into_iter().collect()
    }

    /// CPU time of the windows that start in a range, of the series with a label.
    pub(crate) fn total_ns(&self, range: &Range<i64>, label: Option<(&str, &str)>) -> u64 {
        let is_selected: Vec<bool> = (self.recording.series.iter())
            .map(|labels| {
                label.is_none_or(|(name, value)| labels.get(name).is_some_and(|own| own == value))
            })
            .collect();
        let pushes = self
            .pushes
            .iter()
            .filter(|push| range.contains(&push.start_ms));
        let sums = pushes.flat_map(|push| &self.message(push).sums);
        let selected = sums.filter(|(series, _)| is_selected[*series as usize]);
        selected.map(|(_, ns)| ns).sum()
    }

    /// The value of a label that has the most CPU time. `None` if no series has the label.
    pub(crate) fn busiest(&self, name: &str) -> Option<String> {
        let mut sums: BTreeMap<&str, u64> = BTreeMap::new();
        for (series, ns) in self.pushes.iter().flat_map(|push| &self.message(push).sums) {
            if let Some(value) = self.recording.series[*series as usize].get(name) {
                *sums.entry(value).or_default() += ns;
            }
        }
        let busiest = sums.into_iter().max_by_key(|(_, ns)| *ns);
        busiest.map(|(value, _)| value.to_owned())
    }
}
