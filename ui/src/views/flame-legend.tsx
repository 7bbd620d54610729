// The legend of the flame graph's colours.
import type { JSX } from "preact";
import { COLOUR, flamePalette, inlinedColour, nativeColour, toCss, type FrameColours, type Theme } from "../lib/colour.ts";
import { baseName, showUnsafe } from "../lib/text.ts";

/** Binaries in the legend, by self time. */
const BINARIES_MAX = 5;

export function FlameLegend({ colours, theme }: { colours: FrameColours; theme: Theme }): JSX.Element {
  const palette = flamePalette(theme);
  const swatch = (colour: number, className = ""): JSX.Element => (
    <span class={`swatch ${className}`} style={{ backgroundColor: toCss(palette[colour]!) }} />
  );
  const binaries = colours.binaries.filter(({ binary }) => binary !== "").slice(0, BINARIES_MAX);
  return (
    <footer class="flame-legend muted">
      {binaries.map(({ binary, hue }) => (
        <span key={binary} title={showUnsafe(binary)}>{swatch(nativeColour(hue))}<bdi>{showUnsafe(baseName(binary))}</bdi></span>
      ))}
      <span class="spacer" />
      <span>{swatch(inlinedColour(0))}<i>inlined</i> (paler)</span>
      <span>{swatch(COLOUR.kernel)}kernel</span>
      <span>{swatch(COLOUR.unnamed, "swatch-hatched")}<i>unnamed</i></span>
    </footer>
  );
}
