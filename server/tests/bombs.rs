//! Small messages that would take much memory: they are refused early, and those of a large node are not.

#![allow(clippy::unwrap_used, reason = "a test")]

mod process;
mod running;
#[path = "../src/receive/grpc/test_push.rs"]
mod test_push;

use bytes::BufMut;
use model::text::window_at;
use process::{Process, runtime};
use prost::Message;
use proto::v1;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use server::receive::entries::{PUSH, check_message};
use server::receive::grpc::{CheckLimits, check_push};
use test_push::push_request;
use tonic::Code;

const MIB: usize = 1 << 20;

/// Default limits of a message and its decompressed profile.
const MESSAGE_BYTES_MAX: usize = 32 * MIB;
const PROFILE_BYTES_MAX: usize = 256 * MIB;

/// Bytes of profiles full of small entries and of large ones: decoded as a whole, each would take more than is
/// allowed, and the tests are quick enough without optimization.
const FILLED_BYTES: usize = 8 * MIB;
const LARGE_BYTES: usize = 48 * MIB;

/// Strings of each profile, by number.
const STRINGS: [&str; 8] = [
    "",
    "samples",
    "count",
    "cpu",
    "nanoseconds",
    "series",
    "main",
    "/bin/app",
];

fn number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.put_u8(number as u8 | 0x80);
        number >>= 7;
    }
    out.put_u8(number as u8);
}

fn put(out: &mut Vec<u8>, field: u64, bytes: &[u8]) {
    number(out, field << 3 | 2);
    number(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn numbers(fields: &[(u64, u64)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (field, value) in fields {
        number(&mut out, field << 3);
        number(&mut out, *value);
    }
    out
}

/// A sample of series 0.
fn sample(series: u64, locations: impl IntoIterator<Item = u64>) -> Vec<u8> {
    let (mut out, mut packed) = (Vec::new(), Vec::new());
    for location in locations {
        number(&mut packed, location);
    }
    put(&mut out, 1, &packed);
    put(&mut out, 2, &[1, 1]);
    put(&mut out, 3, &numbers(&[(1, 5), (3, series)]));
    out
}

/// A profile with these samples, and with locations from 1 to `locations`.
fn profile(samples: &[u8], locations: u64) -> Vec<u8> {
    let mut out = samples.to_vec();
    put(&mut out, 1, &numbers(&[(1, 1), (2, 2)]));
    put(&mut out, 1, &numbers(&[(1, 3), (2, 4)]));
    put(&mut out, 3, &numbers(&[(1, 1), (5, 7)]));
    for id in 1..=locations {
        let mut location = numbers(&[(1, id), (2, 1), (3, 16 * id)]);
        put(&mut location, 4, &numbers(&[(1, 1), (2, 3)]));
        put(&mut out, 4, &location);
    }
    put(&mut out, 5, &numbers(&[(1, 1), (2, 6)]));
    for string in STRINGS {
        put(&mut out, 6, string.as_bytes());
    }
    out.extend(numbers(&[(12, 10_000_000)]));
    out
}

fn request(profile: &[u8]) -> v1::PushRequest {
    let start_ms = server::serve::http::routes::now_ms() - 20_000;
    v1::PushRequest {
        profile_zstd: zstd::bulk::compress(profile, 3).unwrap().into(),
        profile_bytes: profile.len() as u64,
        ..push_request(&window_at("comm=a | main | 1", start_ms, 1))
    }
}

fn entry(field: u64, bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    put(&mut out, field, bytes);
    out
}

/// A message whose profile is full of one entry, and ends with another.
fn filled_with(entry: &[u8], end: &[u8]) -> v1::PushRequest {
    let bytes_max = if entry.len() < 1000 {
        FILLED_BYTES
    } else {
        LARGE_BYTES
    };
    let mut bytes = profile(&[], 1);
    bytes.extend(entry.repeat(bytes_max / entry.len()));
    bytes.extend_from_slice(end);
    request(&bytes)
}

/// Different stacks of 4,096 frames, and then one with a missing location.
fn deep() -> v1::PushRequest {
    let mut bytes = Vec::new();
    for at in 0..2_000_u64 {
        let location = |frame: u64| 1 + (at >> (frame % 11) & 1);
        put(&mut bytes, 2, &sample(0, (0..4096).map(location)));
    }
    put(&mut bytes, 2, &sample(0, [9]));
    request(&profile(&bytes, 2))
}

/// Many locations and samples, and then one with a missing series.
fn wide() -> v1::PushRequest {
    let mut bytes = Vec::new();
    (1..=500_000).for_each(|location| put(&mut bytes, 2, &sample(0, [location])));
    put(&mut bytes, 2, &sample(9, [1]));
    request(&profile(&bytes, 500_000))
}

/// A message with many entries outside its profile.
fn with(change: impl FnOnce(&mut v1::PushRequest)) -> v1::PushRequest {
    let mut request = request(&profile(&[], 1));
    change(&mut request);
    request
}

/// A message that must be refused: its many entries, and words of the reason.
struct Bomb(&'static str, &'static str, fn() -> v1::PushRequest);

/// A second function with the same id: the mistake in an otherwise valid profile.
fn twice() -> Vec<u8> {
    entry(5, &numbers(&[(1, 1), (2, 6)]))
}

const BOMBS: [Bomb; 21] = [
    Bomb("samples", "sample: ", || filled_with(&entry(2, &[]), &[])),
    Bomb("mappings", "mapping: ", || filled_with(&entry(3, &[]), &[])),
    Bomb("locations", "location: ", || {
        filled_with(&entry(4, &[]), &[])
    }),
    Bomb("functions", "function: ", || {
        filled_with(&entry(5, &[]), &[])
    }),
    Bomb("strings", "string_table: ", || {
        filled_with(&entry(6, &[]), &[])
    }),
    Bomb("comments", "comment: ", || filled_with(&[13 << 3, 0], &[])),
    Bomb("types", "sample_type: ", || {
        filled_with(&entry(1, &[]), &[])
    }),
    Bomb("lines", "location.line: ", || {
        filled_with(&entry(4, &entry(4, &[]).repeat(1000)), &[])
    }),
    Bomb("labels", "0 values instead of 2", || {
        filled_with(&entry(2, &entry(3, &[]).repeat(100_000)), &[])
    }),
    Bomb("a long string", "an entry of", || {
        filled_with(&entry(6, &vec![b'a'; 47 * MIB]), &[])
    }),
    Bomb("long strings", "comes twice", || {
        filled_with(&entry(6, &[b'a'; 60_000]), &twice())
    }),
    Bomb("a long stack", "an entry of", || {
        filled_with(&entry(2, &entry(1, &vec![1; 47 * MIB])), &[])
    }),
    Bomb("unknown fields", "comes twice", || {
        filled_with(&entry(99, &[]), &twice())
    }),
    Bomb("period types", "beside its tables", || {
        filled_with(&entry(11, &[]), &[])
    }),
    Bomb("deep stacks", "no location 9", deep),
    Bomb("rows", "series 9 of a table of 1", wide),
    Bomb("series", "series has 4194304", || {
        with(|request| request.series = vec![v1::LabelSet::default(); 4 * MIB])
    }),
    Bomb("labels of series", "series.labels has 4194304", || {
        with(|request| request.series[0].labels = vec![v1::Label::default(); 4 * MIB])
    }),
    Bomb("outcomes", "account.outcomes has 4194304", || {
        with(|request| {
            request.account = Some(v1::WindowAccount {
                outcomes: vec![v1::OutcomeCount::default(); 4 * MIB],
                ..Default::default()
            });
        })
    }),
    Bomb("files", "file_layouts has 4194304", || {
        with(|request| request.file_layouts = vec![v1::FileLayout::default(); 4 * MIB])
    }),
    Bomb("ids", "unnamed_location_ids has 8388608", || {
        with(|request| request.unnamed_location_ids = vec![1; 8 * MIB])
    }),
];

/// Check that a refused message takes less than four times its bytes and 64 MiB of memory, for each kind of entries.
#[test]
fn a_refused_message_takes_four_times_its_bytes_and_64_mib_at_most() {
    let folder = tempfile::TempDir::new().unwrap();
    let server = Process::start(folder.path(), &[]).unwrap();
    server.forget_peak().unwrap();
    let idle = server.peak_bytes().unwrap();
    let mut failures = Vec::new();
    for Bomb(name, words, make) in BOMBS {
        let message = make();
        let bytes = message.encoded_len();
        assert!(bytes <= MESSAGE_BYTES_MAX, "{name}: {bytes} bytes");
        server.forget_peak().unwrap();
        let push = async || {
            let mut client = running::connect(server.grpc).await.unwrap();
            client.push(message.clone()).await.unwrap_err()
        };
        // On a busy machine the client may encode the message for longer than the server waits.
        let refused = runtime().block_on(async {
            loop {
                let refused = push().await;
                if !refused.message().contains("came too slowly") {
                    break refused;
                }
            }
        });
        assert_eq!(refused.code(), Code::InvalidArgument, "{name}: {refused}");
        assert!(refused.message().contains(words), "{name}: {refused}");
        let peak = server.peak_bytes().unwrap().saturating_sub(idle);
        let peak_max = (4 * bytes + 64 * MIB) as u64;
        println!("{name}: {bytes} bytes, {peak} of memory, at most {peak_max}");
        if peak > peak_max {
            failures.push(name);
        }
    }
    assert!(failures.is_empty(), "{failures:?}");
}

/// Check that a window of 256 processors with different samples is taken: 100 Hz, 10 s, stacks of 20 frames, ten of
/// them random, 20,000 locations, 5,000 series.
#[test]
fn a_window_of_a_node_of_256_processors_is_taken() {
    const SAMPLES: u64 = 256 * 100 * 10;
    let mut random = StdRng::seed_from_u64(1);
    let mut bytes = Vec::new();
    for at in 0..SAMPLES {
        let thread = at / 50;
        let inner = (0..10)
            .map(|_| random.random_range(1..=20_000))
            .collect::<Vec<_>>();
        let outer = (0..10).map(|frame| 1 + (thread * 31 + frame * 7) % 20_000);
        let locations = inner.into_iter().chain(outer);
        put(&mut bytes, 2, &sample(at % 5_000, locations));
    }
    let mut message = request(&profile(&bytes, 20_000));
    let label = |name: &str, value: String| v1::Label {
        name: name.into(),
        value,
    };
    let names = ["comm", "container", "exe", "namespace", "pod", "workload"];
    message.series = (0..5_000)
        .map(|at| v1::LabelSet {
            labels: names.map(|name| label(name, format!("{name}-{at}"))).into(),
        })
        .collect();
    let wire = message.encode_to_vec();
    assert!(wire.len() <= MESSAGE_BYTES_MAX, "{} bytes", wire.len());
    check_message(&wire, &PUSH).unwrap();
    let limits = CheckLimits {
        profile_bytes_max: PROFILE_BYTES_MAX as u64,
    };
    let window = check_push(message, i64::MAX, limits).unwrap();
    assert_eq!(window.rows.len() as u64, SAMPLES);
}
