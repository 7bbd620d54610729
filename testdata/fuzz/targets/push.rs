//! A collector's message: any bytes are a window or a refusal.
//!
//! Random bytes hardly ever pass zstd's checksum, so besides whole messages the profile inside a good one is drawn.
#![no_main]

use libfuzzer_sys::fuzz_target;
use prost::Message as _;
use proto::v1::{Label, LabelSet, PushRequest, WindowAccount};
use server::receive::{CheckLimits, check_push};

const NOW_MS: i64 = 1_795_312_800_000;
const LIMITS: CheckLimits = CheckLimits { profile_bytes_max: 1 << 20 };

fuzz_target!(|input: &[u8]| {
    let Some((&kind, input)) = input.split_first() else { return };
    let request = match kind % 2 {
        0 => PushRequest::decode(input).ok(),
        _ => Some(wrap_profile(input)),
    };
    if let Some(request) = request {
        let _ = check_push(&request, NOW_MS, LIMITS);
    }
});

fn wrap_profile(profile: &[u8]) -> PushRequest {
    let label = Label { name: "comm".to_owned(), value: "fuzz".to_owned() };
    PushRequest {
        collector_instance: vec![7; 16],
        sequence: 1,
        node: "fuzz".to_owned(),
        window_start_ms: NOW_MS - 10_000,
        window_ms: 10_000,
        series: vec![LabelSet { labels: vec![label] }],
        profile_zstd: zstd::bulk::compress(profile, 1).expect("memory is compressed"),
        profile_bytes: profile.len() as u64,
        account: Some(WindowAccount::default()),
        ..PushRequest::default()
    }
}
