//! A collector's message: any bytes are a window or a refusal, and a window can be stored.
//!
//! Random bytes hardly ever pass zstd's checksum, so besides whole messages the profile inside a good one is drawn.

use model::{Window, text};
use prost::Message as _;
use proto::v1::{Label, LabelSet, PushRequest, WindowAccount};
use segment::{Builder, Effort, LogWriter, Source as _, WindowSet, replay};
use server::receive::pprof::{CountedProfile, ProfileContext, UnnamedLocations};
use server::receive::profile_bytes::ProfileBytes;
use server::receive::grpc::{CheckLimits, check_layouts, check_push};

use crate::of_kind;
use crate::test_push;

const NOW_MS: i64 = 1_795_312_800_000;
const LIMITS: CheckLimits = CheckLimits { profile_bytes_max: 1 << 20 };

pub(crate) fn run(input: &[u8]) {
    let Some((&kind, input)) = input.split_first() else { return };
    let request = match kind % 3 {
        0 => PushRequest::decode(input).ok(),
        1 => Some(wrap_profile(input)),
        _ => Some(PushRequest { unnamed_location_ids: vec![1, 5], unnamed_reasons: vec![4, 1], unnamed_function_distances: vec![9, u32::MAX], ..wrap_profile(input) }),
    };
    if kind % 3 == 1 {
        try_profile(input);
    }
    drop(request.as_ref().map(|request| check_layouts(&request.file_layouts)));
    let Some(window) = request.and_then(|request| check_push(request, NOW_MS, LIMITS).ok()) else { return };
    store_window(&window);
}

/// A window can be added to a block, and the block is read back from its log as it was.
fn store_window(window: &Window) {
    let mut builder = Builder::default();
    builder.add_message(window, Some(window.digest())).expect("the window is small");
    let mut log = Vec::new();
    LogWriter::new(0).encode(&builder, &mut log);
    let read = replay(&log).expect("the log was just written");
    assert!(read.damage.is_empty() && read.torn_bytes == 0);
    let windows = |builder: &Builder| builder.read_whole_windows(&WindowSet::all(1), Effort::ONE).expect("the block is whole");
    let stored = windows(&read.builder);
    assert_eq!(stored, windows(&builder));
    assert_eq!(stored.len(), 1);
    assert_eq!(stored[0].head, window.head);
    let samples = |window: &Window| window.rows.iter().map(|row| u128::from(row.samples)).sum::<u128>();
    assert_eq!(samples(&stored[0]), samples(window));
}

/// A profile that is checked without making tables is read, and one that is refused is refused for the same reason.
fn try_profile(bytes: &[u8]) {
    let context = ProfileContext {
        series_count: 2,
        window_ms: 10_000,
        packed_bytes: bytes.len() as u64,
        unnamed: UnnamedLocations::default(),
        files: &[],
    };
    let Ok(mut counted) = CountedProfile::new(ProfileBytes::Plain(bytes.into()), context) else { return };
    let checked = counted.check();
    assert_eq!(checked.err(), counted.read().err());
}

fn wrap_profile(profile: &[u8]) -> PushRequest {
    let label = |value: &str| Label { name: "comm".to_owned(), value: value.to_owned() };
    PushRequest {
        collector_instance: vec![7; 16],
        sequence: 1,
        node: "fuzz".to_owned(),
        window_start_ms: NOW_MS - 10_000,
        window_ms: 10_000,
        series: ["a", "b"].map(|value| LabelSet { labels: vec![label(value)] }).into(),
        profile_zstd: zstd::bulk::compress(profile, 1).expect("memory is compressed").into(),
        profile_bytes: profile.len() as u64,
        account: Some(WindowAccount::default()),
        ..PushRequest::default()
    }
}

const TEXT: &str = "
    comm=rustc,node=a | main parse>inlined read@[kernel] | 12 | thread=worker
    comm=rustc,node=a | main parse | 3 | thread=worker outcome=truncated
    comm=sort,node=a | main parse | 5
";

/// The last location is without a name: it is the fifth.
const UNNAMED: &str = "\n comm=sort,node=a | main 0x1f@/lib/b.so | 5";

pub(crate) fn make_seeds() -> Vec<Vec<u8>> {
    let request = |text: &str| test_push::push_request(&text::window_at(text, NOW_MS - 10_000, 1));
    let profile = |request: &PushRequest| {
        zstd::bulk::decompress(&request.profile_zstd, request.profile_bytes as usize).expect("it was just compressed")
    };
    let (named, unnamed) = (request(TEXT), request(&format!("{TEXT}{UNNAMED}")));
    vec![
        of_kind(0, &unnamed.encode_to_vec()),
        of_kind(1, &profile(&named)),
        of_kind(2, &profile(&unnamed)),
    ]
}
