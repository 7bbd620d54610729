//! The flags and environment variables of the program, as they were typed.

use std::{path::PathBuf, time::Duration};

use clap::{Parser, Subcommand};

use crate::capability::Capability;

/// Samples the stacks of all processes of this machine, kernel and user, and sends them to a Pilotlight
/// server. Needs root, or the capabilities at the end of --help; `pilotlight-collector preflight` says
/// what this machine lacks.
#[derive(Debug, Parser)]
#[command(
    name = "pilotlight-collector",
    version,
    max_term_width = 100,
    after_long_help = list_capabilities()
)]
pub struct Arguments {
    /// Address of the server's gRPC port
    #[arg(
        long,
        value_name = "URL",
        env = "PILOTLIGHT_COLLECTOR_SERVER",
        default_value = "http://127.0.0.1:7071"
    )]
    pub(super) server: String,
    /// Name of this node, the label `node`. In a pod it must be set, from spec.nodeName [default: the
    /// host's name]
    #[arg(long, value_name = "NAME", env = "PILOTLIGHT_COLLECTOR_NODE")]
    pub(super) node: Option<String>,
    /// Labels of pods, from the API server: auto (in a pod with a service account, or with
    /// --kubeconfig), on (refuse to start without these), or off
    #[arg(
        long,
        value_name = "MODE",
        env = "PILOTLIGHT_COLLECTOR_KUBERNETES",
        default_value = "auto"
    )]
    pub(super) kubernetes: String,
    /// Kubeconfig file with the address of the API server, for a collector outside of pods; its
    /// current context is used [default: none]
    #[arg(long, value_name = "PATH", env = "PILOTLIGHT_COLLECTOR_KUBECONFIG")]
    pub(super) kubeconfig: Option<PathBuf>,
    /// A label that all series have, like cluster=eu-1; may be repeated [default: none]
    #[arg(
        long,
        value_name = "NAME=VALUE",
        env = "PILOTLIGHT_COLLECTOR_LABEL",
        value_delimiter = ','
    )]
    pub(super) label: Vec<String>,
    /// YAML file with relabel_configs, the rules that change the labels of series or drop them, as in
    /// Prometheus [default: none]
    #[arg(long, value_name = "FILE", env = "PILOTLIGHT_COLLECTOR_RELABEL_CONFIG")]
    pub(super) relabel_config: Option<PathBuf>,
    /// Distinct values of a label in an hour; further ones become [other]
    #[arg(
        long,
        value_name = "COUNT",
        env = "PILOTLIGHT_COLLECTOR_LABEL_VALUES_MAX",
        default_value = "2000"
    )]
    pub(super) label_values_max: String,
    /// YAML file with a policy, the rules that say which pods and processes are profiled; read again
    /// when it changes [default: none]
    #[arg(
        long,
        value_name = "FILE",
        env = "PILOTLIGHT_COLLECTOR_POLICY_FILE",
        conflicts_with = "policy_configmap"
    )]
    pub(super) policy_file: Option<PathBuf>,
    /// ConfigMap with a policy in its key policy.yaml, instead of a file; followed through the API
    /// server [default: none]
    #[arg(
        long,
        value_name = "NAMESPACE/NAME",
        env = "PILOTLIGHT_COLLECTOR_POLICY_CONFIGMAP"
    )]
    pub(super) policy_configmap: Option<String>,
    /// Address of /metrics, /healthz and /readyz
    #[arg(
        long,
        value_name = "HOST:PORT",
        env = "PILOTLIGHT_COLLECTOR_METRICS_LISTEN",
        default_value = "127.0.0.1:7072"
    )]
    pub(super) metrics_listen: String,
    /// A further host name, besides `localhost`, that /metrics on a loopback address accepts, as
    /// for a tunnel; may be repeated. Other names are refused, so that a foreign web page cannot
    /// let its own name point here [default: none]
    #[arg(
        long,
        value_name = "NAME",
        env = "PILOTLIGHT_COLLECTOR_ALLOWED_HOST",
        value_delimiter = ' '
    )]
    pub(super) allowed_host: Vec<String>,
    /// Samples a second on each busy processor, 1 to 1000
    #[arg(
        long,
        value_name = "HZ",
        env = "PILOTLIGHT_COLLECTOR_FREQUENCY",
        default_value = "100"
    )]
    pub(super) frequency: String,
    /// Source of the sampling timers: cpu-clock, or cycles where the processor has hardware
    /// counters
    #[arg(
        long,
        value_name = "EVENT",
        env = "PILOTLIGHT_COLLECTOR_EVENT",
        default_value = "cpu-clock"
    )]
    pub(super) event: String,
    /// Sample idle processors too: true or false
    #[arg(
        long,
        value_name = "BOOL",
        env = "PILOTLIGHT_COLLECTOR_INCLUDE_IDLE",
        default_value = "false",
        default_missing_value = "true",
        num_args = 0..=1
    )]
    pub(super) include_idle: String,
    /// Length of a window, 1s to 30s
    #[arg(
        long,
        value_name = "DURATION",
        env = "PILOTLIGHT_COLLECTOR_WINDOW",
        default_value = "10s"
    )]
    pub(super) window: String,
    /// Memory for windows that wait for the server; beyond it the oldest are dropped and counted
    #[arg(
        long,
        value_name = "BYTES",
        env = "PILOTLIGHT_COLLECTOR_BUFFER_BYTES",
        default_value = "64MiB"
    )]
    pub(super) buffer_bytes: String,
    /// Run on a kernel that is known to crash in its own stack walker: true or false
    #[arg(
        long,
        value_name = "BOOL",
        env = "PILOTLIGHT_COLLECTOR_FORCE_KERNEL",
        default_value = "false",
        default_missing_value = "true",
        num_args = 0..=1
    )]
    pub(super) force_kernel: String,
    /// Percent of each processor's time for walking deep stacks: 0.01 to 10
    #[arg(
        long,
        value_name = "PERCENT",
        env = "PILOTLIGHT_COLLECTOR_WALK_BUDGET",
        default_value = "0.8"
    )]
    pub(super) walk_budget: String,
    /// Kernel memory for unwind rows, 4 bytes a row; beyond it the least recently used files are
    /// evicted
    #[arg(
        long,
        value_name = "BYTES",
        env = "PILOTLIGHT_COLLECTOR_UNWIND_BYTES",
        default_value = "24MiB"
    )]
    pub(super) unwind_bytes: String,
    /// Unwinding by rows (from the call frame information of each file), or by frame-pointers alone
    /// (for comparison; many stacks are incomplete)
    #[arg(
        long,
        value_name = "HOW",
        env = "PILOTLIGHT_COLLECTOR_UNWIND",
        default_value = "rows"
    )]
    pub(super) unwind: String,
    /// Directory that keeps the unwind rows of large files across restarts, or `none`
    #[arg(
        long,
        value_name = "PATH",
        env = "PILOTLIGHT_COLLECTOR_CACHE_DIR",
        default_value = "/var/cache/pilotlight"
    )]
    pub(super) cache_dir: String,
    /// Maximum size of that directory; beyond it the least recently used files are evicted
    #[arg(
        long,
        value_name = "BYTES",
        env = "PILOTLIGHT_COLLECTOR_CACHE_BYTES",
        default_value = "128MiB"
    )]
    pub(super) cache_bytes: String,
    /// One in this many complete stacks is checked by a second unwinder, at most five a second on
    /// each processor; 0 disables it
    #[arg(
        long,
        value_name = "COUNT",
        env = "PILOTLIGHT_COLLECTOR_PROVE_ONE_IN",
        default_value = "1000"
    )]
    pub(super) prove_one_in: String,
    /// Percent of one core for naming, on average, up to 100. Other frames are named in a later
    /// window or by the server, which requests the files that it lacks. With 0 the server names
    /// everything but the kernel, JIT code and files without a build id
    #[arg(
        long,
        value_name = "PERCENT",
        env = "PILOTLIGHT_COLLECTOR_NAME_CPU",
        default_value = "5"
    )]
    pub(super) name_cpu: String,
    /// Bytes a second for uploading files with symbols at the server's request (only the ranges
    /// with symbols, one file after the other); 0 disables it
    #[arg(
        long,
        value_name = "BYTES",
        env = "PILOTLIGHT_COLLECTOR_UPLOAD_RATE",
        default_value = "4MiB"
    )]
    pub(super) upload_rate: String,
    /// If this machine cannot be sampled: exit (with status 1), or wait: stay, not ready, with the reason at
    /// /readyz, and check again every 10 s
    #[arg(
        long,
        value_name = "WHAT",
        env = "PILOTLIGHT_COLLECTOR_ON_FAILURE",
        default_value = "exit"
    )]
    pub(super) on_failure: String,
    /// Let one collector of this machine sample at a time: one that starts prepares everything, is
    /// ready, and samples from the moment on at which the one before has stopped: true or false
    #[arg(
        long,
        value_name = "BOOL",
        env = "PILOTLIGHT_COLLECTOR_HAND_OVER",
        default_value = "false",
        default_missing_value = "true",
        num_args = 0..=1
    )]
    pub(super) hand_over: String,
    /// Level of the log: error, warn, info, debug or trace, also by module (`info,collector::name=debug`)
    #[arg(
        long,
        value_name = "FILTER",
        env = "PILOTLIGHT_COLLECTOR_LOG",
        default_value = "info"
    )]
    pub(super) log: String,
    /// Form of the log: text, or json with one object a line
    #[arg(
        long,
        value_name = "FORMAT",
        env = "PILOTLIGHT_COLLECTOR_LOG_FORMAT",
        default_value = "text"
    )]
    pub(super) log_format: String,
    /// A command other than sampling.
    #[command(subcommand)]
    pub(super) command: Option<Command>,
}

/// Commands other than sampling.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Subcommand)]
pub enum Command {
    /// Prints what is checked at each start: what was found, what the collector does without, and
    /// what a person can do. Exits with status 0 if a collector started now would become ready, else 1
    Preflight,
    /// Asks the collector that runs here (--metrics-listen) whether it is ready, and prints its
    /// reasons. Exits with status 0 if it is, else 1
    Ready {
        /// Wait for so long until it is ready, up to 3600s
        #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = parse_wait)]
        wait: Duration,
    },
}

/// Reads the time of `ready --wait`.
fn parse_wait(text: &str) -> Result<Duration, &'static str> {
    let seconds = text.strip_suffix('s').and_then(|text| text.parse().ok());
    let seconds = seconds.filter(|seconds| *seconds <= 3600);
    seconds
        .map(Duration::from_secs)
        .ok_or("expected whole seconds up to 3600s, like 15s")
}

/// The end of `--help`: each capability, and what the collector does without it.
fn list_capabilities() -> String {
    let lines = Capability::ALL
        .map(|capability| format!("  {:<23} {}\n", capability.name(), capability.effect()));
    format!(
        "Without these capabilities, of which root has all:\n{}",
        lines.concat()
    )
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    /// Check that `--help` has each capability with its effect. Lines are wrapped.
    #[test]
    fn help_lists_capabilities() {
        let help = Arguments::command().render_long_help().to_string();
        let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        let help = words(&help);
        for capability in Capability::ALL {
            let line = format!("{} {}", capability.name(), capability.effect());
            assert!(help.contains(&words(&line)), "{line}");
        }
    }
}
