// Texts for the reasons why a frame has no name.

export interface ReasonText {
  label: string;
  meaning: string;
}

const TEXTS: Record<string, ReasonText> = {
  no_mapping: { label: "in no known mapping", meaning: "The address is in no file or memory area that the collector knew. Often the process mapped it just before it ended." },
  anonymous: { label: "JIT without a map", meaning: "Executable memory without a file: a just-in-time compiler wrote it, and the process has no map of its names. Node writes one with --perf-basic-prof, Java (with -XX:+PreserveFramePointer) on jcmd PID Compiler.perfmap or with an agent, .NET with DOTNET_PerfMapEnabled=1, Ruby with --yjit-perf, BEAM with +JPperf true." },
  file_gone: { label: "file gone", meaning: "The file was deleted or replaced before the collector read it." },
  no_symbol: { label: "no symbol", meaning: "No symbol covers the address: the file is stripped, or its compiler gave this code none; and nothing was found for its build id: no debug file below /usr/lib/debug of the node or its container, and no symbols on the server." },
  no_build_id: { label: "no symbol, no build id", meaning: "No symbol covers the address: the file is stripped, or its compiler gave this code none. Without a build id others cannot be found." },
  permission: { label: "no permission", meaning: "The collector has no permission to read the file." },
  corrupt: { label: "corrupt file", meaning: "The file's symbols could not be parsed." },
  limit: { label: "limit reached", meaning: "The collector reached a limit before it named this address. pilotlight_collector_name_requests_held_back_total and pilotlight_collector_namer_ends_total show which limit." },
  process_unknown: { label: "process unknown", meaning: "The process ended before the collector read its mappings or the perf map of its JIT code." },
  not_answering: { label: "file system hangs", meaning: "The file system of the file did not answer: the server of a network file system is gone, or the process behind a FUSE file system hangs. The frames get names when it answers again." },
  replaced: { label: "code replaced", meaning: "The code (a BPF program, a kernel module or JIT code) was unloaded or replaced, and the time of that does not show which code the sample was in. Code that stays loaded has its name in the next window." },
  unknown: { label: "no reason given", meaning: "The collector gave no reason." },
};

/** The text of a reason. A reason from a newer server gets its own name as the label. */
export function describeReason(reason: string): ReasonText {
  // `reason` comes from the server: do not look up properties of `Object.prototype`.
  if (Object.hasOwn(TEXTS, reason)) return TEXTS[reason]!;
  return { label: reason.replaceAll("_", " "), meaning: "This page does not know this reason: the server is newer." };
}

/**
 * Whether the text is a build id. `file-` and a hash of the contents stand in for a missing one: no
 * symbols can be found by them.
 */
export function isBuildId(text: string): boolean {
  return text !== "" && !text.startsWith("file-");
}
