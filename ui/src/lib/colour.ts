// Colours of the flame graph and the chart, computed in OKLCH so that colours of equal lightness
// look equally light. Hue is never the only sign of a frame's kind: kernel frames are grey, inlined
// frames are paler with slanted text, unnamed and cut frames are hatched.
import { KIND } from "./frame-kind.ts";
import type { FlameTree } from "./flame-tree.ts";
import { LEFT_OUT_NAME } from "./outcomes.ts";

export type Theme = "light" | "dark";

/** sRGB, each 0 to 255. */
export type Rgb = readonly [red: number, green: number, blue: number];

interface Oklch {
  lightness: number;
  chroma: number;
  hue: number;
}

/** Converts OKLCH to sRGB by Björn Ottosson's matrices, and clips colours outside of sRGB. */
export function toRgb({ lightness, chroma, hue }: Oklch): Rgb {
  const angle = (hue * Math.PI) / 180;
  const [a, b] = [chroma * Math.cos(angle), chroma * Math.sin(angle)];
  const l = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3;
  const m = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3;
  const s = (lightness - 0.0894841775 * a - 1.291485548 * b) ** 3;
  const linear = [
    4.0767416621 * l - 3.3077115913 * m + 0.2309699292 * s,
    -1.2684380046 * l + 2.6097574011 * m - 0.3413193965 * s,
    -0.0041960863 * l - 0.7034186147 * m + 1.707614701 * s,
  ];
  const [red, green, blue] = linear.map((value) => {
    const gamma = value <= 0.0031308 ? 12.92 * value : 1.055 * value ** (1 / 2.4) - 0.055;
    return Math.round(255 * Math.min(1, Math.max(0, gamma)));
  });
  return [red!, green!, blue!];
}

export function toCss([red, green, blue]: Rgb): string {
  return `rgb(${red} ${green} ${blue})`;
}

/** The contrast ratio of two colours by WCAG 2, 1 to 21. */
export function contrastOf(a: Rgb, b: Rgb): number {
  const luminance = (rgb: Rgb): number => {
    const [red, green, blue] = rgb.map((value) => {
      const share = value / 255;
      return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * red! + 0.7152 * green! + 0.0722 * blue!;
  };
  const [light, dark] = [luminance(a), luminance(b)].sort((x, y) => y - x);
  return (light! + 0.05) / (dark! + 0.05);
}

/**
 * Neighbouring hues also differ for people with the common forms of colour blindness: they
 * alternate between blue and yellow, and in lightness.
 */
const HUES = [
  { hue: 250, lift: 0 },
  { hue: 75, lift: 0.03 },
  { hue: 175, lift: -0.02 },
  { hue: 310, lift: 0.02 },
  { hue: 35, lift: -0.01 },
  { hue: 215, lift: 0.03 },
  { hue: 110, lift: 0 },
  { hue: 350, lift: 0.02 },
] as const;

export const HUE_COUNT = HUES.length;

/**
 * Differences in lightness between the functions of one binary, so that neighbouring boxes do not
 * look like one.
 */
const SHADES = [0, -0.022, 0.022] as const;

const HUED_COUNT = HUE_COUNT * 2 * SHADES.length;

/**
 * Index of each colour in the palette: for each hue the shades of native code, then of inlined
 * code; then the kernel's shades; then the others.
 */
export const COLOUR = {
  kernel: HUED_COUNT,
  unnamed: HUED_COUNT + SHADES.length,
  cut: HUED_COUNT + SHADES.length + 1,
  root: HUED_COUNT + SHADES.length + 2,
  small: HUED_COUNT + SHADES.length + 3,
} as const;

export function nativeColour(hue: number, shade = 0): number {
  return hue * 2 * SHADES.length + shade;
}

export function inlinedColour(hue: number, shade = 0): number {
  return (hue * 2 + 1) * SHADES.length + shade;
}

/** The flame graph's palette, by index. */
export function flamePalette(theme: Theme): Rgb[] {
  const dark = theme === "dark";
  const inShades = ({ lightness, chroma, hue }: Oklch): Rgb[] => SHADES.map((shade) => toRgb({ lightness: lightness + shade, chroma, hue }));
  const hued = HUES.flatMap(({ hue, lift }) => [
    ...inShades({ lightness: (dark ? 0.44 : 0.83) + lift, chroma: dark ? 0.062 : 0.054, hue }),
    ...inShades({ lightness: (dark ? 0.36 : 0.905) + lift, chroma: dark ? 0.042 : 0.03, hue }),
  ]);
  const kernel = inShades({ lightness: dark ? 0.4 : 0.82, chroma: 0.012, hue: 260 });
  const grey = (lightness: number): Rgb => toRgb({ lightness, chroma: 0.008, hue: 260 });
  return [...hued, ...kernel, ...(dark ? [0.31, 0.25, 0.34, 0.28] : [0.93, 0.96, 0.89, 0.92]).map(grey)];
}

/** The chart's palette: the same hues with more chroma. */
export function chartPalette(theme: Theme): Rgb[] {
  const dark = theme === "dark";
  return HUES.map(({ hue, lift }) => toRgb({ lightness: (dark ? 0.66 : 0.64) + lift * 1.5, chroma: 0.11, hue }));
}

export function restColour(theme: Theme): Rgb {
  return toRgb({ lightness: theme === "dark" ? 0.48 : 0.74, chroma: 0.008, hue: 260 });
}

/** Limits the work for a tree of a million long names; the first characters differ enough. */
const HASHED_CHARACTERS_MAX = 256;

/** FNV-1a, a small stable hash: a name has the same hue on each load of the page. */
function hashText(text: string): number {
  let hash = 0x811c9dc5;
  const length = Math.min(text.length, HASHED_CHARACTERS_MAX);
  for (let at = 0; at < length; at += 1) hash = Math.imul(hash ^ text.charCodeAt(at), 0x01000193);
  return hash >>> 0;
}

/**
 * Assigns hues to names, the most important first: each name gets the hue of its hash, or the next
 * free one. So the largest binaries differ from each other, and most keep their hue from query to
 * query.
 */
export function assignHues(names: readonly string[]): Map<string, number> {
  const hues = new Map<string, number>();
  const taken = new Set<number>();
  for (const name of names) {
    let hue = hashText(name) % HUE_COUNT;
    if (taken.size < HUE_COUNT) while (taken.has(hue)) hue = (hue + 1) % HUE_COUNT;
    taken.add(hue);
    hues.set(name, hue);
  }
  return hues;
}

export interface FrameColours {
  /**
   * Frame -> index into the palette. Computed on demand: only a small part of a large tree's frames
   * is ever drawn.
   */
  colourOf(frame: number): number;
  /** The binaries by self time, largest first, for the legend. */
  binaries: { binary: string; hue: number; selfNs: number }[];
}

/** The colour is not computed yet. */
const NOT_YET = 255;

/** Colours each frame of a tree by its binary and kind. */
export function colourFrames(tree: FlameTree): FrameColours {
  const { frames } = tree;
  // Sum by frame first: a tree has far fewer frames than nodes, and each look-up by name is slow.
  const selfOfFrame = new Float64Array(frames.name.length);
  for (let node = 1; node < tree.length; node += 1) {
    const frame = tree.frame[node]!;
    if (frame >= 0) selfOfFrame[frame] = selfOfFrame[frame]! + tree.self[node]!;
  }
  const selfNs = new Map<string, number>();
  selfOfFrame.forEach((ns, frame) => {
    if (frames.kind[frame] === KIND.kernel) return;
    const binary = frames.binary[frame]!;
    selfNs.set(binary, (selfNs.get(binary) ?? 0) + ns);
  });
  const ranked = [...selfNs].sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1));
  const hues = assignHues(ranked.map(([binary]) => binary));
  const known = new Uint8Array(frames.name.length).fill(NOT_YET);
  const choose = (frame: number): number => {
    const hue = hues.get(frames.binary[frame]!) ?? 0;
    const kind = frames.kind[frame];
    if (kind === KIND.unnamed || frames.name[frame] === LEFT_OUT_NAME) return COLOUR.unnamed;
    const shade = hashText(frames.name[frame]!) % SHADES.length;
    if (kind === KIND.kernel) return COLOUR.kernel + shade;
    return kind === KIND.inlined ? inlinedColour(hue, shade) : nativeColour(hue, shade);
  };
  const colourOf = (frame: number): number => {
    if (known[frame] === NOT_YET) known[frame] = choose(frame);
    return known[frame]!;
  };
  return { colourOf, binaries: ranked.map(([binary, ns]) => ({ binary, hue: hues.get(binary)!, selfNs: ns })) };
}
