// The server's answers, as server/API.md describes them.

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
  series: TimeSeries[];
  rest: { count: number; total_ns: number; values: (number | null)[] } | null;
}

/** How user stacks ended. */
export interface OutcomeSum {
  outcome: string;
  complete: boolean;
  samples: number;
  cpu_ns: number;
}

export interface FlameGraphAnswer {
  from_ms: number;
  to_ms: number;
  total_ns: number;
  samples: number;
  complete_ns: number;
  kernel_only_ns: number;
  /** What has a frame without a name, and of it what has such a frame innermost. */
  unnamed_ns: number;
  unnamed_self_ns: number;
  outcomes: OutcomeSum[];
  node_count: number;
  shown_nodes: number;
  path_total_ns?: number;
  strings: string[];
  frames: { name: number[]; binary: number[]; file: number[]; line: number[]; kind: number[]; unnamed?: Record<string, { reason: string; build_id: number }> };
  nodes: {
    depth: number[];
    frame: number[];
    total_ns: number[];
    self_ns: number[];
    samples: number[];
    cut?: Record<string, number>;
  };
}

export interface TopFunction {
  name: string;
  binary: string;
  file: string;
  kind: number;
  /** Of a function without a name: why, and the build id of its file. */
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

/** A sum of what a list does not show. */
export interface ListRest {
  count: number;
  samples: number;
  cpu_ns: number;
}

/** Where walks of stacks stopped, and why. */
export interface StackStop {
  name: string;
  binary: string;
  outcome: string;
  samples: number;
  cpu_ns: number;
}

export interface BinaryStops {
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
  incomplete: { count: number; functions: StackStop[]; rest: ListRest | null };
  by_binary: { count: number; binaries: BinaryStops[]; rest: ListRest | null };
  checks: { agreed: number; differed: number; count: number; programs: ProgramChecks[]; rest: { count: number; agreed: number; differed: number } | null };
}

/** What has a frame without a name anywhere, and of it what has such a frame innermost. */
export interface UnnamedSums {
  unnamed_ns: number;
  unnamed_samples: number;
  unnamed_self_ns: number;
  unnamed_self_samples: number;
}

export interface UnnamedReason extends UnnamedSums {
  reason: string;
  words: string;
  /** What to do; said for each binary, not for all of them together. */
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
  /** All that is selected. */
  all_ns: number;
  total_ns: number;
  total_samples: number;
  self_ns: number;
  self_samples: number;
  start_line: number;
  count: number;
  lines: LineSum[];
}

export interface NodesAnswer {
  nodes: {
    node: string;
    instances: number;
    windows: number;
    first_ms: number;
    last_ms: number;
    missing_windows: number;
    samples: number;
    sampled_ns: number;
    busy_ns: number;
    outcomes: Record<string, number>;
    dropped: Record<string, number>;
    collector_cpu_ns: number;
    bpf_ns: number;
  }[];
}
