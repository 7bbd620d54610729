// Texts for the kinds of frames, for the legend and the hover card.
import { LEFT_OUT_NAME } from "./outcomes.ts";
import { describeReason } from "./reasons.ts";

export const KIND = { native: 0, kernel: 1, inlined: 2, unnamed: 3 } as const;

export interface KindText {
  label: string;
  meaning: string;
}

const TEXTS: Record<number, KindText> = {
  [KIND.native]: { label: "User code", meaning: "Native code of a program or library, running in user space." },
  [KIND.kernel]: { label: "Kernel", meaning: "Kernel code, running on behalf of the process above it." },
  [KIND.inlined]: {
    label: "Inlined",
    meaning: "The compiler copied this function into its caller. The machine code has no call here; the debug information describes it.",
  },
  [KIND.unnamed]: { label: "Unnamed", meaning: "The time is counted, but the name of this function is unknown. The number is the start of the function in its file, or the address if the start is unknown too." },
};

/** The server's prefix of a binary name for JIT code. */
const JIT = "[JIT] ";

const JIT_TEXT: KindText = {
  label: "JIT code",
  meaning: "Code that the program's just-in-time compiler generated. The compiler wrote its name to a perf map or a jitdump.",
};

/** Reasons, by the text in brackets that the server uses as the name of an unnamed frame. */
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
  "code replaced": "replaced",
};

const LEFT_OUT = "Not a function. The stack is deeper than 1,024 frames: it was walked to its end, and the first and the last 512 frames are kept.";

export function kindLabel(kind: number, binary = ""): string {
  return textOf(kind, binary)?.label ?? "Other";
}

function textOf(kind: number, binary: string): KindText | undefined {
  return kind === KIND.native && binary.startsWith(JIT) ? JIT_TEXT : TEXTS[kind];
}

/**
 * Describes a frame of this kind and name. For an unnamed frame, includes the reason: the server's,
 * or else the one in the bracketed name.
 */
export function explainFrame(kind: number, name: string, reason = reasonIn(name), binary = ""): string {
  if (name === LEFT_OUT_NAME) return LEFT_OUT;
  const text = textOf(kind, binary)?.meaning ?? "A kind of frame that this page does not know.";
  if (kind !== KIND.unnamed) return text;
  const known = reason === undefined ? "" : ` ${describeReason(reason).meaning}`;
  if (!binary.startsWith(JIT) && /\+0x[0-9a-f]+$/i.test(name)) {
    return `${text}${known} The file and the offset stay valid: symbols that are found later name it.`;
  }
  return text + known;
}

function reasonIn(name: string): string | undefined {
  const words = /^\[(.+)\]$/.exec(name)?.[1] ?? "";
  return Object.hasOwn(BRACKETS, words) ? BRACKETS[words] : undefined;
}
