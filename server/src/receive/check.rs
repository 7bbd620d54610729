//! From a message to a window, or to the reason why not. Pure: the time comes in as an argument.

use std::collections::BTreeMap;

use proto::v1;
use tracing::debug;

use super::pprof::{UnnamedLocations, read_profile};
use super::refusal::{Refusal, RefusalReason};
use crate::profile::{Account, LabelSet, Window, WindowHead, WindowKey};
use crate::symbol::BuildId;
use crate::symbol::intake::Offer;
use crate::symbol::layout::{Layout, SEGMENTS_MAX, Segment};

/// How far a window may start in the future: clocks of nodes differ, but a window that is ten minutes ahead
/// would be invisible to `now-15m` and come back as a surprise.
const AHEAD_MS_MAX: i64 = 10 * 60 * 1000;

/// 2020-01-01: a clock before that was never set.
const START_MS_MIN: i64 = 1_577_836_800_000;

/// Windows last 10 s; a minute leaves room for other collectors and for one that was suspended.
const WINDOW_MS_MAX: i64 = 60_000;

/// A host name has at most 253 bytes.
const NODE_BYTES_MAX: usize = 253;

/// Labels a series: Kubernetes pods have 10 to 30, and each costs a posting per block.
const LABELS_MAX: usize = 128;

/// Bytes of a label's name or value: a path has at most 4,096.
const LABEL_BYTES_MAX: usize = 4096;

/// Kinds of outcomes in an account; the collector has about twenty.
const OUTCOMES_MAX: usize = 256;

/// Files in one message: a node that compiles runs some 500 in a window; a collector that has just started sends all at once.
const LAYOUTS_MAX: usize = 4096;

/// Limits that the configuration sets.
#[derive(Clone, Copy, Debug)]
pub struct CheckLimits {
    /// Bytes that a profile may have after decompression.
    pub profile_bytes_max: u64,
}

/// Checks a message and makes a window of it.
///
/// `now_ms` is the server's clock in milliseconds since the Unix epoch.
///
/// # Errors
/// The first thing that is wrong, named.
pub fn check_push(
    request: &v1::PushRequest,
    now_ms: i64,
    limits: CheckLimits,
) -> Result<Window, Refusal> {
    let key = check_key(request, now_ms)?;
    let series = check_series(&request.series, &request.node)?;
    let account = check_account(request.account.as_ref())?;
    let bytes = decompress_profile(&request.profile_zstd, request.profile_bytes, limits)?;
    let unnamed = UnnamedLocations {
        ids: &request.unnamed_location_ids,
        reasons: &request.unnamed_reasons,
        function_distances: &request.unnamed_function_distances,
    };
    let content = read_profile(&bytes, series.len(), unnamed)?;
    let head = WindowHead {
        key,
        node: request.node.clone(),
        window_ms: request.window_ms,
        account,
        profile: content.head,
    };
    Ok(Window {
        head,
        series,
        tables: content.tables,
        rows: content.rows,
    })
}

fn check_key(request: &v1::PushRequest, now_ms: i64) -> Result<WindowKey, Refusal> {
    let identity = |message: String| Err(Refusal::new(RefusalReason::Identity, message));
    let time = |message: String| Err(Refusal::new(RefusalReason::Time, message));
    let Ok(instance) = <[u8; 16]>::try_from(request.collector_instance.as_slice()) else {
        let length = request.collector_instance.len();
        return identity(format!(
            "collector_instance has {length} bytes instead of 16"
        ));
    };
    if request.sequence == 0 {
        return identity("sequence is 0; the first window has number 1".into());
    }
    let node = &request.node;
    if node.is_empty() || node.len() > NODE_BYTES_MAX || node.chars().any(char::is_control) {
        return identity(format!(
            "node must have 1 to {NODE_BYTES_MAX} bytes without control characters, and is {:?}",
            shorten(node)
        ));
    }
    let start_ms = request.window_start_ms;
    if start_ms < START_MS_MIN {
        return time(format!(
            "window_start_ms {start_ms} lies before 2020: is the node's clock set?"
        ));
    }
    if start_ms > now_ms.saturating_add(AHEAD_MS_MAX) {
        let ahead_s = (start_ms - now_ms) / 1000;
        return time(format!(
            "window_start_ms {start_ms} lies {ahead_s} s after the server's clock: compare the clocks"
        ));
    }
    if !(1..=WINDOW_MS_MAX).contains(&request.window_ms) {
        return time(format!(
            "window_ms is {}, and must be 1 to {WINDOW_MS_MAX}",
            request.window_ms
        ));
    }
    Ok(WindowKey {
        start_ms,
        instance,
        sequence: request.sequence,
    })
}

fn check_series(sets: &[v1::LabelSet], node: &str) -> Result<Vec<LabelSet>, Refusal> {
    let refuse = |at: usize, message: String| {
        Refusal::new(RefusalReason::Labels, format!("series {at}: {message}"))
    };
    let mut series = Vec::with_capacity(sets.len());
    let mut seen = hashbrown::HashSet::with_capacity(sets.len());
    for (at, set) in sets.iter().enumerate() {
        if set.labels.len() > LABELS_MAX {
            return Err(refuse(
                at,
                format!(
                    "{} labels, and at most {LABELS_MAX} are taken",
                    set.labels.len()
                ),
            ));
        }
        for label in &set.labels {
            if label.name.len() > LABEL_BYTES_MAX || label.value.len() > LABEL_BYTES_MAX {
                let name = shorten(&label.name);
                return Err(refuse(
                    at,
                    format!("label {name:?} is longer than {LABEL_BYTES_MAX} bytes"),
                ));
            }
        }
        let pairs = set
            .labels
            .iter()
            .map(|label| (label.name.as_str(), label.value.as_str()));
        let labels = LabelSet::from_sorted(pairs).map_err(|err| refuse(at, err.to_string()))?;
        let named = labels.value("node");
        if !named.is_empty() && named != node {
            return Err(refuse(
                at,
                format!("label node={named:?} in a message of node {node:?}"),
            ));
        }
        if !seen.insert(labels.clone()) {
            return Err(refuse(at, format!("{labels} comes twice")));
        }
        series.push(labels);
    }
    Ok(series)
}

fn check_account(account: Option<&v1::WindowAccount>) -> Result<Account, Refusal> {
    let Some(account) = account else {
        return Err(Refusal::new(
            RefusalReason::Account,
            "account is missing: without it the balance of the node's samples is not known",
        ));
    };
    Ok(Account {
        entries: account.entries,
        expected: account.expected,
        sampled_ns: account.sampled_ns,
        busy_ns: account.busy_ns,
        collector_cpu_ns: account.collector_cpu_ns,
        bpf_ns: account.bpf_ns,
        outcomes: check_counts("outcomes", &account.outcomes)?,
        dropped: check_counts("dropped", &account.dropped)?,
    })
}

fn check_counts(
    field: &str,
    counts: &[v1::OutcomeCount],
) -> Result<BTreeMap<String, u64>, Refusal> {
    let refuse = |message: String| {
        Err(Refusal::new(
            RefusalReason::Account,
            format!("account.{field}: {message}"),
        ))
    };
    if counts.len() > OUTCOMES_MAX {
        return refuse(format!(
            "{} kinds, and at most {OUTCOMES_MAX} are taken",
            counts.len()
        ));
    }
    let mut checked = BTreeMap::new();
    for count in counts {
        if count.outcome.is_empty() || count.outcome.len() > LABEL_BYTES_MAX {
            return refuse(format!("{:?} is not a name", shorten(&count.outcome)));
        }
        if checked.insert(count.outcome.clone(), count.count).is_some() {
            return refuse(format!("{:?} comes twice", count.outcome));
        }
    }
    Ok(checked)
}

/// What a collector says of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckedFile {
    /// Its build id.
    pub build_id: BuildId,
    /// Where it is loaded, if the collector has read it.
    pub layout: Option<Layout>,
    /// What the collector could send of it.
    pub offer: Offer,
}

/// Checks what is said of files: where they are loaded, and what could be had of them.
///
/// # Errors
/// The first thing that is wrong, named.
pub fn check_layouts(layouts: &[v1::FileLayout]) -> Result<Vec<CheckedFile>, Refusal> {
    let refuse =
        |message: String| Refusal::new(RefusalReason::Layouts, format!("file_layouts: {message}"));
    if layouts.len() > LAYOUTS_MAX {
        return Err(refuse(format!(
            "{} files, and at most {LAYOUTS_MAX} are taken",
            layouts.len()
        )));
    }
    let mut checked = Vec::with_capacity(layouts.len());
    for layout in layouts {
        let id = shorten(&layout.build_id);
        let build_id = layout
            .build_id
            .parse()
            .map_err(|err| refuse(format!("{id:?}: {err}")))?;
        checked.push(CheckedFile {
            build_id,
            layout: check_segments(&layout.segments)
                .map_err(|message| refuse(format!("{id}: {message}")))?,
            offer: check_offer(layout.offer),
        });
    }
    Ok(checked)
}

/// Checks where a file is loaded. One of which no segment has bytes says nothing, and neither does one with a segment that goes
/// beyond 2^64: that is what the header of some file of the node says, for which its collector can do nothing.
///
/// # Errors
/// There are more than a collector sends.
pub fn check_segments(segments: &[v1::Segment]) -> Result<Option<Layout>, String> {
    if segments.len() > SEGMENTS_MAX {
        let count = segments.len();
        return Err(format!(
            "{count} segments, and at most {SEGMENTS_MAX} are taken"
        ));
    }
    let segments: Vec<_> = segments
        .iter()
        .filter(|segment| segment.bytes > 0)
        .map(|segment| Segment {
            file_offset: segment.file_offset,
            address: segment.address,
            bytes: segment.bytes,
        })
        .collect();
    if segments.is_empty() {
        return Ok(None);
    }
    let layout = Layout::new(segments);
    if layout.is_none() {
        debug!("ignored where a file is loaded: a segment goes beyond 2^64");
    }
    Ok(layout)
}

/// What a collector offers; nothing, if it says what this server does not know.
pub fn check_offer(offer: i32) -> Offer {
    use v1::SymbolOffer as Wire;
    match Wire::try_from(offer) {
        Ok(Wire::Unknown) => Offer::Unknown,
        Ok(Wire::SymbolTable) => Offer::SymbolTable,
        Ok(Wire::DebugInfo) => Offer::DebugInfo,
        Ok(Wire::None) | Err(_) => Offer::None,
    }
}

/// Opens the zstd frame with the stated length as the bound, so that a small message cannot unfold beyond it.
fn decompress_profile(zstd: &[u8], stated: u64, limits: CheckLimits) -> Result<Vec<u8>, Refusal> {
    if stated > limits.profile_bytes_max {
        return Err(Refusal::new(
            RefusalReason::TooLarge,
            format!(
                "profile_bytes is {stated}, and at most {} are taken",
                limits.profile_bytes_max
            ),
        ));
    }
    let compression = |message: String| Refusal::new(RefusalReason::Compression, message);
    let bytes = zstd::bulk::decompress(zstd, stated as usize).map_err(|err| {
        compression(format!(
            "profile_zstd does not unfold to {stated} bytes: {err}"
        ))
    })?;
    if bytes.len() as u64 != stated {
        return Err(compression(format!(
            "profile_bytes is {stated}, and profile_zstd unfolds to {}",
            bytes.len()
        )));
    }
    Ok(bytes)
}

/// The beginning of a text that may be long.
fn shorten(text: &str) -> String {
    text.chars().take(64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_MS: i64 = 1_795_312_800_000;
    const LIMITS: CheckLimits = CheckLimits {
        profile_bytes_max: 1 << 20,
    };

    fn valid() -> v1::PushRequest {
        crate::receive::pprof::tests::push_request(NOW_MS - 10_000, 1)
    }

    /// Check that the change of a valid message is refused with this reason and a text that has these words.
    fn check_refused(
        reason: RefusalReason,
        words: &str,
        change: impl FnOnce(&mut v1::PushRequest),
    ) {
        let mut request = valid();
        change(&mut request);
        let refusal = check_push(&request, NOW_MS, LIMITS).expect_err(words);
        assert_eq!(refusal.reason, reason, "{refusal}");
        assert!(refusal.message.contains(words), "{refusal}");
    }

    #[test]
    fn function_distances_are_for_all_or_for_none() {
        let mut request = valid();
        request.unnamed_function_distances = Vec::new();
        let window = check_push(&request, NOW_MS, LIMITS).unwrap();
        assert_eq!(distances(&window), [0]);
        request.unnamed_function_distances = vec![3];
        let window = check_push(&request, NOW_MS, LIMITS).unwrap();
        assert_eq!(distances(&window), [3]);
        check_refused(
            RefusalReason::Profile,
            "1 unnamed_location_ids and 2 unnamed_function_distances",
            |request| request.unnamed_function_distances = vec![3, 4],
        );
    }

    fn distances(window: &Window) -> Vec<u32> {
        let unnamed = window.tables.locations.iter().map(|it| it.unnamed);
        let unnamed = unnamed.filter(|it| it.code() != 0);
        unnamed.map(|it| it.function_distance()).collect()
    }

    fn label(name: &str, value: &str) -> v1::Label {
        v1::Label {
            name: name.into(),
            value: value.into(),
        }
    }

    #[test]
    fn a_valid_message_is_taken() {
        let window = check_push(&valid(), NOW_MS, LIMITS).unwrap();
        assert_eq!(window.head.node, "a");
        assert_eq!(window.head.key.start_ms, NOW_MS - 10_000);
        assert_eq!(window.rows.len(), 2);
    }

    #[test]
    fn what_is_wrong_is_named() {
        use RefusalReason::*;
        check_refused(Identity, "15 bytes instead of 16", |r| {
            r.collector_instance.truncate(15)
        });
        check_refused(Identity, "sequence is 0", |r| r.sequence = 0);
        check_refused(Identity, "node must have", |r| r.node.clear());
        check_refused(Identity, "node must have", |r| r.node = "a\nb".into());
        check_refused(Time, "before 2020", |r| r.window_start_ms = 0);
        check_refused(Time, "before 2020", |r| r.window_start_ms = i64::MIN);
        check_refused(Time, "after the server's clock", |r| {
            r.window_start_ms = NOW_MS + 3_600_000
        });
        check_refused(Time, "after the server's clock", |r| {
            r.window_start_ms = i64::MAX
        });
        check_refused(Time, "window_ms is 0", |r| r.window_ms = 0);
        check_refused(Time, "window_ms is -1", |r| r.window_ms = -1);
        check_refused(Time, "window_ms is 60001", |r| r.window_ms = 60_001);
        check_refused(Labels, "series 0: label name \"0\"", |r| {
            r.series[0].labels = vec![label("0", "x")]
        });
        check_refused(Labels, "empty value", |r| {
            r.series[0].labels = vec![label("a", "")]
        });
        check_refused(Labels, "sorted", |r| {
            r.series[0].labels = vec![label("b", "x"), label("a", "y")]
        });
        check_refused(Labels, "node=\"b\"", |r| {
            r.series[0].labels = vec![label("node", "b")]
        });
        check_refused(Labels, "comes twice", |r| r.series[1] = r.series[0].clone());
        check_refused(Labels, "longer than", |r| {
            r.series[0].labels = vec![label("a", &"x".repeat(5000))]
        });
        check_refused(Labels, "at most 128", |r| {
            r.series[0].labels = vec![label("a", "x"); 129]
        });
        check_refused(Account, "account is missing", |r| r.account = None);
        check_refused(Account, "comes twice", |r| {
            let count = v1::OutcomeCount {
                outcome: "complete".into(),
                count: 1,
            };
            r.account = Some(v1::WindowAccount {
                outcomes: vec![count.clone(), count],
                ..Default::default()
            });
        });
        check_refused(TooLarge, "at most 1048576", |r| r.profile_bytes = 1 << 30);
        check_refused(Compression, "does not unfold", |r| r.profile_bytes -= 1);
        check_refused(Compression, "unfolds to", |r| r.profile_bytes += 1);
        check_refused(Compression, "does not unfold", |r| {
            r.profile_zstd = b"nonsense".to_vec().into()
        });
        check_refused(Profile, "series", |r| r.series.truncate(1));
    }

    #[test]
    fn layouts_are_bounded() {
        let segment = |file_offset, address, bytes| v1::Segment {
            file_offset,
            address,
            bytes,
        };
        let layout = |build_id: &str, segments: &[v1::Segment]| v1::FileLayout {
            build_id: build_id.into(),
            segments: segments.to_vec(),
            offer: 0,
        };
        let (text, bss) = (segment(0x1000, 0x2000, 0x300), segment(0x1300, 0x4000, 0));
        let taken = check_layouts(&[
            layout("00FF", &[text, bss]),
            layout("aa", &[bss]),
            layout("bb", &[]),
            // What an odd header of one file says costs nobody a window.
            layout("cc", &[text, segment(0, u64::MAX, 2)]),
            layout("dd", &[segment(u64::MAX, 0, 2)]),
        ]);
        let taken = taken.unwrap();
        let layouts: Vec<_> = taken.iter().map(|file| file.layout.as_ref()).collect();
        assert_eq!(taken[0].build_id.as_str(), "00ff");
        assert_eq!(layouts[0].unwrap().address(0x1001), Some(0x2001));
        assert_eq!(layouts[1..], [None; 4]);
        for (layouts, words) in [
            (vec![layout("../..", &[text])], "hexadecimal"),
            (vec![layout("", &[text])], "hexadecimal"),
            (vec![layout(&"a".repeat(42), &[text])], "hexadecimal"),
            (vec![layout("aa", &[text; 65])], "at most 64"),
            (vec![layout("aa", &[text]); 4097], "at most 4096"),
        ] {
            let refusal = check_layouts(&layouts).expect_err(words);
            assert_eq!(refusal.reason, RefusalReason::Layouts);
            assert!(refusal.message.contains(words), "{refusal}");
        }
    }

    /// Check that an offer that a newer collector may make is none, and not an error.
    #[test]
    fn offers_are_read() {
        let offers = [0, 1, 2, 3, 4, -1].map(check_offer);
        use Offer::{DebugInfo, SymbolTable, Unknown};
        assert_eq!(
            offers,
            [
                Offer::None,
                Unknown,
                SymbolTable,
                DebugInfo,
                Offer::None,
                Offer::None
            ]
        );
    }

    #[test]
    fn a_frame_that_unfolds_to_more_than_stated_is_refused() {
        let mut request = valid();
        request.profile_zstd = zstd::encode_all(std::io::repeat(0).take(1 << 26), 1)
            .unwrap()
            .into();
        request.profile_bytes = 1 << 10;
        assert_eq!(
            check_push(&request, NOW_MS, LIMITS).unwrap_err().reason,
            RefusalReason::Compression
        );
    }

    use std::io::Read;
}
