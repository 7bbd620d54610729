// Replaces a cut part of a tree by a subtree that was fetched later, so that search, percentages
// and breadcrumbs work on one tree.
import { buildTree, frameKey, type FlameTree, type FrameTable } from "./flame-tree.ts";

interface JoinedFrames {
  frames: FrameTable;
  /** Frame of the grafted subtree -> frame of the joined table. */
  translated: Int32Array;
}

function joinFrames(base: FrameTable, added: FrameTable): JoinedFrames {
  const unnamed = new Map(base.unnamed);
  const frames: FrameTable = {
    name: [...base.name],
    binary: [...base.binary],
    file: [...base.file],
    line: [...base.line],
    kind: [...base.kind],
    unnamed,
  };
  const known = new Map<string, number>();
  for (let frame = 0; frame < base.name.length; frame += 1) known.set(frameKey(base, frame), frame);
  const translated = new Int32Array(added.name.length);
  for (let frame = 0; frame < added.name.length; frame += 1) {
    const key = frameKey(added, frame);
    let index = known.get(key);
    if (index === undefined) {
      index = frames.name.length;
      frames.name.push(added.name[frame]!);
      frames.binary.push(added.binary[frame]!);
      frames.file.push(added.file[frame]!);
      frames.line.push(added.line[frame]!);
      frames.kind.push(added.kind[frame]!);
      const why = added.unnamed.get(frame);
      if (why) unnamed.set(index, why);
      known.set(key, index);
    }
    translated[frame] = index;
  }
  return { frames, translated };
}

/**
 * Replaces the descendants of `node` by those of the root of `branch`. The node keeps its frame and
 * its sums, which are exact in both trees.
 */
export function graftBranch(tree: FlameTree, node: number, branch: FlameTree): FlameTree {
  const end = tree.end[node]!;
  const added = branch.length - 1;
  const shift = added - (end - node - 1);
  const length = tree.length + shift;
  const { frames, translated } = joinFrames(tree.frames, branch.frames);
  const base = tree.depth[node]!;

  const splice = <T extends Int32Array | Uint16Array | Float64Array>(old: T, grafted: T): T => {
    const joined = new (old.constructor as new (length: number) => T)(length);
    joined.set(old.subarray(0, node + 1));
    joined.set(grafted.subarray(1), node + 1);
    joined.set(old.subarray(end), node + 1 + added);
    return joined;
  };
  const branchFrames = branch.frame.map((frame) => (frame < 0 ? frame : translated[frame]!));
  const branchDepths = branch.depth.map((depth) => depth + base);

  const cut = new Map<number, number>();
  for (const [at, count] of tree.cut) {
    if (at <= node) cut.set(at, count);
    else if (at >= end) cut.set(at + shift, count);
  }
  for (const [at, count] of branch.cut) cut.set(at + node, count);

  return buildTree({
    depth: splice(tree.depth, branchDepths),
    frame: splice(tree.frame, branchFrames),
    total: splice(tree.total, branch.total),
    samples: splice(tree.samples, branch.samples),
    cut,
    frames,
  });
}
