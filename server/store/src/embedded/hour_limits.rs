//! How much new the windows of a node may bring to an hour.
//!
//! A question about an hour costs what is different in it: label sets, locations, and nodes of the tree of stacks. A node that brings
//! something new with each sample, by mistake or on purpose, would make the questions about all others slow.

use std::collections::BTreeMap;
use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashMap, HashSet};
use model::{LabelSet, Window};
use segment::{Builder, Growth};

use super::span::Level;
use crate::{HourLimit, StoreError};

/// Label sets of all nodes in an hour: a thousand nodes with 2,000 each. They take 37 MB, for [`HOURS_MAX`] hours 150 MB.
const ALL_SERIES_MAX: u64 = 2_000_000;

/// Bytes of labels for each label set: 10 to 30 labels take 200 to 600.
const LABEL_BYTES_A_SERIES: u64 = 1024;

/// Nodes in an hour: a cluster of Kubernetes has 5,000 at most, and two may send to one server. A name and its counts take 400 bytes at most.
const NODES_MAX: u64 = 20_000;

/// Hours that are counted: those that get windows. A fifth one takes the place of the oldest.
const HOURS_MAX: usize = 4;

/// New entries that one node may bring to one hour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HourLimits {
    /// Different label sets, of series and of containers.
    pub series: u64,
    /// Nodes of the tree of stacks. They are counted in each block, so that those that stay count twelve times an hour.
    pub stack_nodes: u64,
    /// Locations, counted as stack nodes are.
    pub locations: u64,
}

impl Default for HourLimits {
    /// A machine of two processors that builds and tests software all the time, sampled by three collectors, had 2,593 label sets, 2.0
    /// million stack nodes (2.9 a row) and 0.4 million locations in an hour. Counted in each block, that is about 0.5 million nodes and
    /// 0.1 million locations for a processor that compiles and one collector (estimated). A node with 64 of them would reach a third of
    /// these limits, one with 250 pods of 40 programs a sixth of the label sets.
    fn default() -> Self {
        Self {
            series: 65_536,
            stack_nodes: 100_000_000,
            locations: 20_000_000,
        }
    }
}

/// New entries of the nodes in the hours that get windows. Empty after a start.
pub struct HourCounts {
    limits: HourLimits,
    hours: BTreeMap<i64, HourCount>,
    hasher: DefaultHashBuilder,
}

#[derive(Default)]
struct HourCount {
    /// Hashes of node and label set. Two with the same hash count as one.
    series: HashSet<u64>,
    nodes: HashMap<Box<str>, NodeCount>,
}

#[derive(Clone, Copy, Default)]
struct NodeCount {
    series: u64,
    label_bytes: u64,
    stack_nodes: u64,
    locations: u64,
}

/// A window that may be added, and the label sets that it brings.
pub struct Admitted {
    hour_ms: i64,
    node: Box<str>,
    series: Vec<u64>,
    label_bytes: u64,
    before: Growth,
}

impl HourCounts {
    /// Nothing was brought yet.
    pub fn new(limits: HourLimits) -> Self {
        Self {
            limits,
            hours: BTreeMap::new(),
            hasher: DefaultHashBuilder::default(),
        }
    }

    /// Checks whether a window may be added to a block of its hour.
    ///
    /// # Errors
    /// [`StoreError::HourLimit`].
    pub fn admit(
        &mut self,
        hour_ms: i64,
        window: &Window,
        builder: &Builder,
    ) -> Result<Admitted, StoreError> {
        let limits = self.limits;
        let (hour, hasher) = self.hour(hour_ms);
        let node = window.head.node.as_str();
        let count = hour.nodes.get(node).copied();
        let nodes = hour.nodes.len() as u64;
        let check = Check { hour_ms, node };
        check.all(
            HourLimit::Nodes,
            nodes,
            u64::from(count.is_none()),
            NODES_MAX,
        )?;
        let count = count.unwrap_or_default();
        let new = hour.find_new(window, hasher);
        let series = new.len() as u64;
        let label_bytes = new.iter().map(|(_, bytes)| *bytes).sum::<u64>();
        let label_bytes_max = limits.series.saturating_mul(LABEL_BYTES_A_SERIES);
        check.own(HourLimit::Series, count.series, series, limits.series)?;
        check.own(
            HourLimit::Labels,
            count.label_bytes,
            label_bytes,
            label_bytes_max,
        )?;
        check.all(
            HourLimit::Series,
            hour.series.len() as u64,
            series,
            ALL_SERIES_MAX,
        )?;
        // The entries of a window bound its new ones: these are looked up only near a limit.
        let nodes = count
            .stack_nodes
            .saturating_add(window.tables.stacks.len() as u64);
        let locations = count
            .locations
            .saturating_add(window.tables.locations.len() as u64);
        if nodes > limits.stack_nodes || locations > limits.locations {
            let Growth {
                stack_nodes,
                locations,
            } = builder.measure_growth(window);
            check.own(
                HourLimit::Stacks,
                count.stack_nodes,
                stack_nodes,
                limits.stack_nodes,
            )?;
            check.own(
                HourLimit::Locations,
                count.locations,
                locations,
                limits.locations,
            )?;
        }
        Ok(Admitted {
            hour_ms,
            node: node.into(),
            series: new.into_iter().map(|(hash, _)| hash).collect(),
            label_bytes,
            before: builder.dictionary_size(),
        })
    }

    /// Counts a window that was added to its block.
    pub fn count(&mut self, admitted: Admitted, builder: &Builder) {
        let Admitted {
            hour_ms,
            node,
            series,
            label_bytes,
            before,
        } = admitted;
        let after = builder.dictionary_size();
        let (hour, _) = self.hour(hour_ms);
        let count = hour.nodes.entry(node).or_default();
        count.series += series.len() as u64;
        count.label_bytes += label_bytes;
        count.stack_nodes += after.stack_nodes.saturating_sub(before.stack_nodes);
        count.locations += after.locations.saturating_sub(before.locations);
        hour.series.extend(series);
    }

    fn hour(&mut self, hour_ms: i64) -> (&mut HourCount, &DefaultHashBuilder) {
        if !self.hours.contains_key(&hour_ms) && self.hours.len() >= HOURS_MAX {
            self.hours.pop_first();
        }
        (self.hours.entry(hour_ms).or_default(), &self.hasher)
    }
}

impl HourCount {
    /// Hashes of the label sets that are new to the hour, with the bytes of their labels.
    fn find_new(&self, window: &Window, hasher: &DefaultHashBuilder) -> Vec<(u64, u64)> {
        let node = window.head.node.as_str();
        let containers = window.containers.iter().map(|account| &account.labels);
        let sets = window.series.iter().chain(containers);
        let hashed = sets.map(|labels| (hasher.hash_one((node, labels)), labels));
        let new = hashed.filter(|(hash, _)| !self.series.contains(hash));
        new.map(|(hash, labels)| (hash, text_bytes(labels)))
            .collect()
    }
}

fn text_bytes(labels: &LabelSet) -> u64 {
    let bytes = |(name, value): (&str, &str)| (name.len() + value.len()) as u64;
    labels.iter().map(bytes).sum()
}

/// Compares what a window brings with limits.
struct Check<'a> {
    hour_ms: i64,
    node: &'a str,
}

impl Check<'_> {
    /// With a limit of the window's node.
    fn own(&self, limit: HourLimit, had: u64, brings: u64, max: u64) -> Result<(), StoreError> {
        self.compare(
            limit,
            &format!("node {:?} has", self.node),
            [had, brings, max],
        )
    }

    /// With a limit of all nodes together.
    fn all(&self, limit: HourLimit, had: u64, brings: u64, max: u64) -> Result<(), StoreError> {
        self.compare(limit, "all nodes have", [had, brings, max])
    }

    /// A window that brings nothing new is taken, whatever came before it.
    fn compare(
        &self,
        limit: HourLimit,
        whose: &str,
        [had, brings, max]: [u64; 3],
    ) -> Result<(), StoreError> {
        if brings == 0 || had.saturating_add(brings) <= max {
            return Ok(());
        }
        let hour = Level::Hour.span_of(self.hour_ms);
        let (node, what, remedy) = (self.node, limit.words(), limit.remedy());
        let message = format!(
            "{whose} {had} {what} in the hour from {hour} on, and this window of node {node:?} brings {brings} more; at most {max} are taken: {remedy}"
        );
        Err(StoreError::HourLimit { limit, message })
    }
}

#[cfg(test)]
mod tests {
    use model::text::window_at;

    use super::*;

    const HOUR_MS: i64 = 1_795_312_800_000;

    /// A block, and what its nodes brought.
    struct Hour {
        counts: HourCounts,
        builder: Builder,
        hour_ms: i64,
    }

    impl Hour {
        fn new(limits: HourLimits) -> Self {
            Self {
                counts: HourCounts::new(limits),
                builder: Builder::default(),
                hour_ms: HOUR_MS,
            }
        }

        /// Adds a window, or gives the limit that it reaches, and its words.
        fn add(&mut self, node: &str, lines: &str) -> Result<(), (HourLimit, String)> {
            let mut window = window_at(lines, self.hour_ms, 1);
            window.head.node = node.to_owned();
            match self.counts.admit(self.hour_ms, &window, &self.builder) {
                Ok(admitted) => {
                    self.builder.add(&window).unwrap();
                    self.counts.count(admitted, &self.builder);
                    Ok(())
                }
                Err(StoreError::HourLimit { limit, message }) => Err((limit, message)),
                Err(err) => panic!("{err}"),
            }
        }
    }

    fn limits(series: u64, stack_nodes: u64, locations: u64) -> HourLimits {
        HourLimits {
            series,
            stack_nodes,
            locations,
        }
    }

    /// Check that only what is new counts, for each node, and that the next hour begins with nothing.
    #[test]
    fn label_sets_count_once_for_a_node_and_an_hour() {
        let mut hour = Hour::new(limits(2, 100, 100));
        hour.add("n", "comm=a | main | 1\ncomm=b | main | 1")
            .unwrap();
        for _ in 0..3 {
            hour.add("n", "comm=a | main | 1").unwrap();
        }
        let (limit, words) = hour
            .add("n", "comm=a | main | 1\ncomm=c | main | 1")
            .unwrap_err();
        assert_eq!(limit, HourLimit::Series);
        let expected = "node \"n\" has 2 label sets in the hour from 2026-11-22T02 on, and this window of node \"n\" brings 1 more; at most 2 are taken: ";
        assert!(words.starts_with(expected), "{words}");
        hour.add("m", "comm=c | main | 1").unwrap();
        hour.add("n", "comm=b | main | 1").unwrap();
        hour.hour_ms += 3_600_000;
        hour.add("n", "comm=c | main | 1").unwrap();
    }

    #[test]
    fn labels_have_a_kibibyte_for_each_set() {
        let mut hour = Hour::new(limits(2, 100, 100));
        let long = "x".repeat(1500);
        hour.add("n", &format!("comm={long} | main | 1")).unwrap();
        let refused = hour.add("n", &format!("exe={long} | main | 1"));
        assert_eq!(refused.unwrap_err().0, HourLimit::Labels);
        hour.add("n", "comm=short | main | 1").unwrap();
    }

    /// Check that stacks and locations that a block has already do not count, and that a refused window counts nothing.
    #[test]
    fn stacks_and_locations_are_counted_as_they_are_new() {
        let mut hour = Hour::new(limits(10, 4, 10));
        hour.add("n", "comm=a | main a b | 1").unwrap();
        hour.add("n", "comm=a | main a b | 7\ncomm=b | main a | 1")
            .unwrap();
        let refused = hour.add("n", "comm=a | main c d | 1").unwrap_err();
        assert_eq!(refused.0, HourLimit::Stacks);
        assert!(
            refused.1.contains("has 3 frames of stacks"),
            "{}",
            refused.1
        );
        hour.add("n", "comm=a | main c | 1").unwrap();
        assert!(hour.add("n", "comm=a | main e | 1").is_err());
        hour.add("n", "comm=a | main a b | 7").unwrap();

        let mut hour = Hour::new(limits(10, 100, 3));
        hour.add("n", "comm=a | main a b | 1").unwrap();
        hour.add("n", "comm=a | b a main | 1").unwrap();
        let refused = hour.add("n", "comm=a | main c | 1");
        assert_eq!(refused.unwrap_err().0, HourLimit::Locations);
    }

    /// Check that the hours in which windows arrive now are counted, however many old ones come between them.
    #[test]
    fn old_hours_do_not_make_the_newest_one_forgotten() {
        let mut hour = Hour::new(limits(1, 100, 100));
        hour.add("n", "comm=a | main | 1").unwrap();
        for before in 1..10 {
            hour.hour_ms = HOUR_MS - before * 3_600_000;
            hour.add("n", "comm=a | main | 1").unwrap();
            assert!(hour.counts.hours.len() <= HOURS_MAX);
        }
        hour.hour_ms = HOUR_MS;
        assert!(hour.add("n", "comm=b | main | 1").is_err());
    }
}
