//! Selectors, times and durations of a query.
#![no_main]

mod seeds;

use libfuzzer_sys::fuzz_target;
use query::selector::parse_selector;
use query::time::{parse_duration, parse_time};

fuzz_target!(init: seeds::write_seeds(SEEDS.map(Vec::from)), |input: &str| {
    let _ = parse_selector(input);
    let _ = parse_time(input, 1_795_312_800_000);
    let _ = parse_duration(input);
});

const SEEDS: [&str; 9] = [
    r#"{namespace="shop", pod=~"cart-.*"}"#,
    r#"{comm!="rustc",exe!~"(?i)^/usr/(bin|lib)/[a-z]{2,5}$",}"#,
    r#"{comm="a\"b\\c\n\u00e9"}"#,
    "{}",
    "now-1h30m",
    "2026-11-24T01:02:03.004+01:00",
    "1795312800000",
    "1795312800.5",
    "1d12h5m10s250ms",
];
