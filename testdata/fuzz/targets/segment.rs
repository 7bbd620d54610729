//! Segment files as they are after a crash or on a bad disk.
#![no_main]

use libfuzzer_sys::fuzz_target;
use server::store::record::{decode_labels, decode_tables, decode_totals, read_window};
use server::store::segment::{read_footer, scan_segment};

fuzz_target!(|input: &[u8]| {
    let Some((&kind, input)) = input.split_first() else { return };
    match kind % 6 {
        0 => drop(scan_segment(input)),
        1 => drop(read_footer(input)),
        2 => drop(read_window(input)),
        3 => drop(decode_totals(input)),
        4 => drop(decode_labels(input)),
        _ => drop(decode_tables(input)),
    }
});
