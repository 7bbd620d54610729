//! The answer of `/api/v1/flamegraph` -> stacks with their samples.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

/// The kind of a kernel frame.
const KERNEL: u8 = 1;
/// The kind of an inlined frame.
const INLINED: u8 = 2;
/// The kind of an unnamed frame.
const UNNAMED: u8 = 3;

/// One frame of a stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// The function's name.
    pub name: &'a str,
    /// The file that it is in.
    pub binary: &'a str,
    kind: u8,
}

impl Frame<'_> {
    /// Whether the frame is in the kernel.
    #[must_use]
    pub fn is_kernel(&self) -> bool {
        self.kind == KERNEL
    }

    /// Whether the function is inlined into the previous frame.
    #[must_use]
    pub fn is_inlined(&self) -> bool {
        self.kind == INLINED
    }

    /// Whether the frame has a function's name and a file.
    #[must_use]
    pub fn is_named(&self) -> bool {
        self.kind != UNNAMED && !self.binary.is_empty()
    }
}

/// A stack, outermost frame first, and the samples that end in its last frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stack<'a> {
    /// Its frames, outermost first.
    pub frames: Vec<Frame<'a>>,
    /// Samples.
    pub samples: u64,
}

impl Stack<'_> {
    /// Whether a function of this name is anywhere in the stack.
    #[must_use]
    pub fn contains(&self, function: &str) -> bool {
        self.frames.iter().any(|frame| frame.name == function)
    }
}

/// The used part of the answer.
#[derive(Debug, Deserialize)]
pub struct FlameGraph {
    /// Samples of the selection.
    pub samples: u64,
    shown_nodes: usize,
    strings: Vec<String>,
    frames: Frames,
    nodes: Nodes,
}

#[derive(Debug, Deserialize)]
struct Frames {
    name: Vec<usize>,
    binary: Vec<usize>,
    kind: Vec<u8>,
}

#[derive(Debug, Deserialize)]
struct Nodes {
    depth: Vec<usize>,
    frame: Vec<i64>,
    samples: Vec<u64>,
    #[serde(default)]
    cut: BTreeMap<usize, u64>,
}

impl FlameGraph {
    /// All stacks with samples of their own, which add up to [`samples`](Self::samples).
    ///
    /// # Errors
    /// The graph has cut nodes, or its columns contradict each other.
    pub fn stacks(&self) -> Result<Vec<Stack<'_>>> {
        let Nodes {
            depth,
            frame,
            samples,
            cut,
        } = &self.nodes;
        ensure!(cut.is_empty(), "{} nodes stand for what was cut", cut.len());
        ensure!(
            [depth.len(), frame.len(), samples.len()] == [self.shown_nodes; 3],
            "the columns of `nodes` differ in length"
        );
        let mut path: Vec<Frame<'_>> = Vec::new();
        let mut stacks = Vec::new();
        for node in 0..depth.len() {
            if node > 0 {
                let level = depth[node].checked_sub(1).context("a second root")?;
                ensure!(level <= path.len(), "node {node} skips a depth");
                path.truncate(level);
                path.push(self.frame(frame[node])?);
            }
            // A node's samples include those of its children, which follow it in preorder.
            let children: u64 = children_of(depth, node).map(|child| samples[child]).sum();
            let own = samples[node]
                .checked_sub(children)
                .with_context(|| format!("node {node} has fewer samples than its children"))?;
            if own > 0 {
                stacks.push(Stack {
                    frames: path.clone(),
                    samples: own,
                });
            }
        }
        Ok(stacks)
    }

    fn frame(&self, index: i64) -> Result<Frame<'_>> {
        let index =
            usize::try_from(index).with_context(|| format!("frame {index} below the root"))?;
        let text = |column: &[usize]| {
            column
                .get(index)
                .and_then(|&s| self.strings.get(s))
                .map(String::as_str)
        };
        let name = text(&self.frames.name).with_context(|| format!("frame {index} has no name"))?;
        let binary =
            text(&self.frames.binary).with_context(|| format!("frame {index} has no binary"))?;
        let kind = *self
            .frames
            .kind
            .get(index)
            .with_context(|| format!("frame {index} has no kind"))?;
        Ok(Frame { name, binary, kind })
    }
}

/// The children of `node` in preorder: the nodes one level deeper, up to the next node that is not
/// deeper.
fn children_of(depth: &[usize], node: usize) -> impl Iterator<Item = usize> + '_ {
    let level = depth[node];
    (node + 1..depth.len())
        .take_while(move |&i| depth[i] > level)
        .filter(move |&i| depth[i] == level + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRAPH: &str = r#"{"samples": 10, "total_ns": 100, "shown_nodes": 5,
        "strings": ["", "main", "/bin/p", "f", "sys", "[kernel]"],
        "frames": {"name": [1, 3, 4], "binary": [2, 2, 5], "file": [0, 0, 0], "line": [0, 0, 0], "kind": [0, 3, 1]},
        "nodes": {"depth": [0, 1, 2, 3, 1], "frame": [-1, 0, 1, 2, 1], "total_ns": [], "self_ns": [],
                  "samples": [10, 8, 6, 1, 2]}}"#;

    #[test]
    fn stacks_add_up_to_all_samples() {
        let graph: FlameGraph = serde_json::from_str(GRAPH).unwrap();
        let stacks = graph.stacks().unwrap();
        let found: Vec<(Vec<&str>, u64)> = stacks
            .iter()
            .map(|s| (s.frames.iter().map(|f| f.name).collect(), s.samples))
            .collect();
        assert_eq!(
            found,
            [
                (vec!["main"], 2),
                (vec!["main", "f"], 5),
                (vec!["main", "f", "sys"], 1),
                (vec!["f"], 2)
            ]
        );
        assert!(stacks[2].frames[2].is_kernel());
        assert!(stacks[0].frames[0].is_named() && !stacks[1].frames[1].is_named());
    }

    #[test]
    fn a_contradiction_is_an_error() {
        for (from, to) in [
            (
                "\"samples\": [10, 8, 6, 1, 2]",
                "\"samples\": [10, 8, 9, 1, 2]",
            ),
            (
                "\"samples\": [10, 8, 6, 1, 2]",
                "\"samples\": [10, 8, 6, 1]",
            ),
            ("[-1, 0, 1, 2, 1]", "[-1, 0, 1, 2, 7]"),
            ("[0, 1, 2, 3, 1]", "[0, 1, 3, 3, 1]"),
            ("\"shown_nodes\": 5", "\"shown_nodes\": 4"),
            ("\"self_ns\": []", "\"self_ns\": [], \"cut\": {\"4\": 2}"),
        ] {
            let graph: FlameGraph = serde_json::from_str(&GRAPH.replace(from, to)).unwrap();
            assert!(graph.stacks().is_err(), "{to}");
        }
    }
}
