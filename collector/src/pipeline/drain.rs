//! Sorts events and samples by time.
//!
//! In: samples and side-band events, from one buffer each per processor. Out: both in one order, up
//! to a time that has been reached in all buffers.

use std::{iter, mem};

use crate::{
    process::Timed,
    sample::{Batch, Sample},
};

/// Events and samples that were read from the buffers and are not applied yet.
#[derive(Default)]
pub(super) struct Drain {
    pub(super) events: Vec<Timed>,
    pub(super) batch: Batch,
}

/// The next event or sample.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Item<'a> {
    Event(Timed),
    Sample(&'a Sample),
}

impl Drain {
    /// Takes the events and samples until `until_ns`; later ones stay queued.
    pub(super) fn take_until(&mut self, until_ns: u64) -> Self {
        self.events.sort_by_key(|event| event.time_ns);
        self.batch.sort_by_time();
        let old = self
            .events
            .partition_point(|event| event.time_ns <= until_ns);
        let young = Self {
            events: self.events.split_off(old),
            batch: self.batch.split_after(until_ns),
        };
        mem::replace(self, young)
    }
}

/// Merges sorted events and samples into one order. An event at the time of a sample precedes it.
pub(super) fn merge(events: Vec<Timed>, samples: &[Sample]) -> impl Iterator<Item = Item<'_>> {
    let mut events = events.into_iter().peekable();
    let mut samples = samples.iter().peekable();
    iter::from_fn(move || {
        let event = match samples.peek() {
            Some(sample) => events.next_if(|event| event.time_ns <= sample.time_ns),
            None => events.next(),
        };
        event
            .map(Item::Event)
            .or_else(|| samples.next().map(Item::Sample))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{process::SideBandEvent, sample::testing::sample_record};

    fn exit(time_ns: u64) -> Timed {
        Timed {
            time_ns,
            event: SideBandEvent::Exit { pid: 1 },
        }
    }

    /// Shows a drain as "e1 s2 …".
    fn show(drained: Drain) -> String {
        let items = merge(drained.events, drained.batch.samples());
        let shown: Vec<String> = items
            .map(|item| match item {
                Item::Event(event) => format!("e{}", event.time_ns),
                Item::Sample(sample) => format!("s{}", sample.time_ns),
            })
            .collect();
        shown.join(" ")
    }

    /// Check that events and samples of several buffers are merged by time, and that young ones
    /// wait for a later drain.
    #[test]
    fn one_order_of_all_buffers() {
        let mut drain = Drain::default();
        for time_ns in [30, 10, 20, 50] {
            let record = sample_record(1, time_ns, &[7], &[]);
            drain.batch.push_record(&record).unwrap();
        }
        drain.events.extend([exit(20), exit(5), exit(60), exit(25)]);
        let first = drain.take_until(29);
        assert_eq!(show(first), "e5 s10 e20 s20 e25");
        drain.events.push(exit(40));
        assert_eq!(show(drain.take_until(u64::MAX)), "s30 e40 s50 e60");
        assert_eq!(show(drain.take_until(u64::MAX)), "");
    }
}
