//! Merged segments are those that are built of all windows at once, and roll-ups lose nothing but the time.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::rc::Rc;

use fastrand::Rng;
use model::{ContainerUsage, LabelSet, Window, text};
use segment::{
    MergeOptions, Section, Segment, Selection, Source, WindowInfo, WindowSet, WriteOptions, merge,
};

use crate::exact::{TWO, build, build_bytes, read_all};
use crate::random;
use crate::reference::{assert_same_windows, rows_of, sum_rows};

/// A file in memory that can be read when the merge has written it.
#[derive(Clone, Default)]
struct Shared(Rc<RefCell<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.borrow_mut().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

pub(crate) const OPTIONS: MergeOptions = MergeOptions {
    write: WriteOptions::FAST,
    resolution_ms: None,
    nodes_max: usize::MAX,
};

pub(crate) fn merge_all(inputs: &[Segment<Vec<u8>>], options: &MergeOptions) -> Vec<Vec<u8>> {
    let mut outputs: Vec<Shared> = Vec::new();
    let create = || {
        outputs.push(Shared::default());
        Ok(outputs[outputs.len() - 1].clone())
    };
    let inputs: Vec<_> = inputs.iter().collect();
    let summaries = merge(&inputs, options, create).unwrap();
    let outputs: Vec<Vec<u8>> = outputs.iter().map(|output| output.0.take()).collect();
    for (bytes, summary) in outputs.iter().zip(&summaries) {
        let output = Segment::open(&bytes[..]).unwrap();
        assert_eq!(output.summary(), summary);
        assert_eq!(output.verify(TWO), []);
    }
    outputs
}

/// Segments of the same windows, each in one of them.
pub(crate) fn build_parts(
    random: &mut Rng,
    windows: &[Window],
    parts: usize,
) -> Vec<Segment<Vec<u8>>> {
    let mut by_part = vec![Vec::new(); parts];
    for window in windows {
        by_part[random.usize(0..parts)].push(window.clone());
    }
    by_part.iter().map(|windows| build(windows)).collect()
}

#[test]
fn a_merge_is_the_segment_of_all_windows() {
    let mut random = Rng::with_seed(11);
    for parts in [0, 1, 2, 5] {
        let windows = match parts {
            0 => Vec::new(),
            _ => random::windows(&mut random, 3, 12),
        };
        let inputs = build_parts(&mut random, &windows, parts);
        let merged = merge_all(&inputs, &OPTIONS);
        assert_eq!(merged.len(), 1);
        assert!(merged[0] == build_bytes(&windows), "{parts} parts");
    }
}

/// Check that outputs end between programs, have everything once, and make one segment again.
#[test]
fn a_large_merge_is_split_by_program() {
    let mut random = Rng::with_seed(12);
    let windows = random::windows(&mut random, 3, 12);
    let inputs = build_parts(&mut random, &windows, 3);
    let nodes = build(&windows).section(Section::Tree).0;
    for nodes_max in [nodes * 2 / 3, nodes / 3, 1] {
        let parts = merge_all(
            &inputs,
            &MergeOptions {
                nodes_max,
                ..OPTIONS
            },
        );
        let parts: Vec<_> = parts
            .into_iter()
            .map(|bytes| Segment::open(bytes).unwrap())
            .collect();
        assert!(parts.len() > 1);
        let mut all = BTreeMap::new();
        let mut programs = Vec::new();
        for (number, part) in parts.iter().enumerate() {
            assert!(part.section(Section::Tree).0 <= nodes_max || part.series_count() == 1);
            assert_eq!(part.has_accounts(), number == 0);
            let summary = part.summary();
            assert_eq!(
                (summary.part as usize, summary.parts as usize),
                (number, parts.len())
            );
            assert_eq!(part.window_count(), windows.len());
            for (row, sums) in sum_rows(read_all(part).iter()) {
                assert!(all.insert(row, sums).is_none());
            }
            let program = |series| part.series_label_set(series).value("comm").to_owned();
            let mut own: Vec<_> = (0..part.series_count() as u32).map(program).collect();
            own.dedup();
            programs.extend(own);
        }
        assert!(all == sum_rows(windows.iter()));
        if nodes_max > nodes / 2 {
            // A program of each of two namespaces.
            let count = programs.len();
            programs.sort_unstable();
            programs.dedup();
            assert_eq!(programs.len(), count, "a program is in two parts");
        }
        let again = merge_all(&parts, &OPTIONS);
        assert!(again[0] == build_bytes(&windows));
    }
}

#[test]
fn a_roll_up_adds_up_the_windows_of_a_collector() {
    let mut random = Rng::with_seed(13);
    let windows = random::windows(&mut random, 4, 20);
    let resolution_ms = 60_000;
    let options = MergeOptions {
        resolution_ms: Some(resolution_ms),
        ..OPTIONS
    };
    let inputs = build_parts(&mut random, &windows, 3);
    let merged = merge_all(&inputs, &options);
    let segment = Segment::open(merged[0].clone()).unwrap();
    assert_eq!(segment.summary().resolution_ms, resolution_ms);

    let group_of = |window: &Window| {
        let key = window.head.key;
        // The other collector of the node started 3 ms later, and two of its windows cover this one.
        let has_other = |start_ms: i64| {
            windows.iter().any(|other| {
                other.head.node == window.head.node && other.head.key.start_ms == start_ms
            })
        };
        let later_ms = key.start_ms + 3;
        (
            key.start_ms.div_euclid(resolution_ms as i64),
            key.instance,
            has_other(later_ms) && has_other(later_ms - random::WINDOW_MS),
        )
    };
    let mut groups: BTreeMap<_, Vec<Window>> = BTreeMap::new();
    for window in &windows {
        groups
            .entry(group_of(window))
            .or_default()
            .push(window.clone());
    }
    assert!(groups.keys().any(|group| group.2) && !groups.keys().all(|group| group.2));
    let messages = segment.read_messages().unwrap().whole().unwrap();
    let mut digests = messages.iter().map(|message| message.digest);
    let rolled = read_all(&segment);
    let infos = segment.read_windows().unwrap();
    assert_eq!(rolled.len(), groups.len());
    for (window, info) in rolled.iter().zip(&infos) {
        let first = windows
            .iter()
            .find(|first| first.head.key == window.head.key);
        let expected = &groups[&group_of(first.unwrap())];
        assert!(rows_of(window) == sum_rows(expected.iter()));
        let mut keys: Vec<_> = expected.iter().map(|window| window.head.key).collect();
        keys.sort_unstable();
        assert!(
            info.messages
                .iter()
                .map(|message| (message.start_ms, message.sequence))
                .eq(keys.iter().map(|key| (key.start_ms, key.sequence)))
        );
        let mut by_key: Vec<&Window> = expected.iter().collect();
        by_key.sort_by_key(|window| window.head.key);
        for window in by_key {
            assert_eq!(digests.next(), Some(random::digest(window)));
        }
        let entries = expected.iter().map(|window| window.head.account.entries);
        assert_eq!(
            window.head.account.entries,
            entries.fold(0, u64::saturating_add)
        );
        assert_eq!(usage_of(std::slice::from_ref(window)), usage_of(expected));
        assert_eq!(
            window.head.window_ms,
            expected
                .iter()
                .map(|window| window.head.key.start_ms)
                .max()
                .unwrap()
                + random::WINDOW_MS
                - keys[0].start_ms
        );
    }

    // In two steps, and of parts that are rolled up already, it is the same.
    let half = MergeOptions {
        resolution_ms: Some(20_000),
        ..OPTIONS
    };
    let middle_ms = windows[0].head.key.start_ms.div_euclid(20_000) * 20_000;
    let (before, after): (Vec<Window>, Vec<Window>) = windows
        .iter()
        .cloned()
        .partition(|window| window.head.key.start_ms < middle_ms);
    let step = [before, after].map(|windows| {
        let inputs = build_parts(&mut random, &windows, 2);
        Segment::open(merge_all(&inputs, &half).remove(0)).unwrap()
    });
    assert!(merge_all(&step, &options) == merged);
}

/// Check that windows of two collectors on one node stay apart, that a window belongs to the stretch that it starts in whatever its
/// length, and that gaps and covered time are known after a roll-up.
#[test]
fn rolled_up_windows_tell_what_they_stand_for() {
    // Start and length in seconds, and sequence; 4 never came.
    let first = [
        (0, 10, 1),
        (10, 10, 2),
        (20, 10, 3),
        (40, 10, 5),
        (50, 10, 6),
    ];
    let later = [(55, 25, 7), (80, 60, 8), (140, 300, 9)];
    let second = [(35, 10, 1), (45, 10, 2)];
    let window = |instance: u8, (start_s, length_s, sequence): (i64, i64, u64)| {
        let lines = "comm=a | main work | 2";
        let mut window = text::window_at(lines, 1000 * start_s, sequence);
        window.head.key.instance = [instance; 16];
        window.head.window_ms = 1000 * length_s;
        window.head.account.entries = 2;
        window.head.account.dropped = [("ring".to_owned(), 1)].into();
        window
    };
    let mut windows: Vec<Window> = Vec::new();
    windows.extend(
        first
            .iter()
            .chain(&later)
            .map(|message| window(1, *message)),
    );
    windows.extend(second.iter().map(|message| window(2, *message)));

    // Instance, start, messages, span, covered time. The window of the first collector whose time the second has is apart; that of which it
    // has the first half is not.
    let minutes = [
        (1, 0, 5, 80, 60),
        (2, 35, 2, 20, 20),
        (1, 40, 1, 10, 10),
        (1, 80, 1, 60, 60),
        (1, 140, 1, 300, 300),
    ];
    let ten_minutes = [(1, 0, 7, 440, 420), (2, 35, 2, 20, 20), (1, 40, 1, 10, 10)];
    let all = [build(&windows)];
    let minute = roll_up(&all, 60_000, &minutes);
    roll_up(&[minute], 600_000, &ten_minutes);
    roll_up(&all, 600_000, &ten_minutes);
}

/// Rolls up, and checks the windows.
fn roll_up(
    inputs: &[Segment<Vec<u8>>],
    resolution_ms: u64,
    expected: &[(u8, i64, u64, i64, i64)],
) -> Segment<Vec<u8>> {
    let options = MergeOptions {
        resolution_ms: Some(resolution_ms),
        ..OPTIONS
    };
    let segment = Segment::open(merge_all(inputs, &options).remove(0)).unwrap();
    let series = segment.find_series(|_| true);
    let selection = Selection {
        series: &series,
        windows: &WindowSet::all(segment.window_count()),
    };
    let windows = segment
        .read_window_sums(&selection)
        .unwrap()
        .whole()
        .unwrap();
    let mut sequences: BTreeMap<u8, BTreeSet<u64>> = BTreeMap::new();
    let found = windows.iter().map(|window| {
        let WindowInfo {
            instance, messages, ..
        } = &window.info;
        let count = messages.len() as u64;
        sequences
            .entry(instance[0])
            .or_default()
            .extend(messages.iter().map(|message| message.sequence));
        let head = window.head();
        assert_eq!(head.account.entries, 2 * count);
        assert_eq!(head.account.dropped["ring"], count);
        assert_eq!(window.series[0].samples, 2 * count);
        let covered_s = window.info.covered_ms() / 1000;
        let start_s = head.key.start_ms / 1000;
        let span_s = head.window_ms / 1000;
        (instance[0], start_s, count, span_s, covered_s)
    });
    assert_eq!(found.collect::<Vec<_>>(), expected);
    let missing = |sequences: &BTreeSet<u64>| {
        sequences.last().unwrap() - sequences.first().unwrap() + 1 - sequences.len() as u64
    };
    let missing: Vec<u64> = sequences.values().map(missing).collect();
    assert_eq!(missing, [1, 0]);
    segment
}

fn usage_of(windows: &[Window]) -> BTreeMap<LabelSet, (u64, u64, u64)> {
    let mut sums = BTreeMap::new();
    for container in windows.iter().flat_map(|window| &window.containers) {
        let ContainerUsage {
            kernel_ns,
            throttled_ns,
            unread_ns: _,
            excluded_samples,
        } = container.usage;
        let sum: &mut (u64, u64, u64) = sums.entry(container.labels.clone()).or_default();
        *sum = (
            sum.0 + kernel_ns,
            sum.1 + throttled_ns,
            sum.2 + excluded_samples,
        );
    }
    sums
}

/// Check that a merge reads its inputs to the end, and does not go on without a part of them.
#[test]
fn a_damaged_input_is_named() {
    let mut random = Rng::with_seed(14);
    let windows = random::windows(&mut random, 2, 5);
    let inputs = build_parts(&mut random, &windows, 2);
    assert_same_windows(&read_all(&inputs[0]), &read_all(&inputs[0]));
    let whole = build_bytes(&windows);
    for at in (8..whole.len() - 2000).step_by(97) {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        let Ok(damaged) = Segment::open(bytes) else {
            continue;
        };
        let inputs = [build(&windows[..1]), damaged];
        let error = merge(&[&inputs[0], &inputs[1]], &OPTIONS, || Ok(Vec::new())).unwrap_err();
        assert!(error.to_string().starts_with("input 1: chunk "), "{error}");
    }
}
