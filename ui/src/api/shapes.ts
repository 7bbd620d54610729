// The types of the server's answers; docs/api.md describes them.

export interface ApiErrorBody {
  kind: string;
  message: string;
  parameter?: string;
  /** Characters (code points) from the start of the parameter's value. */
  position?: number;
  near?: string;
  hint?: string;
}

export interface SeriesAnswer {
  series: { labels: Record<string, string>; samples: number; cpu_ns: number }[];
  total: number;
}

export interface TimeSeries {
  labels: Record<string, string>;
  total_ns: number;
  values: (number | null)[];
}

export interface TimeSeriesAnswer {
  from_ms: number;
  to_ms: number;
  step_ms: number;
  unit: "cores" | "samples";
  /** The part of each step for which collectors reported. */
  covered_ms: number[];
  series: TimeSeries[];
  rest: { count: number; total_ns: number; values: (number | null)[] } | null;
}

/** Samples and CPU time of one outcome: the way in which the walk of a user stack ended. */
export interface OutcomeSum {
  outcome: string;
  complete: boolean;
  samples: number;
  cpu_ns: number;
}

/** Windows that an answer lacks, for one reason and one stretch of time. */
export interface UnreadWindows {
  from_ms: number;
  to_ms: number;
  windows: number;
  /** What the selection has in them, as far as that is known. */
  samples: number;
  cpu_ns: number;
  reason: string;
}

/** The flame graph without its columns of numbers. */
export interface FlameGraphAnswer {
  from_ms: number;
  to_ms: number;
  total_ns: number;
  samples: number;
  complete_ns: number;
  kernel_only_ns: number;
  /** CPU time of samples with an unnamed frame anywhere, and with an unnamed innermost frame. */
  unnamed_ns: number;
  unnamed_self_ns: number;
  outcomes: OutcomeSum[];
  shown_nodes: number;
  path_total_ns?: number;
  strings: string[];
  frames: { unnamed?: Record<string, { reason: string; build_id: number }> };
  /** `sample_ns` is the CPU time of a sample, in place of a column with the time of each node. */
  nodes: { sample_ns?: number; cut?: Record<string, number> };
  incomplete?: UnreadWindows[];
  /** Addresses of frames with function and line were dropped of some windows. */
  lacks_addresses?: boolean;
}

export interface TopFunction {
  name: string;
  binary: string;
  file: string;
  kind: number;
  /** Only for a function without a name: the reason, and the build id of its file. */
  reason?: string;
  build_id?: string;
  self_ns: number;
  total_ns: number;
  self_samples: number;
  total_samples: number;
}

export interface TopAnswer {
  total_ns: number;
  samples: number;
  count: number;
  functions: TopFunction[];
}

/** The sum of the rows beyond the list's limit. */
export interface ListRest {
  count: number;
  samples: number;
  cpu_ns: number;
}

/** A function and an outcome at which walks of user stacks stopped. */
export interface IncompleteFunction {
  name: string;
  binary: string;
  outcome: string;
  samples: number;
  cpu_ns: number;
}

export interface IncompleteBinary {
  binary: string;
  samples: number;
  cpu_ns: number;
  /** All samples with a user frame in this binary. */
  through_samples: number;
  through_ns: number;
  outcomes: OutcomeSum[];
}

export interface ProgramChecks {
  exe: string;
  agreed: number;
  differed: number;
}

export interface StacksAnswer {
  total_ns: number;
  samples: number;
  complete_ns: number;
  complete_samples: number;
  kernel_only_ns: number;
  kernel_only_samples: number;
  outcomes: OutcomeSum[];
  stops: { count: number; functions: IncompleteFunction[]; rest: ListRest | null };
  by_binary: { count: number; binaries: IncompleteBinary[]; rest: ListRest | null };
  checks: { agreed: number; differed: number; count: number; programs: ProgramChecks[]; rest: { count: number; agreed: number; differed: number } | null };
}

/** Sums over samples with an unnamed frame anywhere, and with an unnamed innermost frame. */
export interface UnnamedSums {
  unnamed_ns: number;
  unnamed_samples: number;
  unnamed_self_ns: number;
  unnamed_self_samples: number;
}

export interface UnnamedReason extends UnnamedSums {
  reason: string;
  words: string;
  /** The remedy; only in the lists of single binaries. */
  advice?: string;
}

export interface UnnamedBinary extends UnnamedSums {
  binary: string;
  build_id: string;
  reasons: UnnamedReason[];
}

export interface UnknownAnswer extends UnnamedSums {
  total_ns: number;
  samples: number;
  reasons: UnnamedReason[];
  by_binary: { count: number; binaries: UnnamedBinary[]; rest: ({ count: number } & UnnamedSums) | null };
}

export interface LineSum {
  file: string;
  line: number;
  self_ns: number;
  self_samples: number;
  total_ns: number;
  total_samples: number;
}

export interface LinesAnswer {
  /** CPU time of the whole selection. */
  all_ns: number;
  total_ns: number;
  total_samples: number;
  self_ns: number;
  self_samples: number;
  start_line: number;
  count: number;
  lines: LineSum[];
}

/** What is known of a node now. */
export type NodeStatus = "starting" | "sampling" | "cannot_sample" | "stopped" | "silent" | "unknown";

/** One thing that a collector needs, or can use. */
export interface NodeCheck {
  name: string;
  outcome: "ok" | "degraded" | "failed" | "unknown";
  found: string;
  effect: string;
  remedy: string;
}

/** A pod that is not profiled, and the rule that says so. */
export interface ExcludedPod {
  namespace: string;
  pod: string;
  rule: string;
}

export interface PolicyReport {
  /** `last`: the source has no policy that can be used. `unread`: none was ever read, so that no pod is profiled. */
  state: "current" | "last" | "unread" | "unknown";
  reason: string;
  excluded: ExcludedPod[];
  /** With those that the list leaves out. */
  excluded_count: number;
}

export interface NodeReport {
  received_ms: number;
  version: string;
  kernel: string;
  state: string;
  reason: string;
  policy_revision: string;
  /** Null without a policy. */
  policy: PolicyReport | null;
  checks: NodeCheck[];
}

/** A node; one that has sent no window in the range has `windows` 0. */
export interface NodeEntry {
  node: string;
  status: NodeStatus;
  /** Null if its collector is of a version that sends none. */
  report: NodeReport | null;
  instances: number;
  windows: number;
  first_ms: number;
  last_ms: number;
  missing_windows: number;
  /** Windows whose account of samples does not balance. */
  unbalanced_windows: number;
  /** CPU time that another collector of the node sampled too and that is left out, and that counts twice. */
  overlap_ns: number;
  overlap_kept_ns: number;
  samples: number;
  sampled_ns: number;
  busy_ns: number;
  outcomes: Record<string, number>;
  dropped: Record<string, number>;
  collector_cpu_ns: number;
  bpf_ns: number;
}

export interface NodesAnswer {
  nodes: NodeEntry[];
}

/** CPU time of one container or of several: sampled, and by the kernel's account. */
export interface ContainerSums {
  samples: number;
  sampled_ns: number;
  kernel_ns: number;
  /** Null without samples or CPU time. */
  ratio: number | null;
  ratio_deviation: number | null;
  throttled_ns: number;
  /** CPU time of samples that the kernel's account lacks. */
  unread_ns: number;
  excluded_samples: number;
}

export interface ContainerEntry extends ContainerSums {
  labels: Record<string, string>;
}

export interface ContainersAnswer {
  total: ContainerSums;
  /** Time that hypervisors took from the nodes of these containers. */
  stolen_ns: number;
  count: number;
  containers: ContainerEntry[];
  /** The sums of the containers beyond the limit. */
  rest: ContainerSums | null;
}

/** What the store has, and the limits after which it evicts the oldest profiles. */
export interface Kept {
  bytes: number;
  /** Null without profiles. */
  oldest_ms: number | null;
  /** Null if age does not matter. */
  age_ms: number | null;
  /** Null if there is no limit. */
  bytes_max: number | null;
  roll_ups: { after_ms: number; resolution_ms: number }[];
  /** Null if there is a limit; else what the limits of a new directory would evict. */
  beyond_defaults: { age_ms: number; files: number; bytes: number } | null;
}

/** What the server can do now. */
export interface StatusAnswer {
  ingest: { ready: boolean; reason: string | null };
  /** Null if the file system does not answer. */
  disk: { free_bytes: number; size_bytes: number; reserve_bytes: number } | null;
  kept: Kept;
  /** Files that are damaged or gone. */
  damage: UnreadWindows[];
}

/** How far the server is with a question. */
export interface QuestionProgress {
  state: "waiting" | "reading" | "rendering" | "unknown";
  /** Place in the queue, 1 for the next question; 0 for one that does not wait. */
  position: number;
  segments: number;
  segments_read: number;
  /** Bytes of the segments: large ones take longer. */
  bytes: number;
  bytes_read: number;
}
