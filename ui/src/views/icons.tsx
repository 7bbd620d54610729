// Icons in the text's colour. They are decorative: each button also has a text.
import type { JSX } from "preact";

const PATHS = {
  refresh: "M13 8a5 5 0 1 1-1.5-3.6M13 2v3h-3",
  left: "M10 3 5 8l5 5",
  right: "M6 3l5 5-5 5",
  down: "M3 6l5 5 5-5",
  close: "M4 4l8 8M12 4l-8 8",
  search: "M7 12A5 5 0 1 0 7 2a5 5 0 0 0 0 10zM11 11l3 3",
  clock: "M8 14A6 6 0 1 0 8 2a6 6 0 0 0 0 12zM8 5v3l2 2",
  wider: "M6 4 2 8l4 4M10 4l4 4-4 4",
  sun: "M8 11a3 3 0 1 0 0-6 3 3 0 0 0 0 6zM8 1v1.5M8 13.5V15M1 8h1.5M13.5 8H15M3 3l1 1M12 12l1 1M13 3l-1 1M4 12l-1 1",
  moon: "M13 9.5A5.5 5.5 0 0 1 6.5 3 5.5 5.5 0 1 0 13 9.5z",
  auto: "M8 2a6 6 0 1 0 0 12zM8 2a6 6 0 0 1 0 12",
  copy: "M6 5h7v9H6zM4 11H3V2h7v1",
  plus: "M8 3v10M3 8h10",
  fold: "M3 2h10M3 14h10M8 4.5v7M5.5 6 8 4l2.5 2M5.5 10 8 12l2.5-2",
  more: "M3 8h.01M8 8h.01M13 8h.01",
} as const;

export type IconName = keyof typeof PATHS;

export function Icon({ name }: { name: IconName }): JSX.Element {
  return (
    <svg class="icon" viewBox="0 0 16 16" aria-hidden="true" focusable="false">
      <path d={PATHS[name]} />
    </svg>
  );
}

/** The product's logo. */
export function Flame(): JSX.Element {
  return (
    <svg class="mark" viewBox="0 0 32 32" aria-hidden="true" focusable="false">
      <path class="mark-outer" d="M16 3c1 5 8 8 8 16a8 8 0 0 1-16 0c0-4 2-6 3-9 1 2 2 3 3 3 1-3 1-6 2-10z" />
      <path class="mark-inner" d="M16 16c1 2 4 3 4 7a4 4 0 0 1-8 0c0-3 3-4 4-7z" />
    </svg>
  );
}
