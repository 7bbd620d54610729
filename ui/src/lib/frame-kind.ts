// What the kinds of frames are, in words: the legend's and the hover card's.
import { LEFT_OUT_NAME } from "./outcomes.ts";
import { describeReason } from "./reasons.ts";

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
  [KIND.unnamed]: { label: "Unnamed", meaning: "The time is real and counted, but no name is known for this function. The number is where it starts in its file, or, if that is not known either, the address itself." },
};

/** What the server puts before the name of a program for the code that it makes. */
const JIT = "[JIT] ";

const JIT_TEXT: KindText = {
  label: "JIT code",
  meaning: "Code that the program made while it ran. Its compiler wrote down what it is called, in a perf map or a jitdump.",
};

/** The reasons by the words that the server puts in brackets in the place of a name. */
const BRACKETS: Record<string, string> = {
  "no mapping": "no_mapping",
  "anonymous memory": "anonymous",
  "file gone": "file_gone",
  "no symbol": "no_symbol",
  "no permission": "permission",
  "corrupt file": "corrupt",
  "limit reached": "limit",
  "process unknown": "process_unknown",
  "file system hangs": "not_answering",
};

const LEFT_OUT = "No function: the stack is deeper than 1,024 frames, of which the first and the last 512 are kept. It was walked to its end.";

export function kindLabel(kind: number, binary = ""): string {
  return textOf(kind, binary)?.label ?? "Other";
}

function textOf(kind: number, binary: string): KindText | undefined {
  return kind === KIND.native && binary.startsWith(JIT) ? JIT_TEXT : TEXTS[kind];
}

/** Says what a frame of this kind and name is. Of an unnamed one the reason is explained: what the server says, or the name in brackets. */
export function explainFrame(kind: number, name: string, reason = reasonIn(name), binary = ""): string {
  if (name === LEFT_OUT_NAME) return LEFT_OUT;
  const text = textOf(kind, binary)?.meaning ?? "A kind of frame that this page does not know.";
  if (kind !== KIND.unnamed) return text;
  const known = reason === undefined ? "" : ` ${describeReason(reason).meaning}`;
  if (!binary.startsWith(JIT) && /\+0x[0-9a-f]+$/i.test(name)) {
    return `${text}${known} What is shown is the file and the place in it, which stay valid: symbols that are found later name it.`;
  }
  return text + known;
}

function reasonIn(name: string): string | undefined {
  const words = /^\[(.+)\]$/.exec(name)?.[1] ?? "";
  return Object.hasOwn(BRACKETS, words) ? BRACKETS[words] : undefined;
}
