// What the kinds of frames are, in words: the legend's and the hover card's.
import { LEFT_OUT_NAME } from "./outcomes.ts";

export const KIND = { native: 0, kernel: 1, inlined: 2, unnamed: 3 } as const;

export interface KindText {
  label: string;
  meaning: string;
}

const TEXTS: Record<number, KindText> = {
  [KIND.native]: { label: "User code", meaning: "Native code of a program or library, running in user space." },
  [KIND.kernel]: { label: "Kernel", meaning: "Code of the kernel, on behalf of the process above it." },
  [KIND.inlined]: {
    label: "Inlined",
    meaning: "The compiler copied this function into its caller. The machine has no call here; debug information tells it apart.",
  },
  [KIND.unnamed]: { label: "Unnamed", meaning: "The time is real and counted, but no name is known for this address." },
};

/** By the words that the server puts in brackets in the place of a name. */
const REASONS: Record<string, string> = {
  "no mapping": "The address lies in no file or memory area that the collector knew of. Often the process mapped it just before it ended.",
  "anonymous memory": "Executable memory without a file: a just-in-time compiler wrote it, and left no map of its names.",
  "file gone": "The file was deleted or replaced before it could be read.",
  "no symbol": "The file was read and has no symbol for this address. It is stripped: install its debug symbols.",
  "no permission": "The collector may not read the file.",
  "corrupt file": "The file's symbols could not be parsed.",
  "limit reached": "A limit of the collector was reached before this address was named. Its metrics say which.",
  "process unknown": "The process ended before its mappings were known.",
};

const LEFT_OUT = "No function: the stack is deeper than 1,024 frames, of which the first and the last 512 are kept. It was walked to its end.";

export function kindLabel(kind: number): string {
  return TEXTS[kind]?.label ?? "Other";
}

/** Says what a frame of this kind and name is. An unnamed frame's `[reason]` is explained. */
export function explainFrame(kind: number, name: string): string {
  if (name === LEFT_OUT_NAME) return LEFT_OUT;
  const text = TEXTS[kind]?.meaning ?? "A kind of frame that this page does not know.";
  if (kind !== KIND.unnamed) return text;
  const reason = /^\[(.+)\]$/.exec(name)?.[1];
  const known = reason === undefined ? undefined : REASONS[reason];
  if (known !== undefined) return `${text} ${known}`;
  if (/\+0x[0-9a-f]+$/i.test(name)) {
    return `${text} What is shown is the file and the place in it, which stay valid: symbols that are installed later can name it.`;
  }
  return text;
}
