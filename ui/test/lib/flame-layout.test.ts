import { describe, expect, it } from "vitest";
import { createBoxes, findCovering, layOutBoxes, panSpan, SMALL_RUN, spanOf, zoomSpan, type Viewport } from "../../src/lib/flame-layout.ts";
import { findNodeAt, nameOf, type FlameTree } from "../../src/lib/flame-tree.ts";
import { hasMatchWithin, searchTree } from "../../src/lib/search.ts";
import { createRandom } from "../fixture/random.ts";
import { treeFromText } from "./tree-text.ts";

const WHOLE: Omit<Viewport, "span"> = { width: 100, rowFirst: 0, rowEnd: 99, widthMin: 0.75 };

function layOut(tree: FlameTree, view: Partial<Viewport> = {}): string[] {
  const boxes = layOutBoxes(tree, { ...WHOLE, span: spanOf(tree, 0), ...view }, createBoxes(1));
  return Array.from({ length: boxes.count }, (_, at) => {
    const node = boxes.node[at]!;
    const name = node === SMALL_RUN ? "~" : nameOf(tree, node);
    return `${boxes.row[at]} ${name} ${boxes.x[at]!.toFixed(1)}+${boxes.width[at]!.toFixed(1)}`;
  });
}

const TREE = treeFromText("main;work;inner 40\nmain;work 20\nmain;rest 30\nk:kthread 10");

describe("layOutBoxes", () => {
  it("lays out everything when everything fits", () => {
    expect(layOut(TREE)).toEqual(["0 all 0.0+100.0", "1 main 0.0+90.0", "2 work 0.0+60.0", "3 inner 0.0+40.0", "2 rest 60.0+30.0", "1 kthread 90.0+10.0"]);
  });
  it("clips to the span, ancestors included", () => {
    expect(layOut(TREE, { span: { start: 60, end: 80 } })).toEqual(["0 all 0.0+100.0", "1 main 0.0+100.0", "2 rest 0.0+100.0"]);
    expect(layOut(TREE, { span: { start: 30, end: 80 } })).toEqual(["0 all 0.0+100.0", "1 main 0.0+100.0", "2 work 0.0+60.0", "3 inner 0.0+20.0", "2 rest 60.0+40.0"]);
  });
  it("leaves out invisible rows", () => {
    expect(layOut(TREE, { rowFirst: 1, rowEnd: 2 })).toEqual(["1 main 0.0+90.0", "1 kthread 90.0+10.0"]);
    expect(layOut(TREE, { span: { start: 30, end: 80 }, rowFirst: 3 })).toEqual(["3 inner 0.0+20.0"]);
  });
  it("draws narrow siblings as one run, up to the end of the parent's children", () => {
    const tree = treeFromText(["a 900", ...Array.from({ length: 50 }, (_, at) => `b${at};c 2`)].join("\n"));
    expect(layOut(tree)).toEqual(["0 all 0.0+100.0", "1 a 0.0+90.0", "1 ~ 90.0+10.0"]);
  });
  it("has the nodes of each run", () => {
    const tree = treeFromText(["a;x 900", ...Array.from({ length: 50 }, (_, at) => `b${at};c 2`)].join("\n"));
    const boxes = layOutBoxes(tree, { ...WHOLE, span: spanOf(tree, 0) }, createBoxes());
    const run = boxes.count - 1;
    expect([boxes.runFirst[run], boxes.runEnd[run]]).toEqual([3, 103]);
    const matches = searchTree(tree, (name) => name === "c");
    expect(hasMatchWithin(matches, 3, 103)).toBe(true);
    expect(hasMatchWithin(matches, 0, 4)).toBe(false);
    expect(hasMatchWithin(searchTree(tree, () => false), 0, 103)).toBe(false);
  });
  it("draws nothing for an empty tree or canvas", () => {
    expect(layOut(treeFromText("a 0"))).toEqual([]);
    expect(layOut(TREE, { width: 0 })).toEqual([]);
  });
});

/** A random tree. */
function randomTree(seed: number): FlameTree {
  const random = createRandom(seed);
  const lines = Array.from({ length: 60 }, () => {
    const depth = 1 + random.below(8);
    return `${Array.from({ length: depth }, () => `f${random.below(4)}`).join(";")} ${1 + random.below(30)}`;
  });
  return treeFromText(lines.join("\n"));
}

describe("over random trees", () => {
  it("each sufficiently wide box in the span is drawn once at its position", () => {
    for (let seed = 1; seed <= 40; seed += 1) {
      const tree = randomTree(seed);
      const random = createRandom(seed * 7);
      const whole = tree.total[0]!;
      const start = random.next() * whole * 0.8;
      const span = { start, end: start + (0.05 + random.next() * 0.2) * whole };
      const scale = 100 / (span.end - span.start);
      const boxes = layOutBoxes(tree, { ...WHOLE, span }, createBoxes());
      const drawn = new Map(Array.from({ length: boxes.count }, (_, at) => [boxes.node[at]!, at]));
      for (let node = 0; node < tree.length; node += 1) {
        const left = Math.max(0, (tree.start[node]! - span.start) * scale);
        const right = Math.min(100, (tree.start[node]! + tree.total[node]! - span.start) * scale);
        const wide = tree.total[node]! * scale >= WHOLE.widthMin;
        if (right - left > 1e-6 && wide) {
          const at = drawn.get(node);
          expect(at, `seed ${seed}, node ${node}`).toBeDefined();
          expect(boxes.x[at!]).toBeCloseTo(left, 3);
          expect(boxes.width[at!]).toBeCloseTo(right - left, 3);
        } else if (right <= left) {
          expect(drawn.has(node)).toBe(false);
        }
      }
    }
  });

  it("finds the drawn box at a point", () => {
    for (let seed = 1; seed <= 20; seed += 1) {
      const tree = randomTree(seed);
      const boxes = layOutBoxes(tree, { ...WHOLE, width: 100_000, span: spanOf(tree, 0) }, createBoxes());
      const scale = tree.total[0]! / 100_000;
      for (let at = 0; at < boxes.count; at += 1) {
        expect(findNodeAt(tree, (boxes.x[at]! + boxes.width[at]! / 2) * scale, boxes.row[at]!)).toBe(boxes.node[at]);
      }
    }
  });
});

describe("spans", () => {
  it("keep the position of the zoomed point", () => {
    expect(zoomSpan({ start: 0, end: 100 }, 0.5, 40, 100)).toEqual({ start: 20, end: 70 });
  });
  it("stay within the tree, and never become empty", () => {
    expect(zoomSpan({ start: 20, end: 70 }, 10, 40, 100)).toEqual({ start: 0, end: 100 });
    const tiny = zoomSpan({ start: 50, end: 51 }, 1e-9, 50.5, 100);
    expect(tiny.end - tiny.start).toBe(1);
    expect(panSpan({ start: 80, end: 100 }, 50, 100)).toEqual({ start: 80, end: 100 });
    expect(panSpan({ start: 80, end: 100 }, -500, 100)).toEqual({ start: 0, end: 20 });
  });
  it("are covered by the smallest node that holds them", () => {
    expect(nameOf(TREE, findCovering(TREE, { start: 5, end: 30 }))).toBe("inner");
    expect(nameOf(TREE, findCovering(TREE, { start: 30, end: 70 }))).toBe("main");
    expect(findCovering(TREE, { start: 0, end: 100 })).toBe(0);
  });
});
