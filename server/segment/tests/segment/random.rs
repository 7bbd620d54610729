//! Random windows of a few nodes, small and with all that a window can have.

use std::collections::BTreeMap;

use fastrand::Rng;
use model::tables::{FunctionId, LocationId, MappingId, StackId, StringId, TagSetId};
use model::{
    Account, ContainerAccount, ContainerUsage, Dictionary, Function, LabelSet, Line, Location,
    Mapping, MappingFlags, ProfileHead, Row, StackNode, Tag, TagValue, Unnamed, Window, WindowHead,
    WindowKey,
};
use segment::Digest;

/// Length of a window.
pub(crate) const WINDOW_MS: i64 = 10_000;

/// Windows of `nodes` collectors and one more, two on a node.
pub(crate) fn windows(random: &mut Rng, nodes: usize, count: usize) -> Vec<Window> {
    let mut windows = Vec::new();
    for number in 0..count {
        for instance in 0..=nodes {
            // Some are missing.
            if random.u8(..) > 20 {
                windows.push(window(random, instance, number as u64));
            }
        }
    }
    random.shuffle(&mut windows);
    windows
}

/// What stands for the digest of a window's message; one in five has none.
pub(crate) fn digest(window: &Window) -> Option<Digest> {
    let WindowKey {
        start_ms,
        instance,
        sequence,
    } = window.head.key;
    let digest = u128::from(sequence) << 64 | u128::from(start_ms as u64 ^ u64::from(instance[0]));
    (!sequence.is_multiple_of(5)).then(|| digest.to_le_bytes())
}

fn window(random: &mut Rng, instance: usize, number: u64) -> Window {
    let node = format!("node-{}", instance / 2);
    let mut dictionary = Dictionary::default();
    let mut series: Vec<LabelSet> = Vec::new();
    for program in 0..random.usize(0..5) {
        let labels = [
            ("comm", format!("comm-{program}")),
            ("namespace", format!("ns-{}", program % 2)),
            ("node", node.clone()),
        ];
        series.push(LabelSet::from_sorted(labels).unwrap());
    }
    let mut rows = Vec::new();
    for series in 0..series.len() as u32 {
        for _ in 0..random.usize(0..30) {
            let samples = match random.u8(..) {
                0..5 => 0,
                5..10 => random.u64(0..1 << 20),
                _ => random.u64(1..5),
            };
            let ns = match random.u8(..) {
                0..20 => random.u64(0..1 << 40),
                _ => samples * 10_000_000,
            };
            let stack = stack(random, &mut dictionary);
            let tags = tags(random, &mut dictionary);
            rows.push(Row {
                series,
                tags,
                stack,
                samples,
                ns,
            });
        }
    }
    rows.sort_unstable();
    let containers = (0..random.usize(0..3)).map(|container| ContainerAccount {
        labels: LabelSet::from_sorted([
            ("container", format!("c-{container}")),
            ("node", node.clone()),
        ])
        .unwrap(),
        usage: ContainerUsage {
            kernel_ns: random.u64(..) >> 20,
            throttled_ns: random.u64(0..2),
            unread_ns: 0,
            excluded_samples: random.u64(0..3),
        },
    });
    let containers = containers.collect();
    Window {
        head: head(random, node, instance, number),
        series,
        tables: dictionary.into_tables(),
        rows,
        containers,
    }
}

fn head(random: &mut Rng, node: String, instance: usize, number: u64) -> WindowHead {
    let start_ms = 1_796_025_600_000 + WINDOW_MS * number as i64 + 3 * instance as i64;
    let counts = |random: &mut Rng| -> BTreeMap<String, u64> {
        let count = |n| (format!("outcome-{n}"), n);
        (0..random.u64(0..3)).map(count).collect()
    };
    let account = Account {
        entries: random.u64(..),
        expected: random.u64(0..100),
        sampled_ns: random.u64(0..100) * 10_000_000,
        busy_ns: random.u64(..),
        collector_cpu_ns: 7,
        bpf_ns: random.u64(..),
        outcomes: counts(random),
        dropped: counts(random),
        stolen_ns: random.u64(0..2),
    };
    let profile = ProfileHead {
        time_ns: start_ms * 1_000_000 + random.i64(0..2),
        duration_ns: WINDOW_MS * 1_000_000,
        period_type: ("cpu".into(), "nanoseconds".into()),
        period: 10_000_000,
        comments: (0..random.usize(0..3))
            .map(|n| format!("comment {n}"))
            .collect(),
        ..ProfileHead::default()
    };
    let key = WindowKey {
        start_ms,
        instance: [instance as u8; 16],
        sequence: number + 1,
    };
    WindowHead {
        key,
        node,
        window_ms: WINDOW_MS,
        account,
        profile,
    }
}

/// A walk down a small tree, so that stacks come again.
fn stack(random: &mut Rng, dictionary: &mut Dictionary) -> StackId {
    let depth = match random.u8(..) {
        0..10 => 0,
        10..13 => 300,
        _ => random.usize(1..8),
    };
    (0..depth).fold(StackId(0), |parent, level| {
        // Most frames are one of two at their level.
        let choices = if random.u8(..) < 30 { 40 } else { 2 };
        let choice = random.u64(0..choices);
        let location = location(random, dictionary, level as u64 % 10, choice);
        dictionary.intern_stack(StackNode { parent, location })
    })
}

fn location(random: &mut Rng, dictionary: &mut Dictionary, level: u64, choice: u64) -> LocationId {
    let mapping = (choice != 3).then(|| mapping(random, dictionary, level + choice));
    let lines: Vec<Line> = (0..(level + choice) % 4)
        .map(|inlined| Line {
            function: function(dictionary, level * 50 + choice + inlined),
            line: (choice + inlined) as i64 - 1,
        })
        .collect();
    let unnamed = match lines[..] {
        [] => Unnamed::new(4, choice as u32),
        _ => Unnamed::default(),
    };
    let location = Location {
        mapping,
        // Some share an address and differ in their lines.
        address: 1000 * level + 8 * (choice / 2),
        lines_start: 0,
        lines_end: 0,
        is_folded: choice == 5,
        unnamed,
    };
    dictionary.intern_location(location, &lines)
}

/// One of three files; what else a mapping says differs from window to window.
fn mapping(random: &mut Rng, dictionary: &mut Dictionary, number: u64) -> MappingId {
    let file = dictionary.intern_string(&format!("/lib/{}.so", number % 3));
    let build_id = dictionary.intern_string(&format!("{:02x}", number % 2));
    let file_id = match number % 5 {
        0 => dictionary.intern_string("id"),
        _ => StringId(0),
    };
    dictionary.intern_mapping(Mapping {
        file,
        build_id,
        start: 0,
        limit: random.u64(0..1000),
        offset: 0,
        flags: MappingFlags(random.u8(0..16)),
        file_id,
    })
}

fn function(dictionary: &mut Dictionary, number: u64) -> FunctionId {
    let name = dictionary.intern_string(&format!("function ünit {number}"));
    let system_name = match number % 3 {
        0 => dictionary.intern_string(&format!("_Z{number}")),
        _ => name,
    };
    let file = match number % 5 {
        0 => StringId(0),
        file => dictionary.intern_string(&format!("{file}.rs")),
    };
    dictionary.intern_function(Function {
        name,
        system_name,
        file,
        start_line: number as i64,
    })
}

fn tags(random: &mut Rng, dictionary: &mut Dictionary) -> TagSetId {
    let mut tags = Vec::new();
    if random.u8(..) < 100 {
        let key = dictionary.intern_string("thread");
        let value = dictionary.intern_string(&format!("worker-{}", random.u8(0..3)));
        tags.push(Tag {
            key,
            value: TagValue::Text(value),
        });
    }
    if random.u8(..) < 20 {
        let key = dictionary.intern_string("size");
        let unit = dictionary.intern_string("bytes");
        tags.push(Tag {
            key,
            value: TagValue::Number(random.i64(-3..3), unit),
        });
    }
    dictionary.intern_tag_set(&tags)
}
