//! Random windows and reports.

use std::collections::BTreeMap;
use std::fmt::Write;

use fastrand::Rng;
use model::node_report::{NodeState, ReportContent};
use model::text::window_at;
use model::{Account, ContainerAccount, ContainerUsage, LabelSet, NodeReport, TimeRange, Window};

use crate::answers::{ALWAYS, Filter};

/// The begin of an hour.
pub(crate) const START_MS: i64 = 1_795_312_800_000;

const HOUR_MS: i64 = 3_600_000;
const NODES: u8 = 3;
const PODS: usize = 4;
const PROGRAMS: usize = 5;

/// The window with a sequence number, of any node and within two hours of the start. Some are at the edge of an hour.
pub(crate) fn random_window(random: &mut Rng, sequence: u64) -> Window {
    let node = random.u8(0..NODES);
    let start_ms = START_MS
        + match random.u8(0..5) {
            0 => HOUR_MS * random.i64(-2..=2) - random.i64(0..=1),
            _ => 10_000 * random.i64(-720..720),
        };
    let mut window = window_at(&random_lines(random, node), start_ms, sequence);
    let build_id = format!("0{}", random.u8(0..3));
    let build_id = window.tables.push_string(&build_id);
    for mapping in &mut window.tables.mappings {
        mapping.build_id = build_id;
    }
    window.head.key.instance = [node; 16];
    window.head.node = format!("n{node}");
    window.head.window_ms = random.choice([10_000, 10_000, 7_500]).unwrap();
    window.head.account = Account {
        busy_ns: random.u64(..),
        bpf_ns: random.u64(0..1000),
        stolen_ns: random.u64(0..1000),
        dropped: [("queue".to_owned(), random.u64(0..9))].into(),
        ..window.head.account
    };
    window.head.profile.comments = vec![format!("comment {}", random.u8(..))];
    window.containers = (0..random.usize(0..3))
        .map(|pod| random_account(random, node, pod))
        .collect();
    window
}

/// The window, or one of another collector of its node, at a time near an hour's edge at which several have windows.
pub(crate) fn of_any_collector(random: &mut Rng, mut window: Window) -> Window {
    if random.bool() {
        let hour_ms = HOUR_MS * random.i64(0..2);
        window.head.key.start_ms = START_MS + hour_ms + 2_500 * random.i64(-8..8);
        window.head.key.instance[15] = random.u8(64..67);
    }
    window
}

/// Lines in the test language; each (series, stack, tags) once.
fn random_lines(random: &mut Rng, node: u8) -> String {
    let mut rows: BTreeMap<[String; 3], u64> = BTreeMap::new();
    for _ in 0..random.usize(0..30) {
        let program = random.usize(0..PROGRAMS);
        let pod = random.usize(0..2 * PODS);
        let [image, pod] = if pod < PODS {
            let image = format!(",image=shop:{}", random.u8(0..2));
            [
                format!("{image},namespace=s{}", pod % 2),
                format!(",pod=p{pod}"),
            ]
        } else {
            ["", ""].map(str::to_owned)
        };
        let frames: Vec<String> = (0..random.usize(0..8))
            .map(|_| random_frame(random))
            .collect();
        let mut tags = String::new();
        if random.bool() {
            write!(tags, "thread=t{} ", random.u8(0..3)).unwrap();
        }
        if random.u8(0..4) == 0 {
            tags += "outcome=no_rows";
        }
        let exe = format!("exe=/lib/{}.so", program % 3);
        let series = format!("comm=c{program},{exe}{image},node=n{node}{pod}");
        let samples = match random.u8(0..20) {
            0 => random.u64(1..1 << 30),
            _ => random.u64(1..9),
        };
        rows.insert([series, frames.join(" "), tags], samples);
    }
    let line = |([series, stack, tags], samples): (&[String; 3], &u64)| match tags.as_str() {
        "" => format!("{series} | {stack} | {samples}\n"),
        tags => format!("{series} | {stack} | {samples} | {tags}\n"),
    };
    rows.iter().map(line).collect()
}

fn random_frame(random: &mut Rng) -> String {
    let number = random.u8(0..12);
    match random.u8(0..8) {
        0 => format!("f{number}>inlined{}", random.u8(0..3)),
        1 => format!("f{number}@/lib/{}.so", random.u8(0..3)),
        2 => format!("f{number}@[kernel]"),
        3 => format!("{number:#x}@/lib/{}.so", random.u8(0..3)),
        4 => format!(
            "{:#x}+{:#x}@/lib/a.so",
            64 * u64::from(number),
            random.u8(0..64)
        ),
        5 => format!("{:#x}", 4096 + u64::from(number)),
        _ => format!("f{number}"),
    }
}

fn random_account(random: &mut Rng, node: u8, pod: usize) -> ContainerAccount {
    let (node, pod) = (format!("n{node}"), format!("p{pod}"));
    ContainerAccount {
        labels: LabelSet::from_sorted([("node", node), ("pod", pod)]).unwrap(),
        usage: ContainerUsage {
            kernel_ns: random.u64(0..1 << 40),
            throttled_ns: random.u64(0..9),
            unread_ns: random.u64(0..9),
            excluded_samples: random.u64(0..9),
        },
    }
}

/// A range: of everything, of nothing, or with edges in the middle of windows and hours, and exactly at them.
pub(crate) fn random_range(random: &mut Rng) -> TimeRange {
    let edge = |random: &mut Rng| {
        START_MS
            + match random.u8(0..3) {
                0 => HOUR_MS * random.i64(-3..=3),
                1 => 10_000 * random.i64(-800..800),
                _ => random.i64(-8_000_000..8_000_000),
            }
    };
    match random.u8(0..6) {
        0 => ALWAYS,
        _ => TimeRange {
            from_ms: edge(random),
            to_ms: edge(random),
        },
    }
}

/// A choice of series: of all, of some, or of none.
pub(crate) fn random_filter(random: &mut Rng) -> Filter {
    let mut filter = Filter::default();
    if random.bool() {
        let node = random.u8(0..NODES + 1);
        filter.equal.push(("node", format!("n{node}")));
    }
    if random.u8(0..3) == 0 {
        let pod = random.usize(0..PODS);
        filter.equal.push(("pod", format!("p{pod}")));
    }
    if random.u8(0..3) == 0 {
        let program = random.usize(0..PROGRAMS);
        filter.part = Some(("comm", program.to_string()));
    }
    filter
}

/// A report of one of the nodes, which may come from a collector that was replaced.
pub(crate) fn random_report(random: &mut Rng, received_ms: i64) -> NodeReport {
    let states = [
        NodeState::Starting,
        NodeState::Sampling,
        NodeState::Stopping,
    ];
    NodeReport {
        node: format!("n{}", random.u8(0..NODES)),
        instance: [random.u8(0..2); 16],
        first_ms: received_ms,
        content: ReportContent {
            received_ms,
            version: "1.2.3".into(),
            kernel: "6.12".into(),
            state: *random.choice(&states).unwrap(),
            reason: String::new(),
            checks: Vec::new(),
            policy_revision: String::new(),
            policy: None,
        },
    }
}
