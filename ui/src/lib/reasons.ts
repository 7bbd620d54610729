// Why a frame has no name: the server's codes in words.

export interface ReasonText {
  label: string;
  meaning: string;
}

const TEXTS: Record<string, ReasonText> = {
  no_mapping: { label: "in no known mapping", meaning: "The address lies in no file or memory area that the collector knew of. Often the process mapped it just before it ended." },
  anonymous: { label: "JIT without a map", meaning: "Executable memory without a file: a just-in-time compiler wrote it, and left no map of its names. Node writes one with --perf-basic-prof, Java (with -XX:+PreserveFramePointer) when jcmd PID Compiler.perfmap asks for it or through an agent, .NET with DOTNET_PerfMapEnabled=1, CPython with -X perf, Ruby with --yjit-perf, BEAM with +JPperf true." },
  file_gone: { label: "file gone", meaning: "The file was deleted or replaced before it could be read." },
  no_symbol: { label: "stripped", meaning: "The file has no symbol for this address: it is stripped, and nothing was found for its build id: no debug file below /usr/lib/debug of the node or its container, and no symbols on the server." },
  no_build_id: { label: "stripped, no build id", meaning: "The file is stripped, and has no build id by which its symbols could be found." },
  permission: { label: "no permission", meaning: "The collector may not read it." },
  corrupt: { label: "corrupt file", meaning: "The file's symbols could not be parsed." },
  limit: { label: "limit reached", meaning: "A limit of the collector was reached before this address was named. pilotlight_collector_name_requests_held_back_total and pilotlight_collector_namer_ends_total say which." },
  process_unknown: { label: "process unknown", meaning: "The process ended before its mappings, or the map of the code that it made, were read." },
  not_answering: { label: "file system hangs", meaning: "The file system that the file is on did not answer: a network file system whose server is gone, or one that a process serves and does not. Names come by themselves when it answers again." },
  unknown: { label: "no reason given", meaning: "The collector gave no reason." },
};

/** The code in words; of one that a newer server made, its name and nothing more. */
export function describeReason(reason: string): ReasonText {
  // An answer's text must not reach what every object has by birth.
  if (Object.hasOwn(TEXTS, reason)) return TEXTS[reason]!;
  return { label: reason.replaceAll("_", " "), meaning: "This page does not know this reason: the server is newer." };
}

/** Whether this says which build a file is. One that does not say it has `file-` and a hash of its contents, by which no symbols can be found. */
export function isBuildId(text: string): boolean {
  return text !== "" && !text.startsWith("file-");
}
