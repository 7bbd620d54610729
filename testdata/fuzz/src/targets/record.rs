//! Records of the kernel side's ring: any bytes are decoded or refused, and what was decoded can be read.

use collector::sample::Batch;
use profiler_bpf::record::{FLAG_USER_LEAF_EXACT, HEADER_BYTES, KIND_SAMPLE, KIND_STACK};

use crate::of_kind;

/// The input is a series of records, each behind one byte for each 8 of its length.
pub(crate) fn run(input: &[u8]) {
    let mut batch = Batch::default();
    let mut rest = input;
    let mut decoded = 0;
    while let Some((&eighths, after)) = rest.split_first() {
        let length = (usize::from(eighths) * 8).min(after.len());
        let (record, after) = after.split_at(length);
        // A copied stack is kept for the sample that follows it.
        let is_sample = record.first() != Some(&KIND_STACK);
        decoded += usize::from(batch.push_record(record).is_ok() && is_sample);
        rest = after;
    }
    batch.sort_by_time();
    assert_eq!(batch.samples().len(), decoded);
    let middle = batch.samples().get(decoded / 2).map_or(0, |sample| sample.time_ns);
    let young = batch.split_after(middle);
    assert_eq!(batch.samples().len() + young.samples().len(), decoded);
    for batch in [&batch, &young] {
        for sample in batch.samples() {
            let frames = batch.user_frames(sample).len() + batch.kernel_frames(sample).len();
            assert!(frames * 8 <= input.len());
        }
    }
}

/// One record of each small outcome, and two in one input, the younger first.
pub(crate) fn make_seeds() -> Vec<Vec<u8>> {
    let mut seeds: Vec<_> = (0..4).map(|outcome| make_record(outcome, 100, [3, 2])).collect();
    seeds.push([make_record(1, 200, [1, 0]), make_record(1, 100, [0, 4])].concat());
    seeds
}

fn make_record(outcome: u8, time_ns: u64, frames: [u16; 2]) -> Vec<u8> {
    let [user, kernel] = frames;
    let mut record = vec![0; HEADER_BYTES];
    record[..3].copy_from_slice(&[KIND_SAMPLE, outcome, FLAG_USER_LEAF_EXACT]);
    record[8..16].copy_from_slice(&time_ns.to_le_bytes());
    record[40..44].copy_from_slice(b"fuzz");
    for (at, number) in [(56, user), (58, kernel), (60, user), (62, user)] {
        record[at..at + 2].copy_from_slice(&number.to_le_bytes());
    }
    record.extend((0..u64::from(user + kernel)).flat_map(|frame| (0x40_1000 + frame).to_le_bytes()));
    of_kind((record.len() / 8) as u8, &record)
}
