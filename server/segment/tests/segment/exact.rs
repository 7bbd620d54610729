//! Windows come back, and answers are those of the reference.

use std::collections::{BTreeMap, BTreeSet};

use fastrand::Rng;
use model::{FunctionNames, LabelSet, SeriesId, Window, WindowKey};
use segment::{
    Builder, Digest, Effort, Section, Segment, Selection, Source, SummedRows, WindowSet,
    WindowSums, WriteOptions,
};

use crate::random;
use crate::reference::{
    Sums, TextRow, assert_same_windows, by_key, describe_stack, describe_tags, rows_of, sum_rows,
};

/// A segment of these windows, in memory.
pub(crate) fn build(windows: &[Window]) -> Segment<Vec<u8>> {
    Segment::open(build_bytes(windows)).unwrap()
}

pub(crate) fn build_bytes(windows: &[Window]) -> Vec<u8> {
    build_bytes_with(windows, random::digest)
}

fn build_bytes_with(windows: &[Window], digest: impl Fn(&Window) -> Option<Digest>) -> Vec<u8> {
    let mut builder = Builder::default();
    for window in windows {
        builder.add_message(window, digest(window)).unwrap();
    }
    let mut bytes = Vec::new();
    builder.write(&WriteOptions::FAST, &mut bytes).unwrap();
    bytes
}

pub(crate) const TWO: Effort<'static> = Effort {
    threads: 2,
    question: None,
};

/// All windows of a segment or block.
pub(crate) fn read_all(source: &dyn Source) -> Vec<Window> {
    let all = WindowSet::all(source.window_count());
    source.read_whole_windows(&all, TWO).unwrap()
}

/// The answer to a question, in the reference's form.
pub(crate) fn ask(
    segment: &Segment<Vec<u8>>,
    selection: &Selection<'_>,
) -> BTreeMap<TextRow, Sums> {
    let mut pairs = segment
        .fold_pairs(selection, TWO, Vec::new, |pairs, pair| pairs.push(*pair))
        .whole()
        .unwrap()
        .concat();
    pairs.sort_by_key(|pair| (pair.series, pair.stack, pair.tags));
    assert!(pairs == segment.sum_pairs(selection, TWO).whole().unwrap());
    let sorted = |mut numbers: Vec<u32>| {
        numbers.sort_unstable();
        numbers.dedup();
        numbers
    };
    let stacks = sorted(pairs.iter().map(|pair| pair.stack).collect());
    let tag_sets = sorted(pairs.iter().map(|pair| pair.tags).collect());
    let read = segment
        .read_stacks(&stacks, &tag_sets, FunctionNames::All, TWO)
        .whole()
        .unwrap();
    let mut rows = BTreeMap::new();
    for pair in pairs {
        let stack = read.stacks[stacks.binary_search(&pair.stack).unwrap()].unwrap();
        let tags = read.tag_sets[tag_sets.binary_search(&pair.tags).unwrap()].unwrap();
        let row = TextRow {
            labels: segment.series_label_set(pair.series),
            stack: describe_stack(&read.tables, stack),
            tags: describe_tags(&read.tables, tags),
        };
        assert!(
            rows.insert(row, (pair.samples, pair.ns)).is_none(),
            "a pair comes twice"
        );
    }
    rows
}

fn describe_rows(segment: &Segment<Vec<u8>>, read: &SummedRows) -> BTreeMap<TextRow, Sums> {
    let rows = read.rows.iter().map(|row| {
        let text = TextRow {
            labels: segment.series_label_set(row.series),
            stack: describe_stack(&read.tables, row.stack),
            tags: describe_tags(&read.tables, row.tags),
        };
        (text, (row.samples, row.ns))
    });
    rows.collect()
}

/// Checks that sums by group are those of their series.
fn assert_groups_add_up(source: &dyn Source, selection: &Selection<'_>) {
    let groups: Vec<u32> = selection.series.iter().map(|series| series % 3).collect();
    let mut expected: BTreeMap<(u32, u32, u32), Sums> = BTreeMap::new();
    for pair in source.sum_pairs(selection, TWO).whole().unwrap() {
        let sums = expected
            .entry((pair.stack, pair.series % 3, pair.tags))
            .or_default();
        *sums = (sums.0 + pair.samples, sums.1 + pair.ns);
    }
    let found = source.sum_groups(selection, &groups, TWO).whole().unwrap();
    let found = found.iter().map(|pair| {
        let key = (pair.stack, pair.series, pair.tags);
        (key, (pair.samples, pair.ns))
    });
    assert!(found.eq(expected));
}

#[test]
fn windows_come_back() {
    let mut random = Rng::with_seed(1);
    for nodes in [0, 1, 3, 4] {
        for count in [0, 1, 2, 30] {
            let windows = random::windows(&mut random, nodes, count);
            let segment = build(&windows);
            assert_same_windows(&read_all(&segment), &windows);
        }
    }
}

/// Check sums by stack, tag set and series, cells and rows of random selections.
#[test]
fn answers_are_those_of_the_reference() {
    let mut random = Rng::with_seed(2);
    let windows = random::windows(&mut random, 3, 40);
    let segment = build(&windows);
    let mut builder = Builder::default();
    for window in &windows {
        builder.add(window).unwrap();
    }
    let all: Vec<u32> = (0..builder.series_count() as u32).collect();
    let selection = Selection {
        series: &all,
        windows: &WindowSet::all(builder.window_count()),
    };
    assert_groups_add_up(&builder, &selection);
    let infos = segment.read_windows().unwrap();
    let starts = segment.read_window_starts().unwrap();
    assert!(
        infos
            .iter()
            .map(|info| info.start_ms())
            .eq(starts.iter().copied())
    );
    for round in 0..30 {
        let program = format!("comm-{}", random.u8(0..5));
        let is_wanted =
            |labels: &model::LabelSet| round % 3 == 0 || labels.value("comm") == program;
        let series = segment.find_series(is_wanted);
        let (from_ms, to_ms) = (random.usize(0..starts.len()), random.usize(0..starts.len()));
        let range = model::TimeRange {
            from_ms: starts[from_ms],
            to_ms: starts[to_ms] + 1,
        };
        let mut is_picked = vec![true; infos.len()];
        if round % 4 == 0 {
            is_picked.fill_with(|| random.bool());
        }
        let is_all = round % 5 == 0;
        let picked: Vec<(i64, bool)> = starts.iter().copied().zip(is_picked).collect();
        let wanted = WindowSet::of(&picked, |(start_ms, is_picked)| {
            is_all || *is_picked && range.contains(*start_ms)
        });
        let selection = Selection {
            series: &series,
            windows: &wanted,
        };

        let number = |window: &Window| {
            infos
                .iter()
                .position(|info| info.key() == window.head.key)
                .unwrap() as u32
        };
        let expected = windows
            .iter()
            .filter(|window| wanted.contains(number(window)));
        let mut expected_rows = sum_rows(expected.clone());
        expected_rows.retain(|row, sums| is_wanted(&row.labels) && *sums != (0, 0));
        assert!(ask(&segment, &selection) == expected_rows, "round {round}");

        let rows = segment.read_summed_rows(&selection, FunctionNames::All, TWO);
        assert!(describe_rows(&segment, &rows.whole().unwrap()) == expected_rows);
        assert_groups_add_up(&segment, &selection);

        let mut sums: Sums = (0, 0);
        for sum in segment.sum_stacks(&selection, TWO).whole().unwrap() {
            sums = (sums.0 + sum.samples, sums.1 + sum.ns);
        }
        let add = |sums: Sums, own: &Sums| (sums.0 + own.0, sums.1 + own.1);
        assert_eq!(sums, expected_rows.values().fold((0, 0), add));

        let mut cells = BTreeMap::new();
        let read = segment.read_cells(&selection, |series, of_series| {
            for cell in of_series {
                cells.insert(
                    (cell.window, segment.series_label_set(series)),
                    (cell.samples, cell.ns),
                );
            }
        });
        read.whole().unwrap();
        let mut expected_cells: BTreeMap<_, Sums> = BTreeMap::new();
        for window in expected {
            for labels in window.series.iter().filter(|labels| is_wanted(labels)) {
                expected_cells.insert((number(window), labels.clone()), (0, 0));
            }
            for (row, sums) in rows_of(window)
                .iter()
                .filter(|(row, _)| is_wanted(&row.labels))
            {
                let cell = expected_cells
                    .get_mut(&(number(window), row.labels.clone()))
                    .unwrap();
                *cell = add(*cell, sums);
            }
        }
        assert!(cells == expected_cells, "round {round}");
    }
}

/// Check heads, sums and accounts of containers, of all series and of one.
#[test]
fn sums_of_windows_are_those_of_the_reference() {
    let mut random = Rng::with_seed(4);
    let windows = random::windows(&mut random, 3, 20);
    let segment = build(&windows);
    let starts = segment.read_window_starts().unwrap();
    let range = model::TimeRange {
        from_ms: starts[starts.len() / 4],
        to_ms: starts[starts.len() / 2],
    };
    for (program, range) in [
        (
            None,
            model::TimeRange {
                from_ms: i64::MIN,
                to_ms: i64::MAX,
            },
        ),
        (None, range),
        (Some("comm-1"), range),
        (Some("none"), range),
    ] {
        let is_wanted =
            |labels: &LabelSet| program.is_none_or(|program| labels.value("comm") == program);
        let series = segment.find_series(is_wanted);
        let selection = Selection {
            series: &series,
            windows: &WindowSet::in_range(&starts, range),
        };
        let sums = segment.read_window_sums(&selection).unwrap();
        let sums = sums.whole().unwrap();
        let wanted = |window: &&Window| range.contains(window.head.key.start_ms);
        let expected: Vec<&Window> = by_key(&windows).into_values().filter(wanted).collect();
        let heads = expected.iter().map(|window| window.head.clone());
        assert!(sums.iter().map(WindowSums::head).eq(heads));

        // Any numbers of the store's do.
        let store_id = |number: u32| SeriesId(u64::from(7 * number + 5));
        let ids: Vec<SeriesId> = (0..segment.series_count() as u32).map(store_id).collect();
        let labels = segment.read_containers().unwrap();
        let containers: Vec<SeriesId> = (0..labels.len() as u32).map(store_id).collect();
        for (sums, window) in sums.iter().zip(expected) {
            let totals = sums.to_totals(&ids, &containers);
            assert_eq!(totals.head, window.head);
            let mut expected: BTreeMap<LabelSet, Sums> = BTreeMap::new();
            for labels in window.series.iter().filter(|labels| is_wanted(labels)) {
                expected.insert(labels.clone(), (0, 0));
            }
            for (row, sums) in rows_of(window) {
                if let Some(sum) = expected.get_mut(&row.labels) {
                    *sum = (sum.0 + sums.0, sum.1 + sums.1);
                }
            }
            let found = totals.series.iter().zip(&totals.samples).zip(&totals.ns);
            let found = found.map(|((id, samples), ns)| {
                (
                    segment.series_label_set((id.0 as u32 - 5) / 7),
                    (*samples, *ns),
                )
            });
            assert_eq!(found.collect::<BTreeMap<_, _>>(), expected);
            let usage = totals.containers.iter();
            let usage = usage.map(|(id, usage)| (&labels[((id.0 - 5) / 7) as usize], *usage));
            let expected = window.containers.iter();
            let expected = expected.map(|container| (&container.labels, container.usage));
            assert_eq!(usage.collect::<BTreeMap<_, _>>(), expected.collect());
        }
    }
}

/// Check that each message is there once, with the digest that it was added with.
#[test]
fn messages_come_back() {
    let mut random = Rng::with_seed(5);
    let windows = random::windows(&mut random, 3, 20);
    for has_digest in [
        |_: u64| false,
        |number: u64| !number.is_multiple_of(3),
        |_| true,
    ] {
        let digest = |window: &Window| {
            random::digest(window).filter(|_| has_digest(window.head.key.sequence))
        };
        let segment = Segment::open(build_bytes_with(&windows, digest)).unwrap();
        let messages = segment.read_messages().unwrap().whole().unwrap();
        let found = messages.iter().map(|message| {
            let key = WindowKey {
                start_ms: message.message.start_ms,
                instance: message.instance,
                sequence: message.message.sequence,
            };
            (key, message.digest)
        });
        let expected = by_key(&windows).into_iter();
        let expected = expected.map(|(key, window)| (key, digest(window)));
        assert_eq!(found.collect::<BTreeMap<_, _>>(), expected.collect());
        assert_eq!(messages.len(), windows.len());
        assert!(
            messages
                .iter()
                .all(|message| message.message.window_ms == random::WINDOW_MS)
        );
    }
}

/// Check that what arrives first makes no difference, and that the footer's counts are right.
#[test]
fn equal_windows_make_equal_bytes() {
    let mut random = Rng::with_seed(3);
    let mut windows = random::windows(&mut random, 2, 20);
    let bytes = build_bytes(&windows);
    random.shuffle(&mut windows);
    assert!(build_bytes(&windows) == bytes);

    let segment = Segment::open(bytes).unwrap();
    let summary = *segment.summary();
    let rows: usize = windows.iter().map(|window| rows_of(window).len()).sum();
    let samples: u64 = windows
        .iter()
        .flat_map(|window| &window.rows)
        .map(|row| row.samples)
        .sum();
    assert_eq!((summary.rows, summary.samples), (rows as u64, samples));
    assert_eq!(summary.messages, windows.len() as u64);
    assert_eq!((summary.level, summary.part, summary.parts), (0, 0, 1));
    let nodes = windows.iter().map(|window| &window.head.node);
    assert_eq!(summary.nodes, nodes.collect::<BTreeSet<_>>().len() as u64);
    let start = windows.iter().map(|window| window.head.key.start_ms).min();
    assert_eq!(Some(summary.from_ms), start);
    let sections = Section::ALL.map(|section| segment.section(section).1);
    assert!(sections.iter().sum::<u64>() < segment.file_bytes());
}
