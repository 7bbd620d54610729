//! Samples whose process or cgroup is being read from `/proc`, or whose pod is not decided by the policy yet.

use crate::{
    process::Process,
    sample::{Batch, Sample},
};

/// Maximum wait of a sample after its drain. A read takes up to 0.25 s, and is usually done by the
/// next drain.
pub(super) const WAIT_NS: u64 = 2_000_000_000;

/// Maximum number of waiting samples: those of 64 processors in 0.6 s, about 500 bytes each with
/// their frames.
const SAMPLES_MAX: usize = 4096;

/// Maximum bytes of their copied stacks; beyond it, samples wait without their copies.
const STACK_BYTES_MAX: usize = 4 << 20;

/// The read that a sample waits for.
#[derive(Clone, Debug)]
pub(super) enum WaitsFor {
    Process,
    /// Its cgroup, or the policy's verdict on that. The process is `None` if `/proc` no longer had it.
    Cgroup(Option<Process>),
}

/// The state of a waiting sample.
#[derive(Clone, Debug)]
pub(super) struct Waiting {
    pub(super) waits_for: WaitsFor,
    /// Nanoseconds of CLOCK_MONOTONIC after which the sample is counted without the result of the
    /// read.
    pub(super) until_ns: u64,
}

/// The waiting samples.
#[derive(Default)]
pub(super) struct Unattributed {
    batch: Batch,
    /// In the order of the samples in the batch.
    waiting: Vec<Waiting>,
    stack_bytes: usize,
}

impl Unattributed {
    /// Adds a sample. Returns whether there was room.
    pub(super) fn push(&mut self, batch: &Batch, sample: &Sample, waiting: Waiting) -> bool {
        if self.waiting.len() >= SAMPLES_MAX {
            return false;
        }
        let stack_bytes = sample.stack.as_ref().map_or(0, |stack| stack.len());
        if self.stack_bytes + stack_bytes <= STACK_BYTES_MAX {
            self.stack_bytes += stack_bytes;
            self.batch.push_sample(batch, sample);
        } else {
            self.batch.push_sample(batch, &sample.without_stack());
        }
        self.waiting.push(waiting);
        true
    }

    /// Takes all samples out, to be checked again.
    pub(super) fn take(&mut self) -> (Batch, Vec<Waiting>) {
        let Self { batch, waiting, .. } = std::mem::take(self);
        (batch, waiting)
    }

    /// Whether a sample from before `time_ns` waits.
    pub(super) fn has_before(&self, time_ns: u64) -> bool {
        let mut samples = self.batch.samples().iter();
        samples.any(|sample| sample.time_ns < time_ns)
    }

    /// Whether no sample waits.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::mem::offset_of;

    use profiler_bpf::{
        record::{FLAG_STACK_COPIED, SampleHeader},
        settings::STACK_COPY_BYTES_MAX,
    };

    use super::*;
    use crate::sample::testing::{sample_record, stack_record};

    fn batch(time_ns: u64, stack_bytes: usize) -> Batch {
        let mut batch = Batch::default();
        let stack = stack_record(time_ns, &vec![0; stack_bytes]);
        batch.push_record(&stack).unwrap();
        let mut record = sample_record(5, time_ns, &[0x10, 0x20], &[0x99]);
        record[offset_of!(SampleHeader, flags)] = FLAG_STACK_COPIED;
        batch.push_record(&record).unwrap();
        batch
    }

    fn push(unattributed: &mut Unattributed, batch: &Batch) -> bool {
        let waiting = Waiting {
            waits_for: WaitsFor::Process,
            until_ns: 99,
        };
        unattributed.push(batch, &batch.samples()[0], waiting)
    }

    /// Check that a sample keeps its frames, its stack and its time.
    #[test]
    fn samples_come_out_as_they_went_in() {
        let mut unattributed = Unattributed::default();
        assert!(push(&mut unattributed, &batch(10, 16)));
        assert!(unattributed.has_before(11) && !unattributed.has_before(10));
        let (taken, waiting) = unattributed.take();
        assert!(unattributed.is_empty());
        assert_eq!((waiting.len(), waiting[0].until_ns), (1, 99));
        let sample = &taken.samples()[0];
        assert_eq!(taken.user_frames(sample), [0x10, 0x20]);
        assert_eq!(taken.kernel_frames(sample), [0x99]);
        assert_eq!(sample.stack.as_ref().unwrap().len(), 16);
    }

    /// Check that the number of samples and the bytes of their stacks are limited.
    #[test]
    fn samples_and_stacks_are_limited() {
        let mut waiting = Unattributed::default();
        let batch = batch(10, STACK_COPY_BYTES_MAX);
        let taken = (0..2 * SAMPLES_MAX).filter(|_| push(&mut waiting, &batch));
        assert_eq!(taken.count(), SAMPLES_MAX);
        assert!(waiting.stack_bytes <= STACK_BYTES_MAX);
        let (taken, _) = waiting.take();
        let with_stack = taken
            .samples()
            .iter()
            .filter(|sample| sample.stack.is_some());
        assert_eq!(with_stack.count(), STACK_BYTES_MAX / STACK_COPY_BYTES_MAX);
        assert!(push(&mut waiting, &batch));
    }
}
