// Texts for the outcomes of stack walks: a label, an explanation, and advice for incomplete stacks.

export interface OutcomeText {
  label: string;
  meaning: string;
  /** The remedy; absent if there is none. */
  advice?: string;
}

const TEXTS: Record<string, OutcomeText> = {
  complete: { label: "walked in the kernel", meaning: "Walked in the kernel to the entry of the thread or process, when the sample was taken." },
  copied: {
    label: "copied and walked later",
    meaning: "The top of the stack was copied, and the collector walked the copy to its end. This is normal for the first samples of a new process.",
  },
  middle_left_out: {
    label: "complete, middle left out",
    meaning: "Walked to its end, but deeper than 1,024 frames: the first 512 and the last 512 are kept, with [frames left out] between them.",
  },
  by_instructions: {
    label: "walked by instructions",
    meaning: "Walked to the entry of the thread or process. A part of the code has no unwind tables; there the rules were made from its instructions, and are certain.",
  },
  uncertain: {
    label: "walked by uncertain rules",
    meaning: "Walked to an end, but a function on the stack has no unwind tables, and its instructions show the way to its caller only by a path that may not be the right one: up to 5 % of such rules are wrong.",
    advice: "Most often a function that ends in a call that never returns. Build it with unwind tables (-fasynchronous-unwind-tables, or .cfi_ directives in assembly).",
  },
  undecided: {
    label: "caller not found in the instructions",
    meaning: "A function on the stack has no unwind tables, and its instructions do not show where its caller is.",
    advice: "Build it with unwind tables (-fasynchronous-unwind-tables, or .cfi_ directives in assembly), or with frame pointers (-fno-omit-frame-pointer).",
  },
  kernel_only: { label: "no user stack", meaning: "A kernel thread: it has no user stack." },
  cut_at_depth: {
    label: "deeper than the limit",
    meaning: "The stack is deeper than the limit of 4,096 frames; the frames nearest to the root are missing.",
    advice: "Such depth is almost always recursion. Fold recursion in the flame graph to see the frames below it.",
  },
  cut_by_budget: {
    label: "time budget used up",
    meaning: "Deep stacks had used up the time budget of the processor in that second, so the walk stopped early.",
    advice: "A program on that node has very deep stacks, most often from recursion: see the functions below.",
  },
  unreadable: {
    label: "stack memory not readable",
    meaning: "A part of the stack was not resident when the sample was taken: swapped out, or never touched.",
  },
  bad_frame_pointer: {
    label: "broken chain of frame pointers",
    meaning: "A function on the stack has neither unwind tables nor frame pointers, so its caller is unknown.",
    advice: "Build it with -fno-omit-frame-pointer, or with unwind tables (-fasynchronous-unwind-tables). A JIT has an option for frame pointers.",
  },
  bad_frame: {
    label: "impossible frame",
    meaning: "The unwind rule led to an impossible frame: one that is not above the previous frame. The unwind table is wrong for this code, or the stack is damaged.",
    advice: "The usual cause is hand-written assembly with wrong unwind directives. Look at the function below.",
  },
  bad_return_address: {
    label: "return address outside any code",
    meaning: "The walk led to an address outside of all code, most often because a function on the stack has neither unwind tables nor frame pointers.",
    advice: "Build the binary with frame pointers or with unwind tables.",
  },
  rule_unsupported: {
    label: "unwind rule not supported",
    meaning: "The unwind table of the code has a rule in a form that Pilotlight does not evaluate.",
    advice: "This is rare. Report it with the binary's name, its build id and the function.",
  },
  no_rows: {
    label: "unwind tables not loaded yet",
    meaning: "The binary's unwind table was not loaded into the kernel yet, and the stack could not be copied: a limit on the rate or the memory of copies was reached.",
    advice: "It ends within seconds of a program's start. If it continues, raise the collector's --unwind-bytes.",
  },
  stale_rows: {
    label: "mappings changed during the walk",
    meaning: "The process loaded, unloaded or moved code while its stack was walked.",
  },
  compat_32: { label: "32-bit process", meaning: "Pilotlight does not walk the stacks of 32-bit processes: only the innermost frame is known." },
  process_unknown: {
    label: "process not known yet",
    meaning: "The process was so new or so short-lived that the collector did not know its mappings.",
  },
};

/** The text of an outcome. An outcome from a newer collector gets its own name as the label. */
export function describeOutcome(outcome: string): OutcomeText {
  // `outcome` comes from the server: do not look up properties of `Object.prototype`.
  if (Object.hasOwn(TEXTS, outcome)) return TEXTS[outcome]!;
  return { label: outcome.replaceAll("_", " "), meaning: "This page does not know this outcome: the collector is newer than the server." };
}

/** The name of the frame that stands in place of omitted frames. */
export const LEFT_OUT_NAME = "[frames left out]";
