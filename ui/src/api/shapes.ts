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

export interface FlameGraphAnswer {
  from_ms: number;
  to_ms: number;
  total_ns: number;
  samples: number;
  complete_ns: number;
  outcomes: { outcome: string; samples: number; cpu_ns: number }[];
  node_count: number;
  shown_nodes: number;
  path_total_ns?: number;
  strings: string[];
  frames: { name: number[]; binary: number[]; file: number[]; line: number[]; kind: number[] };
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
