//! Records of the kernel side's ring: any bytes are decoded or refused, and what was decoded can be read.
#![no_main]

use collector::sample::Batch;
use libfuzzer_sys::fuzz_target;

// The input is a series of records, each behind one byte for each 8 of its length.
fuzz_target!(|input: &[u8]| {
    let mut batch = Batch::default();
    let mut rest = input;
    let mut decoded = 0;
    while let Some((&eighths, after)) = rest.split_first() {
        let length = (usize::from(eighths) * 8).min(after.len());
        let (record, after) = after.split_at(length);
        decoded += usize::from(batch.push_record(record).is_ok());
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
});
