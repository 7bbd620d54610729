// How user stacks ended: the collector's codes in words, and what can be done
// about those that are not complete.

export interface OutcomeText {
  label: string;
  meaning: string;
  /** What a person can do; absent when there is nothing to do. */
  advice?: string;
}

const TEXTS: Record<string, OutcomeText> = {
  complete: { label: "walked in the kernel", meaning: "Walked to the thread's or process's entry while the sample was taken." },
  copied: {
    label: "copied and walked afterwards",
    meaning: "The top of the stack was copied, and walked to its end outside the kernel: most often the first samples of a new process.",
  },
  middle_left_out: {
    label: "complete, middle left out",
    meaning: "Walked to its end, but deeper than 1,024 frames: the first 512 and the last 512 are kept, and [frames left out] stands between them.",
  },
  kernel_only: { label: "no user stack", meaning: "A thread of the kernel's own: there is no user stack to walk." },
  cut_at_depth: {
    label: "deeper than is walked",
    meaning: "The stack has more frames than are walked at all; those nearest to its root are missing.",
    advice: "Such depth is almost always recursion. Folding it in the flame graph shows what is below.",
  },
  cut_by_budget: {
    label: "time budget used up",
    meaning: "The processor had spent what deep stacks may cost it in that second, so the walk was ended early.",
    advice: "Something on that node has very deep stacks, most often by recursion: the functions below say what.",
  },
  unreadable: {
    label: "stack memory not readable",
    meaning: "A part of the stack was not in memory when the sample was taken, most often because it was swapped out or never touched.",
  },
  bad_frame_pointer: {
    label: "broken chain of frame pointers",
    meaning: "Code without unwind tables, and built without frame pointers, was on the stack: its callers could not be found.",
    advice: "Build it with -fno-omit-frame-pointer, or with unwind tables (-fasynchronous-unwind-tables). A JIT has an option for frame pointers.",
  },
  bad_frame: {
    label: "frame that makes no sense",
    meaning: "The unwind table's rule led to a frame that cannot be: it does not lie above the one before. The table is wrong for this code, or the stack was damaged.",
    advice: "Hand-written assembly without right unwind directives is the usual cause. Look at the function below.",
  },
  bad_return_address: {
    label: "return address outside any code",
    meaning: "The walk led to an address that is no code: most often code without unwind tables and frame pointers is in between.",
    advice: "Build the binary with frame pointers or with unwind tables.",
  },
  rule_unsupported: {
    label: "unwind rule not supported",
    meaning: "The code's unwind table has a rule in a form that the kernel side does not evaluate.",
    advice: "It is rare, and worth a report: the binary's name, its build id and the function say which rule it is.",
  },
  no_rows: {
    label: "unwind tables not loaded yet",
    meaning: "The binary's unwind table was not in the kernel, and the stack could not be copied instead: the rate, the ring or the memory for it was used up.",
    advice: "It passes by itself within seconds of a program's start. If it stays, the cap on the tables' memory is too small for what runs there.",
  },
  stale_rows: {
    label: "mappings changed during the walk",
    meaning: "The process loaded, unloaded or moved code while its stack was walked.",
  },
  compat_32: { label: "32-bit process", meaning: "Stacks of 32-bit processes are not walked: only their innermost frame is known." },
  process_unknown: {
    label: "process not known yet",
    meaning: "The process was so new, or so short, that its mappings were not known when it was sampled.",
  },
};

/** The code in words; of one that a newer collector made, its name and nothing more. */
export function describeOutcome(outcome: string): OutcomeText {
  // An answer's text must not reach what every object has by birth.
  if (Object.hasOwn(TEXTS, outcome)) return TEXTS[outcome]!;
  return { label: outcome.replaceAll("_", " "), meaning: "This page does not know this reason: the collector is newer than the server." };
}

/** What stands in the place of frames that were not kept. */
export const LEFT_OUT_NAME = "[frames left out]";
