//! Checks a message and makes a window of it. Pure: the time is an argument.

use std::collections::BTreeMap;

use elf::{BuildId, Layout, SEGMENTS_MAX, Segment};
use model::{
    Account, ContainerAccount, ContainerUsage, LabelSet, PROCESS_LABELS, Window, WindowHead,
    WindowKey,
};
use profile::LABEL_BYTES_MAX;
use proto::v1;
use tracing::debug;

use crate::receive::accounts::check_accounts;
use crate::receive::entries::{check_series_count, check_stack_nodes};
use crate::receive::pprof::{CountedProfile, ProfileContext, UnnamedLocations};
use crate::receive::profile_bytes::ProfileBytes;
use crate::receive::refusal::{Refusal, RefusalReason};
use crate::symbol::collector_uploads::Offer;

/// Largest distance of a window's start in the future: clocks of nodes differ, but a window ten minutes ahead would
/// be invisible to `now-15m` and appear later.
const AHEAD_MS_MAX: i64 = 10 * 60 * 1000;

/// 2020-01-01: a clock before that was never set.
const START_MS_MIN: i64 = 1_577_836_800_000;

/// Windows last 10 s; a minute leaves room for other collectors and for one that was suspended.
const WINDOW_MS_MAX: i64 = 60_000;

/// A host name has at most 253 bytes.
const NODE_BYTES_MAX: usize = 253;

/// Labels a series: Kubernetes pods have 10 to 30, and each costs a posting per block.
const LABELS_MAX: usize = 128;

/// Kinds of outcomes in an account; the collector has about twenty.
const OUTCOMES_MAX: usize = 256;

/// Files in one message: a node that compiles runs some 500 in a window; a collector that has just started sends all
/// of them.
const LAYOUTS_MAX: usize = 4096;

/// Accounts of containers in one message: the collector reads as many; a full node has some 700.
const CONTAINERS_MAX: usize = 8192;

/// Limits from the configuration.
#[derive(Clone, Copy, Debug)]
pub struct CheckLimits {
    /// Bytes of a profile after decompression.
    pub profile_bytes_max: u64,
}

/// A message whose cheap checks are done: all but its profile's entries.
pub struct Checked<'a> {
    key: WindowKey,
    node: &'a str,
    window_ms: i64,
    account: Account,
    series: Vec<LabelSet>,
    containers: Vec<ContainerAccount>,
    profile: CountedProfile<'a>,
}

impl<'a> Checked<'a> {
    /// Checks a message. Takes its label sets out of it.
    ///
    /// `now_ms` is the server's clock in milliseconds since the Unix epoch.
    ///
    /// # Errors
    /// The first mistake, named.
    pub fn new(
        request: &'a mut v1::PushRequest,
        now_ms: i64,
        limits: CheckLimits,
    ) -> Result<Self, Refusal> {
        let key = check_key(request, now_ms)?;
        let series = check_series(std::mem::take(&mut request.series), &request.node)?;
        let containers = check_containers(std::mem::take(&mut request.containers), &request.node)?;
        let request = &*request;
        let account = check_account(request.account.as_ref())?;
        let stated = request.profile_bytes;
        if stated > limits.profile_bytes_max {
            let max = limits.profile_bytes_max;
            let message = format!("profile_bytes is {stated}, and at most {max} are taken");
            return Err(Refusal::new(RefusalReason::TooLarge, message));
        }
        let context = ProfileContext {
            series_count: series.len(),
            window_ms: request.window_ms,
            packed_bytes: request.profile_zstd.len() as u64,
            unnamed: UnnamedLocations {
                ids: &request.unnamed_location_ids,
                reasons: &request.unnamed_reasons,
                function_distances: &request.unnamed_function_distances,
            },
            files: &request.file_layouts,
        };
        let profile = ProfileBytes::new(&request.profile_zstd, stated)?;
        Ok(Self {
            key,
            node: &request.node,
            window_ms: request.window_ms,
            account,
            series,
            containers,
            profile: CountedProfile::new(profile, context)?,
        })
    }

    /// Memory to make the window.
    pub fn memory_bytes(&self) -> u64 {
        self.profile.memory_bytes()
    }

    /// Makes the window.
    ///
    /// # Errors
    /// The first mistake in the profile or the accounts, named.
    pub fn into_window(self) -> Result<Window, Refusal> {
        let content = self.profile.read()?;
        check_stack_nodes(content.tables.stacks.len() as u64)?;
        let head = WindowHead {
            key: self.key,
            node: self.node.to_owned(),
            window_ms: self.window_ms,
            account: self.account,
            profile: content.head,
        };
        let window = Window {
            head,
            series: self.series,
            tables: content.tables,
            rows: content.rows,
            containers: self.containers,
        };
        check_accounts(&window)?;
        Ok(window)
    }
}

/// Checks a message and makes a window of it.
///
/// # Errors
/// As [`Checked::new`] and [`Checked::into_window`].
pub fn check_push(
    mut request: v1::PushRequest,
    now_ms: i64,
    limits: CheckLimits,
) -> Result<Window, Refusal> {
    Checked::new(&mut request, now_ms, limits)?.into_window()
}

/// Checks a collector's instance.
///
/// # Errors
/// It has not 16 bytes.
pub fn check_instance(instance: &[u8]) -> Result<[u8; 16], Refusal> {
    instance.try_into().map_err(|_| {
        let length = instance.len();
        let message = format!("collector_instance has {length} bytes instead of 16");
        Refusal::new(RefusalReason::Identity, message)
    })
}

/// Checks the name of a node.
///
/// # Errors
/// It is empty, too long, or has control characters.
pub fn check_node(node: &str) -> Result<(), Refusal> {
    if node.is_empty() || node.len() > NODE_BYTES_MAX || node.chars().any(char::is_control) {
        let shown = shorten(node);
        let message = format!(
            "node must have 1 to {NODE_BYTES_MAX} bytes without control characters, and is {shown:?}"
        );
        return Err(Refusal::new(RefusalReason::Identity, message));
    }
    Ok(())
}

fn check_key(request: &v1::PushRequest, now_ms: i64) -> Result<WindowKey, Refusal> {
    let instance = check_instance(&request.collector_instance)?;
    let identity = |message: String| Err(Refusal::new(RefusalReason::Identity, message));
    let time = |message: String| Err(Refusal::new(RefusalReason::Time, message));
    if request.sequence == 0 {
        return identity("sequence is 0; the first window has number 1".into());
    }
    check_node(&request.node)?;
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

fn check_series(sets: Vec<v1::LabelSet>, node: &str) -> Result<Vec<LabelSet>, Refusal> {
    check_series_count(sets.len() as u64)?;
    check_label_sets("series", sets, node)
}

fn check_containers(
    accounts: Vec<v1::ContainerAccount>,
    node: &str,
) -> Result<Vec<ContainerAccount>, Refusal> {
    if accounts.len() > CONTAINERS_MAX {
        let message = format!(
            "containers: {} accounts, and at most {CONTAINERS_MAX} are taken",
            accounts.len()
        );
        return Err(Refusal::new(RefusalReason::Account, message));
    }
    let (sets, usages): (Vec<_>, Vec<_>) = accounts
        .into_iter()
        .map(|account| {
            let usage = ContainerUsage {
                kernel_ns: account.kernel_ns,
                throttled_ns: account.throttled_ns,
                unread_ns: account.unread_ns,
                excluded_samples: account.excluded_samples,
            };
            (account.labels.unwrap_or_default(), usage)
        })
        .unzip();
    let sets = check_label_sets("containers", sets, node)?;
    for (at, labels) in sets.iter().enumerate() {
        for name in PROCESS_LABELS {
            if !labels.value(name).is_empty() {
                let message = format!("containers {at}: label {name:?} is of a process");
                return Err(Refusal::new(RefusalReason::Labels, message));
            }
        }
    }
    let accounts = sets.into_iter().zip(usages);
    let accounts = accounts.map(|(labels, usage)| ContainerAccount { labels, usage });
    Ok(accounts.collect())
}

fn check_label_sets(
    field: &str,
    sets: Vec<v1::LabelSet>,
    node: &str,
) -> Result<Vec<LabelSet>, Refusal> {
    let refuse = |at: usize, message: String| {
        Refusal::new(RefusalReason::Labels, format!("{field} {at}: {message}"))
    };
    let mut series = Vec::with_capacity(sets.len());
    for (at, set) in sets.into_iter().enumerate() {
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
        let pairs = set.labels.into_iter();
        let pairs = pairs.map(|label| (label.name, label.value));
        let labels = LabelSet::from_sorted(pairs).map_err(|err| refuse(at, err.to_string()))?;
        let named = labels.value("node");
        if !named.is_empty() && named != node {
            return Err(refuse(
                at,
                format!("label node={named:?} in a message of node {node:?}"),
            ));
        }
        series.push(labels);
    }
    let mut seen = hashbrown::HashSet::with_capacity(series.len());
    for (at, labels) in series.iter().enumerate() {
        if !seen.insert(labels) {
            return Err(refuse(at, format!("{labels} comes twice")));
        }
    }
    drop(seen);
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
        stolen_ns: account.stolen_ns,
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

/// A collector's statements about a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckedFile {
    /// Its build id.
    pub build_id: BuildId,
    /// Its load segments, if the collector has read them.
    pub layout: Option<Layout>,
    /// Content that the collector could send.
    pub offer: Offer,
    /// The collector's id of it, with an offer. It has a build id's form.
    pub file_id: Option<BuildId>,
}

/// Checks statements about files: load segments and offers.
///
/// # Errors
/// The first mistake, named.
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
        let parse = |text: &str| {
            let parsed = text.parse::<BuildId>();
            parsed.map_err(|err| refuse(format!("{id:?}: {err}")))
        };
        let file_id = (!layout.file_id.is_empty()).then(|| parse(&layout.file_id));
        checked.push(CheckedFile {
            build_id: parse(&layout.build_id)?,
            file_id: file_id.transpose()?,
            layout: check_segments(&layout.segments)
                .map_err(|message| refuse(format!("{id}: {message}")))?,
            offer: check_offer(layout.offer),
        });
    }
    Ok(checked)
}

/// Checks the load segments of a file. Segments without bytes, or beyond 2^64, give no layout and no error: the
/// collector only passes on the header of some file.
///
/// # Errors
/// There are too many segments.
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
        debug!("ignored the load segments of a file: one goes beyond 2^64");
    }
    Ok(layout)
}

/// The offer of a collector; `Offer::None` for an unknown one.
pub fn check_offer(offer: i32) -> Offer {
    use v1::SymbolOffer as Wire;
    match Wire::try_from(offer) {
        Ok(Wire::Unknown) => Offer::Unknown,
        Ok(Wire::SymbolTable) => Offer::SymbolTable,
        Ok(Wire::DebugInfo) => Offer::DebugInfo,
        Ok(Wire::None) | Err(_) => Offer::None,
    }
}

/// The beginning of a text that may be long.
fn shorten(text: &str) -> String {
    text.chars().take(64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::receive::grpc::test_push::push_request;
    use model::text::window_at;

    const NOW_MS: i64 = 1_795_312_800_000;
    const LIMITS: CheckLimits = CheckLimits {
        profile_bytes_max: 1 << 20,
    };

    fn valid() -> v1::PushRequest {
        let text = "comm=a | main 0x10+0x2@/bin/app | 3\ncomm=b | main | 1";
        push_request(&window_at(text, NOW_MS - 10_000, 1))
    }

    /// Checks that a change of a valid message is refused with this reason, and a text with these words.
    fn check_refused(
        reason: RefusalReason,
        words: &str,
        change: impl FnOnce(&mut v1::PushRequest),
    ) {
        let mut request = valid();
        change(&mut request);
        let refusal = check_push(request.clone(), NOW_MS, LIMITS).expect_err(words);
        assert_eq!(refusal.reason, reason, "{refusal}");
        assert!(refusal.message.contains(words), "{refusal}");
    }

    fn container(names: &[&str]) -> v1::ContainerAccount {
        v1::ContainerAccount {
            labels: Some(v1::LabelSet {
                labels: names.iter().map(|name| label(name, "a")).collect(),
            }),
            kernel_ns: 7,
            ..Default::default()
        }
    }

    /// Check that accounts of containers are taken with their labels, and that ones that cannot be are refused.
    #[test]
    fn accounts_of_containers() {
        let mut request = valid();
        request.containers = vec![container(&["container_id", "node"]), container(&[])];
        let window = check_push(request, NOW_MS, LIMITS).unwrap();
        let [first, second] = window.containers.as_slice() else {
            panic!("{:?}", window.containers);
        };
        assert_eq!(first.labels.value("container_id"), "a");
        assert_eq!((first.usage.kernel_ns, second.labels.iter().len()), (7, 0));
        for (reason, words, containers) in [
            (
                RefusalReason::Account,
                "8193 accounts, and at most 8192",
                vec![container(&[]); CONTAINERS_MAX + 1],
            ),
            (
                RefusalReason::Labels,
                "containers 1: {node=\"a\"} comes twice",
                vec![container(&["node"]); 2],
            ),
            (
                RefusalReason::Labels,
                "containers 0: label \"comm\" is of a process",
                vec![container(&["comm"])],
            ),
        ] {
            check_refused(reason, words, |request| request.containers = containers);
        }
        check_refused(RefusalReason::Labels, "label node=\"b\"", |request| {
            request.node = "c".into();
            request.series.clear();
            let labels = vec![label("node", "b")];
            request.containers = vec![v1::ContainerAccount {
                labels: Some(v1::LabelSet { labels }),
                ..Default::default()
            }];
        });
    }

    #[test]
    fn function_distances_are_for_all_or_for_none() {
        let mut request = valid();
        request.unnamed_function_distances = Vec::new();
        let window = check_push(request.clone(), NOW_MS, LIMITS).unwrap();
        assert_eq!(distances(&window), [0]);
        request.unnamed_function_distances = vec![3];
        let window = check_push(request.clone(), NOW_MS, LIMITS).unwrap();
        assert_eq!(distances(&window), [3]);
        check_refused(
            RefusalReason::Profile,
            "1 unnamed_location_ids and 2 unnamed_function_distances",
            |request| request.unnamed_function_distances = vec![3, 4],
        );
    }

    fn distances(window: &Window) -> Vec<u32> {
        let unnamed = window
            .tables
            .locations
            .iter()
            .map(|location| location.unnamed);
        let unnamed = unnamed.filter(|unnamed| unnamed.code() != 0);
        unnamed.map(|unnamed| unnamed.function_distance()).collect()
    }

    fn label(name: &str, value: &str) -> v1::Label {
        v1::Label {
            name: name.into(),
            value: value.into(),
        }
    }

    #[test]
    fn a_valid_message_is_taken() {
        let window = check_push(valid(), NOW_MS, LIMITS).unwrap();
        assert_eq!(window.head.node, "a");
        assert_eq!(window.head.key.start_ms, NOW_MS - 10_000);
        assert_eq!(window.rows.len(), 2);
    }

    #[test]
    fn mistakes_are_named() {
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
        check_refused(Compression, "does not decompress", |r| r.profile_bytes -= 1);
        check_refused(Compression, "decompresses to", |r| r.profile_bytes += 1);
        check_refused(Compression, "does not decompress", |r| {
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
            ..Default::default()
        };
        let (text, bss) = (segment(0x1000, 0x2000, 0x300), segment(0x1300, 0x4000, 0));
        let taken = check_layouts(&[
            layout("00FF", &[text, bss]),
            layout("aa", &[bss]),
            layout("bb", &[]),
            // An odd header of one file does not cost the window.
            layout("cc", &[text, segment(0, u64::MAX, 2)]),
            layout("dd", &[segment(u64::MAX, 0, 2)]),
        ]);
        let taken = taken.unwrap();
        let layouts: Vec<_> = taken.iter().map(|file| file.layout.as_ref()).collect();
        assert_eq!(taken[0].build_id.to_string(), "00ff");
        assert_eq!(layouts[0].unwrap().address_of(0x1001), Some(0x2001));
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

    /// Check that an offer of a newer collector is read as none, and is no error.
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
    fn a_frame_that_decompresses_to_more_than_stated_is_refused() {
        let mut request = valid();
        request.profile_zstd = zstd::encode_all(std::io::repeat(0).take(1 << 26), 1)
            .unwrap()
            .into();
        request.profile_bytes = 1 << 10;
        assert_eq!(
            check_push(request.clone(), NOW_MS, LIMITS)
                .unwrap_err()
                .reason,
            RefusalReason::Compression
        );
    }

    use std::io::Read;
}
