// A flame graph answer with a million nodes, for the benchmark.
import type { FlameGraphJson } from "../fixture/columns.ts";
import { createRandom } from "../fixture/random.ts";

interface Open {
  left: number;
  depth: number;
}

/**
 * Splits each node's time among its children at random, largest first, until the tree has `count`
 * nodes. Like real trees it is bushy near the root, up to `depthMax` deep, and has a long tail of
 * boxes far narrower than a pixel.
 */
export function makeLargeTree(count: number, depthMax = 90): FlameGraphJson {
  const random = createRandom(7);
  const frameCount = 40_000;
  const strings = ["", ...Array.from({ length: 60 }, (_, at) => `/usr/lib/x86_64-linux-gnu/libpart${at}.so.${at % 7}`), "src/lib.rs"];
  const names = strings.length;
  for (let frame = 0; frame < frameCount; frame += 1) strings.push(`module_${frame % 97}::type_${frame % 1013}::<impl core::fmt::Debug for T${frame % 31}>::function_${frame}`);
  const frames: FlameGraphJson["frames"] = { name: [], binary: [], file: [], line: [], kind: [] };
  for (let frame = 0; frame < frameCount; frame += 1) {
    frames.name.push(names + frame);
    frames.binary.push(1 + (frame % 60));
    frames.file.push(61);
    frames.line.push(frame % 4000);
    frames.kind.push(frame % 11 === 0 ? 1 : frame % 5 === 0 ? 2 : frame % 23 === 0 ? 3 : 0);
  }
  const nodes: FlameGraphJson["nodes"] = { depth: [], frame: [], total_ns: [], self_ns: [], samples: [] };
  const sampleNs = 10_000_000;
  const put = (depth: number, frame: number, samples: number, own: number): void => {
    nodes.depth.push(depth);
    nodes.frame.push(frame);
    nodes.samples.push(samples);
    nodes.total_ns.push(samples * sampleNs);
    nodes.self_ns.push(own * sampleNs);
  };
  // The size of a subtree follows from its share of the time.
  const grow = ({ left, depth }: Open, samples: number): void => {
    if (left <= 1 || depth >= depthMax || samples < 2) {
      put(depth, depth === 0 ? -1 : random.below(frameCount), samples, samples);
      return;
    }
    const own = depth < 3 ? 0 : Math.floor(samples * 0.03 * random.next());
    put(depth, depth === 0 ? -1 : random.below(frameCount), samples, own);
    const fan = depth === 0 ? 24 : random.next() < 0.55 ? 1 : 2 + random.below(6);
    const weights = Array.from({ length: Math.min(fan, samples - own) }, () => random.next() ** 3 + 0.002);
    const weight = weights.reduce((sum, value) => sum + value, 0);
    const children = weights.map((value) => Math.max(1, Math.floor(((samples - own) * value) / weight)));
    // The largest child takes the rounding error.
    children.sort((a, b) => b - a);
    children[0] = children[0]! + samples - own - children.reduce((sum, value) => sum + value, 0);
    for (const child of children) grow({ left: Math.max(1, ((left - 1) * child) / (samples - own)), depth: depth + 1 }, child);
  };
  const samples = 400_000_000;
  // Subtrees that end early leave the tree too small: ask for more until it is right within 5 %.
  let asked = count;
  for (let round = 0; round < 12; round += 1) {
    for (const column of Object.values(nodes) as number[][]) column.length = 0;
    grow({ left: asked, depth: 0 }, samples);
    const share = nodes.depth.length / count;
    if (share >= 1 && share < 1.05) break;
    asked = Math.ceil((asked * 1.02) / share);
  }
  return {
    from_ms: 0,
    to_ms: 900_000,
    total_ns: samples * sampleNs,
    samples,
    complete_ns: samples * sampleNs,
    kernel_only_ns: 0,
    unnamed_ns: 0,
    unnamed_self_ns: 0,
    outcomes: [],
    shown_nodes: nodes.depth.length,
    strings,
    frames,
    nodes,
  };
}
