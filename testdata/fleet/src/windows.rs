//! Pods of a cluster, and their windows.

use fastrand::Rng;
use model::tables::{StackId, TagSetId};
use model::{
    Account, Dictionary, LabelSet, ProfileHead, Row, StackNode, Tag, TagValue, Window, WindowHead,
    WindowKey,
};

use crate::frames::PodFrames;
use crate::functions::{FUNCTION_BYTES, NamedFunction, make_functions};
use crate::services::{SERVICES, Service, make_service};
use crate::shape::Shape;

/// Nanoseconds that a sample stands for.
pub const SAMPLE_NS: u64 = 10_000_000;

/// Start of the first window: 30 November 2026, 8 o'clock.
pub const START_MS: i64 = 1_796_025_600_000;

/// Length of a window.
pub const WINDOW_MS: i64 = 10_000;

struct Pod {
    number: u64,
    service: usize,
    labels: LabelSet,
    /// Different stacks in a window, on average.
    stacks: f64,
}

/// A cluster.
pub struct Fleet {
    shape: Shape,
    functions: Vec<NamedFunction>,
    services: Vec<Service>,
    /// The pods of each node.
    pods: Vec<Vec<Pod>>,
}

impl Fleet {
    /// A cluster of this shape.
    pub fn new(shape: Shape) -> Self {
        let services = (0..SERVICES).map(|number| make_service(shape.seed, number));
        let services: Vec<Service> = services.collect();
        let pods = (0..shape.nodes)
            .map(|node| make_pods(shape, &services, node))
            .collect();
        Self {
            shape,
            functions: make_functions(shape.seed),
            services,
            pods,
        }
    }

    /// Its shape.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// A window of a node, both by number from 0.
    pub fn window(&self, node: usize, number: usize) -> Window {
        let mut random =
            Rng::with_seed(self.shape.seed ^ (number as u64) << 40 ^ (node as u64) << 20 ^ 0x5bd1);
        let mut dictionary = Dictionary::default();
        let mut rows = Vec::new();
        for (series, pod) in self.pods[node].iter().enumerate() {
            self.add_rows(series as u32, pod, &mut random, &mut dictionary, &mut rows);
        }
        rows.sort_unstable();
        let samples: u64 = rows.iter().map(|row| row.samples).sum();
        Window {
            head: self.head(node, number, samples, &mut random),
            series: self.pods[node]
                .iter()
                .map(|pod| pod.labels.clone())
                .collect(),
            tables: dictionary.into_tables(),
            rows,
            containers: Vec::new(),
        }
    }

    fn add_rows(
        &self,
        series: u32,
        pod: &Pod,
        random: &mut Rng,
        dictionary: &mut Dictionary,
        rows: &mut Vec<Row>,
    ) {
        let service = &self.services[pod.service];
        let mut frames = PodFrames::new(self.shape, &self.functions, service, pod.number);
        let wanted = (pod.stacks * (0.8 + 0.4 * random.f64())) as usize;
        for (stack, samples) in service.draw_stacks(random, wanted) {
            let stack = &service.stacks[stack];
            // The innermost frames of a new stack, one to four, are where no other is.
            let is_new = random.u32(0..100) < self.shape.new_stacks;
            let old = if is_new {
                stack.len() - random.usize(1..=stack.len().min(4))
            } else {
                stack.len()
            };
            let mut node = StackId(0);
            for (depth, frame) in stack.iter().enumerate() {
                let moved = if depth < old {
                    0
                } else {
                    random.u64(1..FUNCTION_BYTES)
                };
                let location = frames.location(dictionary, *frame, moved);
                node = dictionary.intern_stack(StackNode {
                    parent: node,
                    location,
                });
            }
            rows.push(Row {
                series,
                tags: self.draw_tags(random, dictionary),
                stack: node,
                samples,
                ns: samples * SAMPLE_NS,
            });
        }
    }

    /// The thread, and of one sample in a hundred that its stack is not complete.
    fn draw_tags(&self, random: &mut Rng, dictionary: &mut Dictionary) -> TagSetId {
        if self.shape.threads == 0 {
            return TagSetId(0);
        }
        let mut tag = |key: &str, value: &str| Tag {
            key: dictionary.intern_string(key),
            value: TagValue::Text(dictionary.intern_string(value)),
        };
        let thread = format!("worker-{}", random.u32(0..self.shape.threads));
        let mut tags = vec![tag("thread", &thread)];
        if random.u32(0..100) == 0 {
            tags.push(tag("outcome", "truncated"));
        }
        dictionary.intern_tag_set(&tags)
    }

    fn head(&self, node: usize, number: usize, samples: u64, random: &mut Rng) -> WindowHead {
        let start_ms = START_MS + WINDOW_MS * number as i64;
        let mut near = |center: u64| center - center / 20 + random.u64(0..=center / 10);
        let sampled_ns = samples * SAMPLE_NS;
        let account = Account {
            entries: samples + 3,
            expected: samples + 2,
            sampled_ns,
            busy_ns: near(sampled_ns),
            collector_cpu_ns: near(30_000_000),
            bpf_ns: near(5_000_000),
            outcomes: [("complete".to_owned(), samples), ("copied".to_owned(), 3)].into(),
            ..Account::default()
        };
        let key = WindowKey {
            start_ms,
            instance: (node as u128 + 1).to_be_bytes(),
            sequence: number as u64 + 1,
        };
        let profile = ProfileHead {
            time_ns: start_ms * 1_000_000,
            duration_ns: WINDOW_MS * 1_000_000,
            ..ProfileHead::default()
        };
        WindowHead {
            key,
            node: node_name(node),
            window_ms: WINDOW_MS,
            account,
            profile,
        }
    }
}

fn node_name(node: usize) -> String {
    format!("node-{node:02}")
}

fn make_pods(shape: Shape, services: &[Service], node: usize) -> Vec<Pod> {
    let make = |pod: usize| {
        let id = node * shape.pods + pod;
        let service = (id * 7 + node) % SERVICES;
        let Service {
            name, namespace, ..
        } = &services[service];
        let mut random = Rng::with_seed(shape.seed * 77_777 + id as u64);
        let pod = format!(
            "{name}-{:08x}-{:05x}",
            random.u32(..),
            random.u32(0..1 << 20)
        );
        let node = node_name(node);
        let labels = [
            ("comm", name.as_str()),
            ("container", "app"),
            ("namespace", namespace),
            ("node", &node),
            ("pod", &pod),
        ];
        Pod {
            number: id as u64,
            service,
            // The names are in order.
            labels: LabelSet::from_sorted(labels).unwrap_or_default(),
            stacks: 60.0 + 180.0 * random.f64().powf(1.3),
        }
    };
    (0..shape.pods).map(make).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn fleet(options: &[&str]) -> Fleet {
        let options = ["nodes=2", "pods=4"]
            .into_iter()
            .chain(options.iter().copied());
        Fleet::new(Shape::parse(options.map(str::to_owned)).unwrap())
    }

    /// The stacks of a window as text, without their tags.
    fn stacks(window: &Window) -> HashSet<String> {
        let tables = &window.tables;
        let stack = |row: &Row| {
            let frames = tables.walk_stack(row.stack).map(|id| {
                let location = tables.locations[id.position()];
                let mapping = location.mapping.unwrap();
                let file = tables.string(tables.mappings[mapping.position()].file);
                format!("{file} {:x}", location.address)
            });
            frames.collect::<Vec<_>>().join(";")
        };
        window.rows.iter().map(stack).collect()
    }

    /// The share of the stacks of a window of a node that its next window has too.
    fn returning(fleet: &Fleet) -> f64 {
        let (before, after) = (stacks(&fleet.window(0, 3)), stacks(&fleet.window(0, 4)));
        after.intersection(&before).count() as f64 / after.len() as f64
    }

    /// Check that windows have the load test's shape, and that each option does what it says.
    #[test]
    fn options_shape_windows() {
        let plain = fleet(&[]);
        let window = plain.window(0, 3);
        assert!((240..1200).contains(&window.rows.len()));
        assert_eq!(window, plain.window(0, 3));
        assert!(window != fleet(&["seed=8"]).window(0, 3));
        assert!(window.tables.mappings.len() <= 4);
        assert_eq!(window.tables.locations.len(), window.tables.functions.len());
        assert!(returning(&plain) > 0.3);

        let addresses = fleet(&["addresses=5"]).window(0, 3).tables;
        let per_function = addresses.locations.len() as f64 / addresses.functions.len() as f64;
        assert!((1.5..5.0).contains(&per_function), "{per_function}");

        assert!(fleet(&["files=9"]).window(0, 3).tables.mappings.len() > 8);

        let unnamed = fleet(&["unnamed=20"]).window(0, 3).tables;
        let share = unnamed
            .locations
            .iter()
            .filter(|location| location.lines().is_empty());
        let share = share.count() as f64 / unnamed.locations.len() as f64;
        assert!((0.15..0.25).contains(&share), "{share}");

        let jit = fleet(&["jit=50"]);
        let [first, other] = [0, 1].map(|node| stacks(&jit.window(node, 3)));
        assert!(first.iter().any(|stack| stack.contains("[JIT]")));
        let shared = first.intersection(&other);
        assert!(shared.filter(|stack| stack.contains("[JIT]")).count() == 0);
        assert!(returning(&jit) > 0.3);

        let threads = fleet(&["threads=3"]).window(0, 3);
        let tags: HashSet<TagSetId> = threads.rows.iter().map(|row| row.tags).collect();
        assert!(tags.len() > 3);

        assert!(returning(&fleet(&["new-stacks=100"])) < 0.1);
    }
}
