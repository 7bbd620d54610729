import { describe, expect, it } from "vitest";
import { assignHues, chartPalette, COLOUR, colourFrames, contrastOf, flamePalette, HUE_COUNT, inlinedColour, nativeColour, toRgb } from "../../src/lib/colour.ts";
import { treeFromText } from "./tree-text.ts";

describe("palettes", () => {
  it("have enough contrast for text on every box", () => {
    const texts = { light: [27, 32, 38], dark: [234, 237, 241] } as const;
    for (const theme of ["light", "dark"] as const) {
      for (const colour of flamePalette(theme)) expect(contrastOf(colour, texts[theme])).toBeGreaterThan(4.5);
    }
  });
  it("differ within each theme", () => {
    for (const theme of ["light", "dark"] as const) {
      const flame = flamePalette(theme).map(String);
      expect(flame).toHaveLength(COLOUR.small + 1);
      expect(new Set(flame).size).toBe(flame.length);
      expect(new Set(chartPalette(theme).map(String)).size).toBe(HUE_COUNT);
    }
  });
});

it("converts OKLCH as the reference does", () => {
  expect(toRgb({ lightness: 1, chroma: 0, hue: 0 })).toEqual([255, 255, 255]);
  expect(toRgb({ lightness: 0, chroma: 0, hue: 0 })).toEqual([0, 0, 0]);
  // oklch(0.628 0.2577 29.23) is sRGB red.
  const [red, green, blue] = toRgb({ lightness: 0.62796, chroma: 0.25768, hue: 29.234 });
  expect(red).toBeGreaterThan(253);
  expect(green).toBeLessThan(3);
  expect(blue).toBeLessThan(3);
  expect(contrastOf([0, 0, 0], [255, 255, 255])).toBeCloseTo(21);
});

it("gives the first names different hues, and a name the same hue again", () => {
  const names = Array.from({ length: HUE_COUNT + 3 }, (_, at) => `lib${at}.so`);
  const hues = assignHues(names);
  expect(new Set(names.slice(0, HUE_COUNT).map((name) => hues.get(name))).size).toBe(HUE_COUNT);
  expect(assignHues([names[0]!]).get(names[0]!)).toBe(hues.get(names[0]!));
});

it("colours frames by kind and binary", () => {
  const tree = treeFromText("main@/a;i:small@/a 5\nmain@/a;k:read@[kernel] 3\nmain@/a;?:[anonymous]@/a 1");
  const { colourOf, binaries } = colourFrames(tree);
  const hue = binaries[0]!.hue;
  expect(tree.frames.name).toEqual(["main", "small", "read", "[anonymous]"]);
  const within = (colour: number, first: number): boolean => colour >= first && colour < first + 3;
  expect(within(colourOf(0), nativeColour(hue))).toBe(true);
  expect(within(colourOf(1), inlinedColour(hue))).toBe(true);
  expect(within(colourOf(2), COLOUR.kernel)).toBe(true);
  expect(colourOf(3)).toBe(COLOUR.unnamed);
  expect([3, 2, 1, 0].map(colourOf).reverse()).toEqual([0, 1, 2, 3].map(colourFrames(tree).colourOf));
  expect(binaries.map(({ binary }) => binary)).toEqual(["/a"]);
});
