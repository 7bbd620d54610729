// Paints boxes on a 2D canvas, in device pixels. Groups the boxes by colour, and draws text only in
// boxes with enough room. lib/flame-layout.ts decides the position of each box.
//
// The colour and the short names of a frame are computed when its box is first painted. The width
// of a text is the sum of its characters' widths, each measured once.
import { COLOUR, contrastOf, flamePalette, toCss, type FrameColours, type Theme } from "../lib/colour.ts";
import { formatNumberOf } from "../lib/format.ts";
import { SMALL_RUN, type Boxes } from "../lib/flame-layout.ts";
import { levelSuffix } from "../lib/flame-fold.ts";
import { CUT_FRAME, nameOf, type FlameTree } from "../lib/flame-tree.ts";
import { KIND } from "../lib/frame-kind.ts";
import { hasMatchWithin, type Matches } from "../lib/search.ts";
import { listShortForms } from "../lib/text.ts";

/** Sizes in rem. */
export const ROW_HEIGHT_REM = 1.9;
const FONT_SIZE_REM = 1.2;
const TEXT_PADDING_REM = 0.4;
/** The minimum width for two characters. */
const TEXT_WIDTH_MIN_REM = 2.2;
const MOVING_TEXT_WIDTH_MIN_REM = 6;
/** Boxes of at least this width, in CSS pixels, are drawn with a gap on the right. */
const GAP_WIDTH_MIN = 3;

export interface Scene {
  tree: FlameTree;
  boxes: Boxes;
  /** Frame -> index into the palette. */
  colourOf: FrameColours["colourOf"];
  /** Null if there is no search. */
  matches: Matches | null;
  /** The zoomed node; its ancestors are faint. */
  zoomed: number;
  scrollTop: number;
  /** CSS pixels. */
  rowHeight: number;
  theme: Theme;
  /** During a movement, only wide boxes get text. */
  moving: boolean;
}

export interface Painter {
  /** Sets the canvas's size in CSS pixels. */
  resize(width: number, height: number): void;
  paint(scene: Scene): void;
}

interface Brushes {
  fills: (string | CanvasPattern)[];
  match: string;
  text: string;
  textMatch: string;
  textFaint: string;
}

/** Opacity of boxes that do not match the search, and of the zoomed node's ancestors. */
const FAINT_ALPHA = { light: 0.42, dark: 0.42 };

function makeHatch(base: string, line: string, ratio: number): CanvasPattern | string {
  const size = Math.round(8 * ratio);
  const tile = document.createElement("canvas");
  tile.width = size;
  tile.height = size;
  const context = tile.getContext("2d");
  if (!context) return base;
  context.fillStyle = base;
  context.fillRect(0, 0, size, size);
  context.strokeStyle = line;
  context.lineWidth = ratio;
  context.beginPath();
  for (const shift of [-size, 0, size]) {
    context.moveTo(shift, size);
    context.lineTo(shift + size, 0);
  }
  context.stroke();
  return context.createPattern(tile, "repeat") ?? base;
}

function makeBrushes(theme: Theme, ratio: number): Brushes {
  const palette = flamePalette(theme);
  const dark = theme === "dark";
  const fills: Brushes["fills"] = palette.map(toCss);
  fills[COLOUR.unnamed] = makeHatch(toCss(palette[COLOUR.unnamed]!), dark ? "#4a515b" : "#cfd5dc", ratio);
  fills[COLOUR.cut] = makeHatch(toCss(palette[COLOUR.cut]!), dark ? "#565e69" : "#b9c1ca", ratio);
  const match = [245, 196, 81] as const;
  const text = dark ? ([234, 237, 241] as const) : ([27, 32, 38] as const);
  return {
    fills,
    match: toCss(match),
    text: toCss(text),
    textMatch: contrastOf(match, [20, 20, 20]) > 7 ? "#141414" : toCss(text),
    textFaint: dark ? "#a3acb6" : "#5d6670",
  };
}

/** Measures text in one font, each character once. */
function createTextMeasurer(context: CanvasRenderingContext2D): { widthOf(text: string): number; cut(text: string, width: number): string } {
  const widths = new Map<string, number>();
  const widthOfChar = (char: string): number => {
    let width = widths.get(char);
    if (width === undefined) {
      width = context.measureText(char).width;
      // Real names have a few hundred different characters; this limits the memory for a hostile
      // name.
      if (widths.size < 4096) widths.set(char, width);
    }
    return width;
  };
  return {
    widthOf(text) {
      let width = 0;
      for (const char of text) width += widthOfChar(char);
      return width;
    },
    cut(text, width) {
      const room = width - widthOfChar("…");
      let used = 0;
      let kept = "";
      for (const char of text) {
        used += widthOfChar(char);
        if (used > room) break;
        kept += char;
      }
      return kept === "" ? "" : `${kept}…`;
    },
  };
}

interface Form {
  text: string;
  width: number;
}

interface Labels {
  /**
   * The longest form of the node's name that fits into a width in device pixels; "" if none fits.
   */
  fit(tree: FlameTree, node: number, room: number): string;
}

/** Uses the context's font at the time of `fit`. */
function createLabels(context: CanvasRenderingContext2D): Labels {
  const measurer = createTextMeasurer(context);
  const forms = new Map<string, Form[]>();
  const fit: Labels["fit"] = (tree, node, room) => {
    const suffix = node === SMALL_RUN ? "" : levelSuffix(tree, node);
    if (suffix === "") return fitName(labelOf(tree, node), room);
    // The level suffix stays visible when the name is truncated.
    const name = fitName(labelOf(tree, node), room - measurer.widthOf(suffix));
    return name === "" ? "" : name + suffix;
  };
  const fitName = (name: string, room: number): string => {
    let known = forms.get(name);
    if (!known) {
      known = listShortForms(name.length > 2000 ? name.slice(0, 2000) : name).map((text) => ({ text, width: measurer.widthOf(text) }));
      if (forms.size > 50_000) forms.clear();
      forms.set(name, known);
    }
    const fitting = known.find(({ width }) => width <= room);
    if (fitting) return fitting.text;
    const shortest = known.at(-1);
    return shortest ? measurer.cut(shortest.text, room) : "";
  };
  return { fit };
}

function labelOf(tree: FlameTree, node: number): string {
  if (node === SMALL_RUN) return "many small functions";
  if (tree.frame[node] !== CUT_FRAME) return nameOf(tree, node);
  const count = tree.cut.get(node);
  return count === undefined ? "smaller functions" : formatNumberOf(count, "smaller function");
}

const COLOUR_COUNT = COLOUR.small + 1;
/** Buckets: colours at full opacity, the same colours faint, matches. */
const MATCH_BUCKET = COLOUR_COUNT * 2;
const BUCKET_COUNT = MATCH_BUCKET + 1;

function bucketOf(scene: Scene, box: number): number {
  const { boxes, matches } = scene;
  const node = boxes.node[box]!;
  if (node === SMALL_RUN) {
    if (!matches) return COLOUR.small;
    return hasMatchWithin(matches, boxes.runFirst[box]!, boxes.runEnd[box]!) ? MATCH_BUCKET : COLOUR.small + COLOUR_COUNT;
  }
  const frame = scene.tree.frame[node]!;
  if (frame >= 0 && matches?.frames[frame] === 1) return MATCH_BUCKET;
  const colour = frame >= 0 ? scene.colourOf(frame) : frame === CUT_FRAME ? COLOUR.cut : COLOUR.root;
  const above = node < scene.zoomed && scene.tree.end[node]! > scene.zoomed;
  return matches !== null || above ? colour + COLOUR_COUNT : colour;
}

interface Sorter {
  /** Returns the box numbers grouped by bucket, and the bucket of each box. */
  sort(scene: Scene): { order: Int32Array; buckets: Uint8Array };
  /** The bucket of a box in the last sorted scene. */
  bucket(box: number): number;
}

/** Sorts boxes by bucket: painting is fast when many boxes share one change of colour. */
function createSorter(): Sorter {
  let buckets = new Uint8Array(0);
  let order = new Int32Array(0);
  return {
    bucket: (box) => buckets[box]!,
    sort(scene) {
      const { boxes } = scene;
      if (order.length < boxes.count) {
        buckets = new Uint8Array(boxes.node.length);
        order = new Int32Array(boxes.node.length);
      }
      const starts = new Int32Array(BUCKET_COUNT + 1);
      for (let at = 0; at < boxes.count; at += 1) {
        const bucket = bucketOf(scene, at);
        buckets[at] = bucket;
        starts[bucket + 1] = starts[bucket + 1]! + 1;
      }
      for (let bucket = 0; bucket < BUCKET_COUNT; bucket += 1) starts[bucket + 1] = starts[bucket + 1]! + starts[bucket]!;
      for (let at = 0; at < boxes.count; at += 1) {
        const bucket = buckets[at]!;
        order[starts[bucket]!] = at;
        starts[bucket] = starts[bucket]! + 1;
      }
      return { order, buckets };
    },
  };
}

export function createPainter(canvas: HTMLCanvasElement): Painter | null {
  const context = canvas.getContext("2d", { alpha: false });
  if (!context) return null;
  // The key is our own: reading `context.font` creates a new string each time.
  const labelsByFont = new Map<string, Labels>();
  const labelsIn = (font: string): Labels => {
    let labels = labelsByFont.get(font);
    if (!labels) labelsByFont.set(font, (labels = createLabels(context)));
    return labels;
  };
  let brushes: Brushes | null = null;
  let brushKey = "";
  let background = "";
  const sorter = createSorter();

  function prepare(theme: Theme, ratio: number): Brushes {
    const key = `${theme} ${ratio}`;
    if (brushes === null || key !== brushKey) {
      brushes = makeBrushes(theme, ratio);
      brushKey = key;
      background = getComputedStyle(canvas).getPropertyValue("--panel").trim() || "#fff";
    }
    return brushes;
  }

  function paintBoxes(scene: Scene, used: Brushes, ratio: number): void {
    const { boxes, scrollTop } = scene;
    const { order, buckets } = sorter.sort(scene);
    const rowHeight = scene.rowHeight * ratio;
    const gap = Math.max(1, Math.round(ratio));
    let bucket = -1;
    for (let index = 0; index < boxes.count; index += 1) {
      const at = order[index]!;
      if (buckets[at] !== bucket) {
        bucket = buckets[at]!;
        const faint = bucket >= COLOUR_COUNT && bucket < MATCH_BUCKET;
        context!.globalAlpha = faint ? FAINT_ALPHA[scene.theme] : 1;
        context!.fillStyle = bucket === MATCH_BUCKET ? used.match : used.fills[faint ? bucket - COLOUR_COUNT : bucket]!;
      }
      const left = Math.round(boxes.x[at]! * ratio);
      const right = Math.round((boxes.x[at]! + boxes.width[at]!) * ratio);
      const top = Math.round(boxes.row[at]! * rowHeight - scrollTop * ratio);
      const bottom = Math.round((boxes.row[at]! + 1) * rowHeight - scrollTop * ratio) - gap;
      const width = boxes.width[at]! >= GAP_WIDTH_MIN ? right - left - gap : Math.max(1, right - left);
      context!.fillRect(left, top, width, bottom - top);
    }
    context!.globalAlpha = 1;
  }

  function paintTexts(scene: Scene, used: Brushes, ratio: number): void {
    const { tree, boxes, scrollTop } = scene;
    const rem = scene.rowHeight / ROW_HEIGHT_REM;
    const upright = `${FONT_SIZE_REM * rem * ratio}px system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif`;
    const slanted = `italic ${upright}`;
    const widthMin = (scene.moving ? MOVING_TEXT_WIDTH_MIN_REM : TEXT_WIDTH_MIN_REM) * rem;
    context!.textBaseline = "middle";
    context!.textAlign = "left";
    context!.direction = "ltr";
    for (const slant of [false, true]) {
      const font = slant ? slanted : upright;
      context!.font = font;
      const labels = labelsIn(font);
      let ink = "";
      for (let at = 0; at < boxes.count; at += 1) {
        const width = boxes.width[at]!;
        const node = boxes.node[at]!;
        if (width < widthMin) continue;
        const frame = node === SMALL_RUN ? CUT_FRAME : tree.frame[node]!;
        const kind = frame >= 0 ? tree.frames.kind[frame] : KIND.native;
        if ((kind === KIND.inlined || kind === KIND.unnamed || frame === CUT_FRAME) !== slant) continue;
        const text = labels.fit(tree, node, (width - 2 * TEXT_PADDING_REM * rem) * ratio);
        if (text === "") continue;
        const bucket = sorter.bucket(at);
        const wanted = bucket === MATCH_BUCKET ? used.textMatch : bucket >= COLOUR_COUNT ? used.textFaint : used.text;
        if (wanted !== ink) context!.fillStyle = ink = wanted;
        const x = Math.round((boxes.x[at]! + TEXT_PADDING_REM * rem) * ratio);
        const y = Math.round((boxes.row[at]! + 0.5) * scene.rowHeight * ratio - scrollTop * ratio);
        context!.fillText(text, x, y);
      }
    }
  }

  return {
    resize(width, height) {
      const ratio = window.devicePixelRatio || 1;
      const [pixelWidth, pixelHeight] = [Math.round(width * ratio), Math.round(height * ratio)];
      if (canvas.width !== pixelWidth) canvas.width = pixelWidth;
      if (canvas.height !== pixelHeight) canvas.height = pixelHeight;
      // Set both sizes, so that the browser does not scale the canvas: the scroller's width may be
      // fractional.
      canvas.style.width = `${width}px`;
      canvas.style.height = `${height}px`;
    },
    paint(scene) {
      const ratio = window.devicePixelRatio || 1;
      const used = prepare(scene.theme, ratio);
      context.globalAlpha = 1;
      context.fillStyle = background;
      context.fillRect(0, 0, canvas.width, canvas.height);
      paintBoxes(scene, used, ratio);
      paintTexts(scene, used, ratio);
    },
  };
}
