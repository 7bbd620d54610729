//! Services: fixed trees of calls.

use std::collections::BTreeMap;
use std::f64::consts::TAU;

use fastrand::Rng;

use crate::functions::{FUNCTIONS, LANGUAGES, WORDS};

/// Services.
pub(crate) const SERVICES: usize = 60;

const NAMESPACES: usize = 30;
const STACKS: usize = 1_500;
/// Functions that a service uses.
const SERVICE_FUNCTIONS: usize = 450;

/// A service.
pub(crate) struct Service {
    pub(crate) name: String,
    pub(crate) namespace: String,
    pub(crate) build_id: String,
    /// Frames from the root to the leaf.
    pub(crate) stacks: Vec<Vec<Frame>>,
    /// Sums of the stacks' weights.
    weights: Vec<f64>,
}

/// A function where it was called from.
#[derive(Clone, Copy)]
pub(crate) struct Frame {
    pub(crate) function: u32,
    /// Number of the call in the service.
    pub(crate) call: u32,
}

impl Service {
    /// Different stacks and their samples: stacks are drawn until there are as many as wanted.
    pub(crate) fn draw_stacks(&self, random: &mut Rng, wanted: usize) -> BTreeMap<usize, u64> {
        let mut drawn = BTreeMap::new();
        let all = self.weights[STACKS - 1];
        while drawn.len() < wanted.min(STACKS) {
            let at = random.f64() * all;
            let stack = self.weights.partition_point(|sum| *sum < at);
            *drawn.entry(stack.min(STACKS - 1)).or_default() += 1;
        }
        drawn
    }
}

/// A number below `count`, small ones more often: its probability is about 1 / number.
fn pick_zipf(random: &mut Rng, count: usize) -> usize {
    let drawn = (count as f64 + 1.0).powf(random.f64());
    (drawn as usize - 1).min(count - 1)
}

/// A service's stacks: walks down a tree that grows at each end. The trunk is shared, the leaves are different.
pub(crate) fn make_service(seed: u64, number: usize) -> Service {
    struct Node {
        function: u32,
        children: Vec<usize>,
    }
    let mut random = Rng::with_seed(seed * 1000 + number as u64);
    let own = random.usize(0..FUNCTIONS / LANGUAGES - 300);
    let mut used: Vec<u32> = Vec::new();
    let mut pick = |random: &mut Rng| {
        if used.len() >= SERVICE_FUNCTIONS || used.len() > 50 && random.f64() < 0.5 {
            return used[(used.len() as f64 * random.f64().powf(1.5)) as usize];
        }
        // 60 % functions that all services of a language share, the others of its own.
        let position = if random.f64() < 0.6 {
            pick_zipf(random, FUNCTIONS / LANGUAGES)
        } else {
            own + random.usize(0..300)
        };
        let function = (position * LANGUAGES + number % LANGUAGES) as u32;
        used.push(function);
        function
    };
    let mut tree = vec![Node {
        function: pick(&mut random),
        children: Vec::new(),
    }];
    let mut stacks: Vec<Vec<Frame>> = Vec::new();
    while stacks.len() < STACKS {
        let normal = (-2.0 * (1.0 - random.f64()).ln()).sqrt() * (TAU * random.f64()).cos();
        let depth = (normal * 8.0 + 27.0).clamp(4.0, 64.0) as usize;
        let mut at = 0;
        let mut stack = vec![Frame {
            function: tree[0].function,
            call: 0,
        }];
        for level in 1..depth {
            let goes_on = level < 6 || random.f64() < 0.992 - 0.0025 * level as f64;
            let children = &tree[at].children;
            let mut next = match children.len() {
                0 => None,
                count => goes_on.then(|| children[(count as f64 * random.f64().powi(2)) as usize]),
            };
            if next.is_none() {
                let function = pick(&mut random);
                next = tree[at]
                    .children
                    .iter()
                    .copied()
                    .find(|child| tree[*child].function == function);
                if next.is_none() {
                    tree.push(Node {
                        function,
                        children: Vec::new(),
                    });
                    let node = tree.len() - 1;
                    tree[at].children.push(node);
                    next = Some(node);
                }
            }
            at = next.unwrap_or(at);
            stack.push(Frame {
                function: tree[at].function,
                call: at as u32,
            });
        }
        stacks.push(stack);
    }
    random.shuffle(&mut stacks);
    let mut sum = 0.0;
    let weights = (0..STACKS).map(|stack| {
        sum += 1.0 / (stack as f64 + 4.0);
        sum
    });
    Service {
        name: format!("svc-{}-{number:02}", WORDS[number % WORDS.len()]),
        namespace: format!("ns-{:02}", number % NAMESPACES),
        build_id: format!("{:040x}", 7919 * number),
        weights: weights.collect(),
        stacks,
    }
}
