//! Selectors, times and durations of a query.

use query::selector::parse_selector;
use query::time::{parse_duration, parse_time};

pub(crate) fn run(input: &[u8]) {
    let Ok(input) = std::str::from_utf8(input) else { return };
    let _ = parse_selector(input);
    let _ = parse_time(input, 1_795_312_800_000);
    let _ = parse_duration(input);
}

pub(crate) fn make_seeds() -> Vec<Vec<u8>> {
    SEEDS.map(Vec::from).into()
}

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
