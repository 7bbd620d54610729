//! An open block has the answers of the reference, and those of the segment that it is written as.

use std::collections::BTreeMap;

use fastrand::Rng;
use model::{FunctionNames, LabelSet, Window, text};
use segment::{Builder, Effort, Selection, Source, StackSum, WindowSet, WriteOptions};

use crate::exact::{TWO, build, read_all};
use crate::random;
use crate::reference::{
    Sums, TextRow, assert_same_windows, describe_stack, describe_tags, sum_rows,
};

pub(crate) fn add_all(windows: &[Window]) -> Builder {
    let mut builder = Builder::default();
    for window in windows {
        builder.add(window).unwrap();
    }
    builder
}

/// The sums of a selection, in the reference's form.
fn ask(source: &dyn Source, selection: &Selection<'_>) -> BTreeMap<TextRow, Sums> {
    let read = source
        .read_summed_rows(selection, FunctionNames::All, TWO)
        .whole()
        .unwrap();
    let mut rows = BTreeMap::new();
    for row in read.rows {
        let text = TextRow {
            labels: source.series_label_set(row.series),
            stack: describe_stack(&read.tables, row.stack),
            tags: describe_tags(&read.tables, row.tags),
        };
        let before = rows.insert(text, (row.samples, row.ns));
        assert!(before.is_none(), "a pair comes twice");
    }
    rows
}

/// The sums by stack of a selection, with the stack as text.
fn ask_stacks(source: &dyn Source, selection: &Selection<'_>) -> BTreeMap<String, Sums> {
    let sums: Vec<StackSum> = source.sum_stacks(selection, TWO).whole().unwrap();
    let stacks: Vec<u32> = sums.iter().map(|sum| sum.stack).collect();
    let read = source.read_stacks(&stacks, &[], FunctionNames::All, Effort::ONE);
    let read = read.whole().unwrap();
    let stacks = sums.iter().zip(read.stacks).map(|(sum, stack)| {
        let text = describe_stack(&read.tables, stack.unwrap());
        (text, (sum.samples, sum.ns))
    });
    stacks.collect()
}

/// The sums of each selected window as text.
fn ask_windows(source: &dyn Source, selection: &Selection<'_>) -> Vec<String> {
    let containers = source.read_containers().unwrap();
    let sums = source.read_window_sums(selection).unwrap().whole().unwrap();
    let describe = |window: segment::WindowSums| {
        let series = window.series.iter();
        let series = series.map(|sum| (source.series_label_set(sum.series), sum.samples, sum.ns));
        let mut series: Vec<_> = series.collect();
        series.sort();
        let usage = window.containers.iter();
        let usage = usage.map(|(container, usage)| (&containers[*container as usize], *usage));
        let mut usage: Vec<_> = usage.collect();
        usage.sort_by_key(|(labels, _)| (*labels).clone());
        format!(
            "{:?} {:?} {series:?} {usage:?}",
            window.info, window.account
        )
    };
    let mut windows: Vec<String> = sums.into_iter().map(describe).collect();
    windows.sort();
    windows
}

/// Check a growing block by random selections, each of windows that were there some windows before.
#[test]
fn an_open_block_has_the_answers_of_the_reference() {
    let mut random = Rng::with_seed(11);
    let windows = random::windows(&mut random, 2, 16);
    let mut builder = Builder::default();
    let mut seen = 0;
    for (count, window) in windows.iter().enumerate() {
        builder.add(window).unwrap();
        if random.u8(..) < 150 {
            continue;
        }
        let starts = builder.read_window_starts().unwrap();
        let is_all = random.u8(..) < 60;
        let wanted = WindowSet::of(&starts[..seen], |_| is_all || random.bool());
        let program = format!("comm-{}", random.u8(0..5));
        let is_all_series = random.bool();
        let mut is_wanted = |labels: &LabelSet| is_all_series || labels.value("comm") == program;
        let series = builder.find_series(&mut is_wanted);
        let selection = Selection {
            series: &series,
            windows: &wanted,
        };
        let picked = windows[..seen].iter().zip(0..);
        let picked = picked.filter(|(_, number)| wanted.contains(*number));
        let mut expected = sum_rows(picked.map(|(window, _)| window));
        expected.retain(|row, sums| is_wanted(&row.labels) && *sums != (0, 0));
        assert!(ask(&builder, &selection) == expected, "{count} windows");

        let mut by_stack: BTreeMap<String, Sums> = BTreeMap::new();
        for (row, (samples, ns)) in expected {
            let sums = by_stack.entry(row.stack).or_default();
            *sums = (sums.0 + samples, sums.1 + ns);
        }
        assert!(
            ask_stacks(&builder, &selection) == by_stack,
            "{count} windows"
        );
        seen = count + 1;
    }
    assert!(seen > windows.len() / 2, "few questions were asked");
}

/// Check windows, their sums, and rows of a block against its segment's.
#[test]
fn a_segment_has_the_answers_of_its_block() {
    let mut random = Rng::with_seed(12);
    for nodes in [0, 1, 3] {
        let windows = random::windows(&mut random, nodes, 30);
        let builder = add_all(&windows);
        assert_same_windows(&read_all(&builder), &windows);
        let segment = build(&windows);
        for (from, to) in [(0, 30), (10, 20), (5, 5)] {
            let answers = [&builder as &dyn Source, &segment].map(|source| {
                let starts = source.read_window_starts().unwrap();
                let first = starts.iter().copied().min().unwrap_or(0);
                let range = model::TimeRange {
                    from_ms: first + from * random::WINDOW_MS,
                    to_ms: first + to * random::WINDOW_MS,
                };
                let wanted = WindowSet::in_range(&starts, range);
                let series = source.find_series(&mut |labels| labels.value("comm") != "comm-1");
                let selection = Selection {
                    series: &series,
                    windows: &wanted,
                };
                let stacks = ask_stacks(source, &selection);
                (
                    ask_windows(source, &selection),
                    ask(source, &selection),
                    stacks,
                )
            });
            assert!(answers[0] == answers[1], "windows {from} to {to}");
        }
    }
}

/// Check that a question for a few series of a large block, which uses other tables, has the same answer.
#[test]
fn few_stacks_of_many_are_found() {
    let mut lines = String::new();
    for number in 0..40_000 {
        lines.push_str(&format!(
            "comm=many | main f{} g{number} | 1\n",
            number % 200
        ));
    }
    lines.push_str("comm=few | main f7 g7 | 5\ncomm=few | main h | 2\n");
    let builder = add_all(&[model::text::window(&lines)]);
    let series = builder.find_series(&mut |labels| labels.value("comm") == "few");
    let selection = Selection {
        series: &series,
        windows: &WindowSet::all(1),
    };
    let sums = ask_stacks(&builder, &selection);
    assert_eq!(sums.values().copied().collect::<Vec<_>>().len(), 2);
    let mut samples: Vec<u64> = sums.values().map(|sums| sums.0).collect();
    samples.sort_unstable();
    assert_eq!(samples, [2, 5]);
    assert_eq!(ask(&builder, &selection).len(), 2);
}

/// Check that a block from which windows were taken back is one that never had them.
#[test]
fn windows_can_be_taken_back() {
    let mut random = Rng::with_seed(13);
    let windows = random::windows(&mut random, 1, 16);
    let mut builder = Builder::default();
    let mut added: Vec<Window> = Vec::new();
    for window in &windows {
        builder.add(window).unwrap();
        added.push(window.clone());
        if random.u8(..) < 80 {
            let count = random.usize(0..=added.len());
            builder.truncate(count);
            added.truncate(count);
        }
        builder.truncate(added.len());
        assert_same_windows(&read_all(&builder), &added);
    }
    let again = windows.iter().find(|window| !added.contains(window));
    builder.add(again.unwrap()).unwrap();
    added.push(again.unwrap().clone());
    let mut bytes = Vec::new();
    builder.write(&WriteOptions::FAST, &mut bytes).unwrap();
    let segment = segment::Segment::open(bytes).unwrap();
    assert_same_windows(&read_all(&segment), &added);
    let listed: std::collections::BTreeSet<_> =
        added.iter().flat_map(|window| &window.series).collect();
    assert_eq!(segment.series_count(), listed.len());
}

/// Check that the growth that is measured before a window is added is what adding it brings, and that measuring changes nothing.
#[test]
fn growth_is_measured_before_a_window_is_added() {
    let mut random = Rng::with_seed(17);
    let mut builder = Builder::default();
    let mut grew = 0;
    for window in random::windows(&mut random, 4, 12) {
        let before = builder.dictionary_size();
        let measured = builder.measure_growth(&window);
        assert_eq!(builder.dictionary_size(), before);
        builder.add(&window).unwrap();
        let after = builder.dictionary_size();
        // The random windows have several mappings of a file.
        assert!(measured.stack_nodes >= after.stack_nodes - before.stack_nodes);
        assert!(measured.locations >= after.locations - before.locations);
        grew += u32::from(measured != segment::Growth::default());
        assert_eq!(builder.measure_growth(&window), segment::Growth::default());
    }
    assert!(grew > 10, "{grew} windows had something new");

    let mut builder = Builder::default();
    for (lines, stack_nodes, locations) in [
        ("comm=a | main work@/lib/a.so | 1", 2, 2),
        (
            "comm=b | main work@/lib/a.so | 5\ncomm=b | main work@/lib/a.so work@/lib/b.so | 1",
            1,
            1,
        ),
        ("comm=b | work@/lib/b.so main | 5", 2, 0),
        ("comm=c | main work@/lib/a.so | 5", 0, 0),
    ] {
        let window = text::window(lines);
        let measured = builder.measure_growth(&window);
        assert_eq!(
            (measured.stack_nodes, measured.locations),
            (stack_nodes, locations),
            "{lines}"
        );
        builder.add(&window).unwrap();
    }
}
