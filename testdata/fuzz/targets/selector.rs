//! What a person types: selectors, times, durations.
#![no_main]

use libfuzzer_sys::fuzz_target;
use server::query::selector::parse_selector;
use server::query::time::{parse_duration, parse_time};

fuzz_target!(|input: &str| {
    let _ = parse_selector(input);
    let _ = parse_time(input, 1_795_312_800_000);
    let _ = parse_duration(input);
});
