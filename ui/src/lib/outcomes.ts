// Why stacks are not complete: the collector's outcome codes in words.

interface OutcomeText {
  label: string;
  meaning: string;
}

const TEXTS: Record<string, OutcomeText> = {
  bad_frame_pointer: {
    label: "broken chain of frame pointers",
    meaning: "Code on the stack was built without frame pointers, so that its callers could not be followed.",
  },
  bad_return_address: {
    label: "return address outside any code",
    meaning: "The chain of frame pointers led to an address that is no code: most often a library built without frame pointers.",
  },
  unreadable: { label: "unreadable stack", meaning: "The stack's memory was not present when the sample was taken." },
  cut_at_depth: { label: "deeper than the limit", meaning: "The stack has more frames than are walked; its outermost frames are missing." },
  compat_32: { label: "32-bit process", meaning: "Stacks of 32-bit processes are not followed: only their innermost frame is known." },
};

export function outcomeLabel(outcome: string): string {
  return TEXTS[outcome]?.label ?? outcome.replaceAll("_", " ");
}

export function outcomeMeaning(outcome: string): string {
  return TEXTS[outcome]?.meaning ?? "";
}
