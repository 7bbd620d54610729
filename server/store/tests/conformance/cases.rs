//! Histories with answers that are written out.

use std::collections::BTreeMap;

use model::node_report::NodeState;
use model::tables::LocationId;
use model::text::window_at;
use model::{
    ContainerAccount, ContainerUsage, FunctionNames, LabelSet, Line, NodeReport, StackSums, Tables,
    TimeRange, Window,
};
use store::{Appended, SeriesFilter, Store, StoreError};

use crate::answers::{self, ALWAYS, Filter, list_series, versions};
use crate::stores::StoreUnderTest;
use crate::windows::{START_MS, random_report};

const HOUR_MS: i64 = 3_600_000;
const CART: &str = r#"{comm="cart", node="a", pod="p1"}"#;
const SORT: &str = r#"{comm="sort", node="a"}"#;
const SORT_OF_B: &str = r#"{comm="sort", node="b"}"#;

/// Three windows: two of one hour, and the first of the next hour, by another node.
fn history() -> [Window; 3] {
    let cart = "comm=cart,node=a,pod=p1";
    let first =
        format!("{cart} | main work | 3 | thread=t\ncomm=sort,node=a | main 0x1f@/lib/b.so | 5");
    let second = format!("{cart} | main idle | 2\n{cart} | main work | 4");
    let mut first = window_at(&first, START_MS + HOUR_MS - 20_000, 1);
    first.containers = vec![ContainerAccount {
        labels: LabelSet::from_sorted([("node", "a"), ("pod", "p1")]).unwrap(),
        usage: ContainerUsage {
            kernel_ns: 70,
            ..ContainerUsage::default()
        },
    }];
    let second = window_at(&second, START_MS + HOUR_MS - 10_000, 2);
    let mut third = window_at("comm=sort,node=b | main | 7", START_MS + HOUR_MS, 1);
    (third.head.key.instance, third.head.node) = ([8; 16], "b".into());
    [first, second, third]
}

/// Seconds from the third window's start, for a window's.
fn second_of(start_ms: i64) -> i64 {
    (start_ms - START_MS - HOUR_MS) / 1000
}

/// A range in milliseconds from the third window's start.
fn range(from_ms: i64, to_ms: i64) -> TimeRange {
    let start_ms = START_MS + HOUR_MS;
    TimeRange {
        from_ms: start_ms + from_ms,
        to_ms: start_ms + to_ms,
    }
}

fn equal(labels: &[(&'static str, &str)]) -> Filter {
    let equal = labels
        .iter()
        .map(|(name, value)| (*name, (*value).to_owned()));
    Filter {
        equal: equal.collect(),
        part: None,
    }
}

/// Program, stack, thread and samples of what these labels select.
fn stacks(store: &dyn Store, range: TimeRange, equal: &[(&str, &str)]) -> Vec<String> {
    let filter = SeriesFilter {
        equal: equal.to_vec(),
        matches: &|_| true,
    };
    let snapshot = store.snapshot(range).unwrap();
    let table = snapshot.find_series(&filter).unwrap();
    let mut samples: BTreeMap<String, u64> = BTreeMap::new();
    let mut visit = |part: &StackSums<'_>| {
        for sum in part.sums {
            let comm = table.labels(sum.group as usize).value("comm");
            let stack: Vec<String> = (part.tables.walk_stack(sum.stack))
                .map(|id| name(part.tables, id))
                .collect();
            let thread = part.tables.tag_text(sum.tags, "thread");
            let line = format!("{comm} {} {thread}", stack.join("<"));
            *samples.entry(line).or_default() += sum.samples;
        }
    };
    snapshot
        .sum_stacks(
            &table,
            &answers::each(&table),
            FunctionNames::All,
            &mut visit,
        )
        .unwrap();
    let line = |(line, samples)| format!("{line} {samples}");
    samples.into_iter().map(line).collect()
}

fn name(tables: &Tables, id: LocationId) -> String {
    let function = |line: &Line| tables.functions[line.function.position()].name;
    match tables.own_lines_of(id).first().map(function) {
        Some(name) => tables.string(name).to_owned(),
        None => format!("{:#x}", tables.locations[id.position()].address),
    }
}

/// Second and node of each window, its series' samples and CPU milliseconds, and its containers' CPU time.
fn totals(store: &dyn Store, range: TimeRange) -> Vec<String> {
    let mut lines = Vec::new();
    let snapshot = store.snapshot(range).unwrap();
    snapshot
        .scan_totals(&mut |totals| {
            let mut line = format!(
                "{} {}",
                second_of(totals.head.key.start_ms),
                totals.head.node
            );
            let labels = snapshot.find_labels(&totals.series).unwrap();
            for (i, labels) in labels.iter().enumerate() {
                let ms = totals.ns[i] / 1_000_000;
                line += &format!(", {} {} {ms} ms", labels.value("comm"), totals.samples[i]);
            }
            for (id, usage) in &totals.containers {
                let labels = snapshot.find_labels(&[*id]).unwrap();
                line += &format!(", {} {} ns", labels[0], usage.kernel_ns);
            }
            lines.push(line);
        })
        .unwrap();
    lines
}

/// Check series, sums and samples, by labels and by ranges that end exactly at a window and at an hour; before and after a restart.
pub(crate) fn answers_are_exact<S: StoreUnderTest>() {
    let mut tested = S::create();
    assert_eq!(totals(tested.store(), ALWAYS), [""; 0]);
    assert_eq!(
        list_series(tested.store(), ALWAYS, &Filter::default()),
        [""; 0]
    );
    // The last one first: a node that was cut off sends what it has.
    for window in history().into_iter().rev() {
        assert_eq!(tested.store().append(window).unwrap(), Appended::Stored);
    }
    for is_restarted in [false, true] {
        if is_restarted {
            tested = tested.restart();
        }
        let store = tested.store();
        let [mut repeat, _, _] = history();
        assert_eq!(store.append(repeat.clone()).unwrap(), Appended::Duplicate);
        repeat.head.key.start_ms += 10_000;
        let other = StoreError::OtherContent { sequence: 1 };
        assert_eq!(store.append(repeat), Err(other));

        let series = |range, filter: &[_]| list_series(store, range, &equal(filter));
        assert_eq!(series(ALWAYS, &[]), [CART, SORT, SORT_OF_B]);
        assert_eq!(series(range(-20_000, 0), &[]), [CART, SORT]);
        assert_eq!(series(range(-19_999, 0), &[]), [CART]);
        assert_eq!(series(range(-10_000, 1), &[]), [CART, SORT_OF_B]);
        assert_eq!(series(range(0, HOUR_MS), &[]), [SORT_OF_B]);
        assert_eq!(series(range(1, HOUR_MS), &[]), [""; 0]);
        assert_eq!(series(range(0, -20_000), &[]), [""; 0]);
        assert_eq!(series(ALWAYS, &[("comm", "sort")]), [SORT, SORT_OF_B]);
        assert_eq!(
            series(ALWAYS, &[("comm", "sort"), ("node", "b")]),
            [SORT_OF_B]
        );
        assert_eq!(series(ALWAYS, &[("comm", "sort"), ("pod", "p1")]), [""; 0]);
        let part = Filter {
            part: Some(("pod", "1".to_owned())),
            ..equal(&[("node", "a")])
        };
        assert_eq!(list_series(store, ALWAYS, &part), [CART]);

        let sums = [
            r#"-20 a, cart 3 30 ms, sort 5 50 ms, {node="a", pod="p1"} 70 ns"#,
            "-10 a, cart 6 60 ms",
            "0 b, sort 7 70 ms",
        ];
        assert_eq!(totals(store, ALWAYS), sums);
        assert_eq!(totals(store, range(-20_000, 0)), sums[..2]);
        assert_eq!(totals(store, range(-19_999, 1)), sums[1..]);
        assert_eq!(totals(store, range(0, 0)), [""; 0]);

        let all = [
            "cart idle<main  2",
            "cart work<main  4",
            "cart work<main t 3",
            "sort 0x1f<main  5",
            "sort main  7",
        ];
        assert_eq!(stacks(store, ALWAYS, &[]), all);
        let sort = [("comm", "sort")];
        assert_eq!(stacks(store, ALWAYS, &sort), all[3..]);
        assert_eq!(stacks(store, range(-20_000, 0), &sort), all[3..4]);
        assert_eq!(stacks(store, range(-10_000, 0), &[]), all[..2]);
        assert_eq!(stacks(store, range(-10_000, 0), &sort), [""; 0]);
    }
}

/// Check that a node's last report is kept with the time of its first, and that the last word of a collector does not replace the
/// report of the next one.
pub(crate) fn reports_are_kept_by_node<S: StoreUnderTest>() {
    let report = |node: &str, instance: u8, state, received_ms| {
        let mut report = random_report(&mut fastrand::Rng::with_seed(1), received_ms);
        report.node = node.to_owned();
        (report.instance, report.content.state) = ([instance; 16], state);
        report
    };
    let lines = |store: &dyn Store| -> Vec<String> {
        let line = |report: &NodeReport| {
            let NodeReport {
                node,
                instance: [instance, ..],
                first_ms,
                content,
            } = report;
            format!(
                "{node} {instance} {first_ms} {} {:?}",
                content.received_ms, content.state
            )
        };
        store.reports().unwrap().iter().map(line).collect()
    };
    let tested = S::create();
    for report in [
        report("b", 1, NodeState::Sampling, 10),
        report("a", 1, NodeState::Sampling, 11),
        report("b", 2, NodeState::Starting, 20),
        report("b", 1, NodeState::Stopping, 21),
        report("a", 1, NodeState::Stopping, 22),
    ] {
        tested.store().put_report(report).unwrap();
    }
    let tested = tested.restart();
    assert_eq!(
        lines(tested.store()),
        ["a 1 11 22 Stopping", "b 2 10 20 Starting"]
    );
}

/// Check that a version has the times of its first and its last window, by the labels of its workload or the path of its program, and
/// that libraries and programs with an image have no build.
pub(crate) fn versions_have_their_times<S: StoreUnderTest>() {
    let tested = S::create();
    let append = |lines: &str, build_id: &str, start_ms: i64, sequence: u64| {
        let mut window = window_at(lines, START_MS + start_ms, sequence);
        let build_id = window.tables.push_string(build_id);
        for mapping in &mut window.tables.mappings {
            mapping.build_id = build_id;
        }
        tested.store().append(window).unwrap();
    };
    let pods = |tag: u8| {
        format!(
            "exe=/bin/a,image=shop:{tag},pod=p1,workload=shop | main@/bin/a | 1
             exe=/bin/a,image=shop:{tag},pod=p2,workload=shop | main@/bin/a | 1"
        )
    };
    let program = "exe=/bin/b | main@/bin/b read@/lib/c.so | 1 | thread=x";
    append(&pods(1), "01", 20_000, 1);
    append(&pods(2), "01", 30_000, 2);
    append(&pods(1), "01", 0, 3);
    append(program, "0b", 40_000, 4);
    append(program, "0a", 50_000, 5);
    append("exe=/bin/b | 0x7@/lib/c.so | 1", "0d", 60_000, 6);
    append(program, "0b", 10_000, 9);
    let at = |start_ms: i64| START_MS + start_ms;
    let expected = [
        format!(
            "Image {{workload=\"shop\"}} shop:1 {} {}",
            at(0),
            at(20_000)
        ),
        format!(
            "Image {{workload=\"shop\"}} shop:2 {} {}",
            at(30_000),
            at(30_000)
        ),
        format!(
            "BuildId {{exe=\"/bin/b\"}} 0a {} {}",
            at(50_000),
            at(50_000)
        ),
        format!(
            "BuildId {{exe=\"/bin/b\"}} 0b {} {}",
            at(10_000),
            at(40_000)
        ),
    ];
    assert_eq!(versions(tested.store()), expected);
    let tested = tested.restart();
    assert_eq!(versions(tested.store()), expected);
    assert_eq!(tested.store().versions().since_ms, Some(START_MS));
}
