//! Configuration in two levels: the arguments, and the values that the collector is built from.

use std::{net::SocketAddr, ops::RangeInclusive, path::PathBuf, time::Duration};

use clap::{Parser, Subcommand};
use listen::hosts::read_name;
use thiserror::Error;

use crate::{
    capability::Capability, kubernetes::ClusterAccess, label::OWN_LABELS, policy::PolicySource,
    sample::Event,
};

/// Labels of the flag `--label`. The server takes 128 labels a series.
const EXTERNAL_LABELS_MAX: usize = 32;

/// Bytes of such a label's value.
const EXTERNAL_VALUE_BYTES_MAX: usize = 256;

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
    server: String,
    /// Name of this node, the label `node`. In a pod it must be set, from spec.nodeName [default: the
    /// host's name]
    #[arg(long, value_name = "NAME", env = "PILOTLIGHT_COLLECTOR_NODE")]
    node: Option<String>,
    /// Labels of pods, from the API server: auto (in a pod with a service account, or with
    /// --kubeconfig), on (refuse to start without these), or off
    #[arg(
        long,
        value_name = "MODE",
        env = "PILOTLIGHT_COLLECTOR_KUBERNETES",
        default_value = "auto"
    )]
    kubernetes: String,
    /// Kubeconfig file with the address of the API server, for a collector outside of pods; its
    /// current context is used [default: none]
    #[arg(long, value_name = "PATH", env = "PILOTLIGHT_COLLECTOR_KUBECONFIG")]
    kubeconfig: Option<PathBuf>,
    /// A label that all series have, like cluster=eu-1; may be repeated [default: none]
    #[arg(
        long,
        value_name = "NAME=VALUE",
        env = "PILOTLIGHT_COLLECTOR_LABEL",
        value_delimiter = ','
    )]
    label: Vec<String>,
    /// YAML file with relabel_configs, the rules that change the labels of series or drop them, as in
    /// Prometheus [default: none]
    #[arg(long, value_name = "FILE", env = "PILOTLIGHT_COLLECTOR_RELABEL_CONFIG")]
    relabel_config: Option<PathBuf>,
    /// Distinct values of a label in an hour; further ones become [other]
    #[arg(
        long,
        value_name = "COUNT",
        env = "PILOTLIGHT_COLLECTOR_LABEL_VALUES_MAX",
        default_value = "2000"
    )]
    label_values_max: String,
    /// YAML file with a policy, the rules that say which pods and processes are profiled; read again
    /// when it changes [default: none]
    #[arg(
        long,
        value_name = "FILE",
        env = "PILOTLIGHT_COLLECTOR_POLICY_FILE",
        conflicts_with = "policy_configmap"
    )]
    policy_file: Option<PathBuf>,
    /// ConfigMap with a policy in its key policy.yaml, instead of a file; followed through the API
    /// server [default: none]
    #[arg(
        long,
        value_name = "NAMESPACE/NAME",
        env = "PILOTLIGHT_COLLECTOR_POLICY_CONFIGMAP"
    )]
    policy_configmap: Option<String>,
    /// Address of /metrics, /healthz and /readyz
    #[arg(
        long,
        value_name = "HOST:PORT",
        env = "PILOTLIGHT_COLLECTOR_METRICS_LISTEN",
        default_value = "127.0.0.1:7072"
    )]
    metrics_listen: String,
    /// A further host name, besides `localhost`, that /metrics on a loopback address accepts, as
    /// for a tunnel; may be repeated. Other names are refused, so that a foreign web page cannot
    /// let its own name point here [default: none]
    #[arg(
        long,
        value_name = "NAME",
        env = "PILOTLIGHT_COLLECTOR_ALLOWED_HOST",
        value_delimiter = ' '
    )]
    allowed_host: Vec<String>,
    /// Samples a second on each busy processor, 1 to 1000
    #[arg(
        long,
        value_name = "HZ",
        env = "PILOTLIGHT_COLLECTOR_FREQUENCY",
        default_value = "100"
    )]
    frequency: String,
    /// Source of the sampling timers: cpu-clock, or cycles where the processor has hardware
    /// counters
    #[arg(
        long,
        value_name = "EVENT",
        env = "PILOTLIGHT_COLLECTOR_EVENT",
        default_value = "cpu-clock"
    )]
    event: String,
    /// Sample idle processors too: true or false
    #[arg(
        long,
        value_name = "BOOL",
        env = "PILOTLIGHT_COLLECTOR_INCLUDE_IDLE",
        default_value = "false",
        default_missing_value = "true",
        num_args = 0..=1
    )]
    include_idle: String,
    /// Length of a window, 1s to 30s
    #[arg(
        long,
        value_name = "DURATION",
        env = "PILOTLIGHT_COLLECTOR_WINDOW",
        default_value = "10s"
    )]
    window: String,
    /// Memory for windows that wait for the server; beyond it the oldest are dropped and counted
    #[arg(
        long,
        value_name = "BYTES",
        env = "PILOTLIGHT_COLLECTOR_BUFFER_BYTES",
        default_value = "64MiB"
    )]
    buffer_bytes: String,
    /// Run on a kernel that is known to crash in its own stack walker: true or false
    #[arg(
        long,
        value_name = "BOOL",
        env = "PILOTLIGHT_COLLECTOR_FORCE_KERNEL",
        default_value = "false",
        default_missing_value = "true",
        num_args = 0..=1
    )]
    force_kernel: String,
    /// Percent of each processor's time for walking deep stacks: 0.01 to 10
    #[arg(
        long,
        value_name = "PERCENT",
        env = "PILOTLIGHT_COLLECTOR_WALK_BUDGET",
        default_value = "0.8"
    )]
    walk_budget: String,
    /// Kernel memory for unwind rows, 4 bytes a row; beyond it the least recently used files are
    /// evicted
    #[arg(
        long,
        value_name = "BYTES",
        env = "PILOTLIGHT_COLLECTOR_UNWIND_BYTES",
        default_value = "24MiB"
    )]
    unwind_bytes: String,
    /// Unwinding by rows (from the call frame information of each file), or by frame-pointers alone
    /// (for comparison; many stacks are incomplete)
    #[arg(
        long,
        value_name = "HOW",
        env = "PILOTLIGHT_COLLECTOR_UNWIND",
        default_value = "rows"
    )]
    unwind: String,
    /// Directory that keeps the unwind rows of large files across restarts, or `none`
    #[arg(
        long,
        value_name = "PATH",
        env = "PILOTLIGHT_COLLECTOR_CACHE_DIR",
        default_value = "/var/cache/pilotlight"
    )]
    cache_dir: String,
    /// Maximum size of that directory; beyond it the least recently used files are evicted
    #[arg(
        long,
        value_name = "BYTES",
        env = "PILOTLIGHT_COLLECTOR_CACHE_BYTES",
        default_value = "128MiB"
    )]
    cache_bytes: String,
    /// One in this many complete stacks is checked by a second unwinder, at most five a second on
    /// each processor; 0 disables it
    #[arg(
        long,
        value_name = "COUNT",
        env = "PILOTLIGHT_COLLECTOR_PROVE_ONE_IN",
        default_value = "1000"
    )]
    prove_one_in: String,
    /// Percent of one core for naming, on average, up to 100. Other frames are named in a later
    /// window or by the server, which requests the files that it lacks. With 0 the server names
    /// everything but the kernel, JIT code and files without a build id
    #[arg(
        long,
        value_name = "PERCENT",
        env = "PILOTLIGHT_COLLECTOR_NAME_CPU",
        default_value = "5"
    )]
    name_cpu: String,
    /// Bytes a second for uploading files with symbols at the server's request (only the ranges
    /// with symbols, one file after the other); 0 disables it
    #[arg(
        long,
        value_name = "BYTES",
        env = "PILOTLIGHT_COLLECTOR_UPLOAD_RATE",
        default_value = "4MiB"
    )]
    upload_rate: String,
    /// If this machine cannot be sampled: exit (with status 1), or wait: stay, not ready, with the reason at
    /// /readyz, and check again every 10 s
    #[arg(
        long,
        value_name = "WHAT",
        env = "PILOTLIGHT_COLLECTOR_ON_FAILURE",
        default_value = "exit"
    )]
    on_failure: String,
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
    hand_over: String,
    /// Level of the log: error, warn, info, debug or trace, also by module (`info,collector::name=debug`)
    #[arg(
        long,
        value_name = "FILTER",
        env = "PILOTLIGHT_COLLECTOR_LOG",
        default_value = "info"
    )]
    log: String,
    /// Form of the log: text, or json with one object a line
    #[arg(
        long,
        value_name = "FORMAT",
        env = "PILOTLIGHT_COLLECTOR_LOG_FORMAT",
        default_value = "text"
    )]
    log_format: String,
    /// A command other than sampling.
    #[command(subcommand)]
    command: Option<Command>,
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

/// Behaviour on a machine that cannot be sampled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnFailure {
    /// End with an error. The default: a person at a terminal, `make run` and systemd see it at once.
    #[default]
    Exit,
    /// Stay, not ready, and try again: for Kubernetes, which would restart the program for ever, and
    /// shows the reason of a failed probe but not the log.
    Wait,
}

/// The form of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// A line of text for each event.
    #[default]
    Text,
    /// A JSON object on a line for each event.
    Json,
}

/// The source of unwind rules.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unwind {
    /// The call frame information of each file, and frame pointers where there is none.
    #[default]
    Rows,
    /// Frame pointers alone.
    FramePointers,
}

/// The collector's configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Address of the server's gRPC port.
    pub server: String,
    /// Name of this node.
    pub node: String,
    /// How the API server is reached; `None` without labels of pods.
    pub kubernetes: Option<ClusterAccess>,
    /// Labels of all series.
    pub external_labels: Vec<(String, String)>,
    /// File with rules of relabelling.
    pub relabel_config: Option<PathBuf>,
    /// Distinct values of a label in an hour.
    pub label_values_max: usize,
    /// The rules for what is profiled; `None`: everything is.
    pub policy: Option<PolicySource>,
    /// Address of /metrics.
    pub metrics_listen: SocketAddr,
    /// Further host names that it accepts on a loopback address.
    pub allowed_hosts: Vec<String>,
    /// Samples a second on each busy processor.
    pub frequency_hz: u32,
    /// Source of the sampling timers.
    pub event: Event,
    /// Whether idle time is sampled.
    pub include_idle: bool,
    /// Length of a window.
    pub window: Duration,
    /// Memory for windows that wait for the server.
    pub buffer_bytes: u64,
    /// Whether to run on a kernel that is known to crash.
    pub force_kernel: bool,
    /// Nanoseconds of each million on a processor for walking deep stacks; beyond it they are cut.
    pub walk_budget_ppm: u32,
    /// Kernel memory for unwind rows.
    pub unwind_bytes: u64,
    /// The source of unwind rules.
    pub unwind: Unwind,
    /// Directory that keeps unwind rows across restarts; `None` to keep none.
    pub cache_dir: Option<PathBuf>,
    /// Maximum size of that directory.
    pub cache_bytes: u64,
    /// One in this many complete stacks is checked by a second unwinder; 0: none.
    pub prove_one_in: u32,
    /// CPU time for naming per second, on average.
    pub name_cpu_share: f64,
    /// Bytes a second for uploads; 0: no uploads. The default is a thirtieth of a link of 1 Gbit/s:
    /// 40 MB, as a large program has, take 10 s, and 2 % of a processor during that time (4.2 ms a
    /// MB).
    pub upload_rate: u64,
    /// Behaviour on a machine that cannot be sampled.
    pub on_failure: OnFailure,
    /// Whether one collector samples at a time.
    pub hand_over: bool,
    /// Filter of the log.
    pub log: String,
    /// Form of the log.
    pub log_format: LogFormat,
}

/// An invalid value.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("{flag} is `{value}`: {want}")]
pub struct BadValue {
    flag: &'static str,
    value: String,
    want: String,
}

/// The surroundings of the process.
#[derive(Clone, Copy, Debug, Default)]
pub struct Surroundings<'a> {
    /// The node's name if none was given.
    pub hostname: &'a str,
    /// The process runs in a pod.
    pub is_in_pod: bool,
    /// The pod has a service account.
    pub has_service_account: bool,
}

impl Arguments {
    /// The command to run instead of sampling.
    pub fn subcommand(&self) -> Option<Command> {
        self.command
    }

    /// Builds the configuration.
    ///
    /// # Errors
    /// All invalid values, not only the first.
    pub fn build(self, surroundings: Surroundings<'_>) -> Result<Config, Vec<BadValue>> {
        let mut bad = Vec::new();
        let mut check = Checks { bad: &mut bad };
        let config = Config {
            node: self.check_node(&mut check, surroundings),
            kubernetes: self.check_kubernetes(&mut check, surroundings),
            policy: self.check_policy(&mut check, surroundings),
            external_labels: self.check_labels(&mut check),
            relabel_config: self.relabel_config,
            label_values_max: check.value(
                "--label-values-max",
                &self.label_values_max,
                "a whole number from 10 to 10000",
                |text| {
                    text.parse()
                        .ok()
                        .filter(|count| (10..=10_000).contains(count))
                },
            ),
            server: check.value(
                "--server",
                &self.server,
                if self.server.starts_with("https://") {
                    "http://…: the collector has no TLS yet. Profiles cross the network in clear, so use a private \
                     network, or a tunnel that encrypts"
                } else {
                    "a URL like http://server:7071"
                },
                |text| {
                    let host = text.strip_prefix("http://")?;
                    (!host.is_empty() && !host.contains(char::is_whitespace))
                        .then(|| text.to_owned())
                },
            ),
            metrics_listen: check
                .value(
                    "--metrics-listen",
                    &self.metrics_listen,
                    "an address like 127.0.0.1:7072",
                    |text| text.parse().ok().map(Some),
                )
                .unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 7072))),
            allowed_hosts: self
                .allowed_host
                .iter()
                .map(|name| {
                    let want = "a name without a port, like node1.example.com";
                    check.value("--allowed-host", name, want, read_name)
                })
                .collect(),
            frequency_hz: check.value(
                "--frequency",
                &self.frequency,
                "a whole number from 1 to 1000",
                |text| text.parse().ok().filter(|hz| (1..=1000).contains(hz)),
            ),
            event: check
                .value(
                    "--event",
                    &self.event,
                    "cpu-clock or cycles",
                    |text| match text {
                        "cpu-clock" => Some(Some(Event::CpuClock)),
                        "cycles" => Some(Some(Event::Cycles)),
                        _ => None,
                    },
                )
                .unwrap_or(Event::CpuClock),
            include_idle: check.value(
                "--include-idle",
                &self.include_idle,
                "true or false",
                |text| text.parse().ok(),
            ),
            window: check.value(
                "--window",
                &self.window,
                "whole seconds from 1s to 30s that divide a minute, like 10s",
                |text| {
                    let seconds: u64 = text.strip_suffix('s')?.parse().ok()?;
                    ((1..=30).contains(&seconds) && 60 % seconds == 0)
                        .then(|| Duration::from_secs(seconds))
                },
            ),
            buffer_bytes: check.value(
                "--buffer-bytes",
                &self.buffer_bytes,
                "1MiB or more, like 64MiB or 1GiB",
                |text| parse_bytes(text).filter(|bytes| *bytes >= 1 << 20),
            ),
            force_kernel: check.value(
                "--force-kernel",
                &self.force_kernel,
                "true or false",
                |text| text.parse().ok(),
            ),
            walk_budget_ppm: check.value(
                "--walk-budget",
                &self.walk_budget,
                "a percentage from 0.01 to 10",
                |text| Some((parse_percent(text, 0.01..=10.0)? * 10_000.0) as u32),
            ),
            unwind_bytes: check.value(
                "--unwind-bytes",
                &self.unwind_bytes,
                "1MiB to 64MiB, like 24MiB",
                |text| parse_bytes(text).filter(|bytes| (1 << 20..=64 << 20).contains(bytes)),
            ),
            unwind: check.value("--unwind", &self.unwind, "rows or frame-pointers", |text| {
                match text {
                    "rows" => Some(Unwind::Rows),
                    "frame-pointers" => Some(Unwind::FramePointers),
                    _ => None,
                }
            }),
            cache_dir: check.value(
                "--cache-dir",
                &self.cache_dir,
                "an absolute path like /var/cache/pilotlight, or none",
                |text| match text {
                    "none" => Some(None),
                    path => path.starts_with('/').then(|| Some(path.into())),
                },
            ),
            cache_bytes: check.value(
                "--cache-bytes",
                &self.cache_bytes,
                "1MiB or more, like 128MiB or 1GiB",
                |text| parse_bytes(text).filter(|bytes| *bytes >= 1 << 20),
            ),
            prove_one_in: check.value(
                "--prove-one-in",
                &self.prove_one_in,
                "a whole number, 0 for none",
                |text| text.parse().ok(),
            ),
            name_cpu_share: check.value(
                "--name-cpu",
                &self.name_cpu,
                "a percentage from 0 to 100",
                |text| Some(parse_percent(text, 0.0..=100.0)? / 100.0),
            ),
            upload_rate: check.value(
                "--upload-rate",
                &self.upload_rate,
                "64KiB or more, like 4MiB, or 0 for never",
                |text| parse_bytes(text).filter(|bytes| *bytes == 0 || *bytes >= 64 << 10),
            ),
            on_failure: check.value("--on-failure", &self.on_failure, "exit or wait", |text| {
                match text {
                    "exit" => Some(OnFailure::Exit),
                    "wait" => Some(OnFailure::Wait),
                    _ => None,
                }
            }),
            hand_over: check.value(
                "--hand-over",
                &self.hand_over,
                "true or false",
                |text| text.parse().ok(),
            ),
            log_format: check.value("--log-format", &self.log_format, "text or json", |text| {
                match text {
                    "text" => Some(LogFormat::Text),
                    "json" => Some(LogFormat::Json),
                    _ => None,
                }
            }),
            log: check.value(
                "--log",
                &self.log,
                "a filter like info or info,collector::name=debug",
                |text| {
                    text.parse::<tracing_subscriber::EnvFilter>()
                        .ok()
                        .map(|_| text.to_owned())
                },
            ),
        };
        if bad.is_empty() { Ok(config) } else { Err(bad) }
    }

    fn check_node(&self, check: &mut Checks<'_>, surroundings: Surroundings<'_>) -> String {
        let (name, want) = match &self.node {
            Some(name) => (name.as_str(), "a name of 1 to 253 bytes"),
            // Every roll-out would make a new node. The command of a probe needs no node.
            None if surroundings.is_in_pod
                && self.kubernetes != "off"
                && self.command.is_none() =>
            {
                (
                    "",
                    "the node's name: in a pod the host's name is the pod's; set the variable \
                 PILOTLIGHT_COLLECTOR_NODE from the field spec.nodeName",
                )
            }
            None => (surroundings.hostname, "a name of 1 to 253 bytes"),
        };
        check.value("--node", name, want, |text| {
            (1..=253).contains(&text.len()).then(|| text.to_owned())
        })
    }

    fn check_kubernetes(
        &self,
        check: &mut Checks<'_>,
        surroundings: Surroundings<'_>,
    ) -> Option<ClusterAccess> {
        let access = self.find_access(surroundings);
        let want = match (&*self.kubernetes, surroundings.is_in_pod) {
            ("on", true) => {
                "--kubeconfig, or automountServiceAccountToken: true in this pod's spec"
            }
            ("on", false) => "--kubeconfig, since this process is in no pod",
            _ => "auto, on or off",
        };
        check.value("--kubernetes", &self.kubernetes, want, |text| match text {
            "auto" => Some(access),
            "on" => access.map(Some),
            "off" => Some(None),
            _ => None,
        })
    }

    fn find_access(&self, surroundings: Surroundings<'_>) -> Option<ClusterAccess> {
        let file = self.kubeconfig.clone().map(ClusterAccess::Kubeconfig);
        let account = surroundings.has_service_account;
        file.or(account.then_some(ClusterAccess::ServiceAccount))
    }

    fn check_policy(
        &self,
        check: &mut Checks<'_>,
        surroundings: Surroundings<'_>,
    ) -> Option<PolicySource> {
        let Some(text) = &self.policy_configmap else {
            return self.policy_file.clone().map(PolicySource::File);
        };
        let access = self.find_access(surroundings);
        let access = access.filter(|_| self.kubernetes != "off");
        let want = match access {
            Some(_) => "NAMESPACE/NAME, like profiling/pilotlight-policy",
            None => {
                "--kubernetes on, with a service account or --kubeconfig: it is read from the API server, and its rules \
                 are for pods that the API server tells of; --policy-file reads a file"
            }
        };
        // The command of a probe reads nothing.
        if self.command.is_some() && access.is_none() {
            return None;
        }
        check.value("--policy-configmap", text, want, |text| {
            let (namespace, name) = text.split_once('/')?;
            let is_name = |name: &str| {
                let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-.".contains(&byte);
                (1..=253).contains(&name.len()) && name.bytes().all(is_allowed)
            };
            let access = access.filter(|_| is_name(namespace) && is_name(name))?;
            Some(Some(PolicySource::ConfigMap {
                namespace: namespace.to_owned(),
                name: name.to_owned(),
                access,
            }))
        })
    }

    fn check_labels(&self, check: &mut Checks<'_>) -> Vec<(String, String)> {
        let want = format!(
            "NAME=VALUE, a name of the form [a-zA-Z_][a-zA-Z0-9_]* that the collector does not set itself and a value of \
             1 to {EXTERNAL_VALUE_BYTES_MAX} bytes, at most {EXTERNAL_LABELS_MAX} times"
        );
        let labels = self.label.iter().zip(0..);
        let labels = labels.map(|(text, number)| {
            check.value("--label", text, &want, |text| {
                let (name, value) = text.split_once('=')?;
                let is_name = profile::is_label_name(name) && !name.starts_with("__");
                let is_value = (1..=EXTERNAL_VALUE_BYTES_MAX).contains(&value.len());
                let is_valid = is_name && is_value && !OWN_LABELS.contains(&name);
                (is_valid && number < EXTERNAL_LABELS_MAX)
                    .then(|| (name.to_owned(), value.to_owned()))
            })
        });
        labels.collect()
    }
}

/// Collects the invalid values.
struct Checks<'a> {
    bad: &'a mut Vec<BadValue>,
}

impl Checks<'_> {
    fn value<T: Default>(
        &mut self,
        flag: &'static str,
        value: &str,
        want: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> T {
        parse(value).unwrap_or_else(|| {
            self.bad.push(BadValue {
                flag,
                value: value.to_owned(),
                want: format!("expected {want}"),
            });
            T::default()
        })
    }
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

/// Parses `5` and `0.8%`.
fn parse_percent(text: &str, range: RangeInclusive<f64>) -> Option<f64> {
    let percent: f64 = text.strip_suffix('%').unwrap_or(text).parse().ok()?;
    range.contains(&percent).then_some(percent)
}

/// Parses `512`, `64MiB`, `1GiB`, `10MB`.
fn parse_bytes(text: &str) -> Option<u64> {
    const UNITS: [(&str, u64); 6] = [
        ("KiB", 1 << 10),
        ("MiB", 1 << 20),
        ("GiB", 1 << 30),
        ("kB", 1_000),
        ("MB", 1_000_000),
        ("GB", 1_000_000_000),
    ];
    let (number, unit) = UNITS
        .into_iter()
        .find_map(|(name, unit)| Some((text.strip_suffix(name)?, unit)))
        .unwrap_or((text, 1));
    number.parse::<u64>().ok()?.checked_mul(unit)
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

    fn build(words: &[&str]) -> Result<Config, Vec<String>> {
        let words = ["pilotlight-collector"].iter().chain(words);
        let arguments = Arguments::try_parse_from(words).unwrap();
        arguments
            .build(Surroundings {
                hostname: "host",
                ..Surroundings::default()
            })
            .map_err(|bad| bad.iter().map(ToString::to_string).collect())
    }

    /// Check that the defaults are valid.
    #[test]
    fn defaults() {
        let config = build(&[]).unwrap();
        assert_eq!(config.node, "host");
        assert_eq!(config.frequency_hz, 100);
        assert_eq!(config.buffer_bytes, 64 << 20);
        assert_eq!(config.window, Duration::from_secs(10));
        assert_eq!(config.walk_budget_ppm, 8_000);
        assert_eq!(config.name_cpu_share, 0.05);
        assert!(!config.include_idle);
        assert_eq!(config.unwind, Unwind::Rows);
        assert_eq!(config.cache_dir, Some("/var/cache/pilotlight".into()));
        assert_eq!(config.upload_rate, 4 << 20);
        assert_eq!(build(&["--upload-rate", "0"]).unwrap().upload_rate, 0);
        assert!(build(&["--include-idle"]).unwrap().include_idle);
        assert!(!config.hand_over);
        assert!(build(&["--hand-over"]).unwrap().hand_over);
        assert_eq!(build(&["--cache-dir", "none"]).unwrap().cache_dir, None);
        assert_eq!(config.label_values_max, 2_000);
        let labels = build(&["--label", "cluster=eu-1", "--label", "a=b=c"]);
        assert_eq!(
            labels.unwrap().external_labels,
            [
                ("cluster".into(), "eu-1".into()),
                ("a".into(), "b=c".into())
            ]
        );
    }

    /// Check that all invalid values are reported, each with the expected form.
    #[test]
    fn all_bad_values() {
        let bad = build(&[
            "--frequency",
            "0",
            "--event",
            "branches",
            "--window",
            "7s",
            "--buffer-bytes",
            "many",
            "--metrics-listen",
            "nowhere",
            "--allowed-host",
            "node1:7072",
            "--server",
            "server:7071",
            "--node",
            "",
            "--include-idle",
            "perhaps",
            "--walk-budget",
            "nan",
            "--prove-one-in",
            "some",
            "--name-cpu",
            "101",
            "--unwind-bytes",
            "1GiB",
            "--unwind",
            "guess",
            "--cache-dir",
            "cache",
            "--cache-bytes",
            "0",
            "--upload-rate",
            "1",
            "--on-failure",
            "restart",
            "--hand-over",
            "both",
            "--log-format",
            "xml",
            "--kubernetes",
            "on",
            "--label",
            "node=b,a-b=c,a=",
            "--label-values-max",
            "0",
        ])
        .unwrap_err();
        assert_eq!(bad.len(), 25, "{bad:#?}");
        assert!(
            bad.contains(&"--frequency is `0`: expected a whole number from 1 to 1000".to_owned())
        );
    }

    /// Check that a server with TLS is refused with the reason.
    #[test]
    fn no_tls() {
        let bad = build(&["--server", "https://server:7071"]).unwrap_err();
        let message = "--server is `https://server:7071`: expected http://…: the collector has no TLS yet. Profiles \
                       cross the network in clear, so use a private network, or a tunnel that encrypts";
        assert_eq!(bad, [message]);
    }

    /// Check the commands, which take the flags before them.
    #[test]
    fn commands() {
        let command = |words: &[&str]| {
            let words = ["pilotlight-collector"].iter().chain(words);
            Arguments::try_parse_from(words).unwrap().subcommand()
        };
        assert_eq!(
            command(&["--event", "cycles", "preflight"]),
            Some(Command::Preflight)
        );
        let ready = |seconds| {
            let wait = Duration::from_secs(seconds);
            Some(Command::Ready { wait })
        };
        assert_eq!(command(&["ready"]), ready(0));
        assert_eq!(command(&["ready", "--wait", "25s"]), ready(25));
        for wait in ["25", "1m", "3601s", "-1s", "s"] {
            let words = ["pilotlight-collector", "ready", "--wait", wait];
            assert!(Arguments::try_parse_from(words).is_err(), "{wait}");
        }
        assert_eq!(command(&[]), None);
    }

    /// Check how the API server is reached, in a pod and outside, and that the node's name is required in a pod.
    #[test]
    fn kubernetes() {
        let build = |words: &[&str], is_in_pod, has_service_account| {
            let words = ["pilotlight-collector"].iter().chain(words);
            let arguments = Arguments::try_parse_from(words).unwrap();
            let config = arguments.build(Surroundings {
                hostname: "host",
                is_in_pod,
                has_service_account,
            });
            config
                .map(|config| (config.node, config.kubernetes))
                .map_err(|bad| bad.iter().map(ToString::to_string).collect::<String>())
        };
        let file = Some(ClusterAccess::Kubeconfig("/k".into()));
        let account = Some(ClusterAccess::ServiceAccount);
        let node = ["--node", "n"];
        assert_eq!(build(&[], false, false), Ok(("host".into(), None)));
        assert_eq!(build(&node, true, true), Ok(("n".into(), account)));
        assert_eq!(build(&node, true, false), Ok(("n".into(), None)));
        let words = ["--node", "n", "--kubernetes", "off"];
        assert_eq!(build(&words, true, true), Ok(("n".into(), None)));
        let words = ["--kubeconfig", "/k", "--kubernetes", "on"];
        assert_eq!(build(&words, false, false), Ok(("host".into(), file)));
        let message = build(&[], true, true).unwrap_err();
        assert!(message.contains("spec.nodeName"), "{message}");
        assert!(build(&["ready"], true, true).is_ok());
        let words = ["--node", "n", "--kubernetes", "on"];
        let message = build(&words, true, false).unwrap_err();
        assert!(
            message.contains("automountServiceAccountToken"),
            "{message}"
        );
    }

    /// Check where a policy comes from, and that a ConfigMap needs the API server.
    #[test]
    fn policies() {
        let policy = |words: &[&str]| build(words).map(|config| config.policy);
        assert_eq!(policy(&[]), Ok(None));
        let file = Some(PolicySource::File("/p.yaml".into()));
        assert_eq!(policy(&["--policy-file", "/p.yaml"]), Ok(file));
        let map = [
            "--kubeconfig",
            "/k",
            "--policy-configmap",
            "profiling/policy",
        ];
        let expected = PolicySource::ConfigMap {
            namespace: "profiling".into(),
            name: "policy".into(),
            access: ClusterAccess::Kubeconfig("/k".into()),
        };
        assert_eq!(policy(&map), Ok(Some(expected)));
        for (words, expected) in [
            (
                &map[2..],
                "expected --kubernetes on, with a service account",
            ),
            (
                &[&map[..], &["--kubernetes", "off"]].concat(),
                "expected --kubernetes on",
            ),
            (
                &[&map[..3], &["policy"]].concat(),
                "expected NAMESPACE/NAME",
            ),
            (&[&map[..3], &["a/b/c"]].concat(), "expected NAMESPACE/NAME"),
            (
                &[&map[..3], &["a/b,metadata.name!=c"]].concat(),
                "expected NAMESPACE/NAME",
            ),
        ] {
            let bad = policy(words).unwrap_err();
            assert!(bad[0].contains(expected), "{bad:?}");
        }
        let both = [
            "pilotlight-collector",
            "--policy-file",
            "/p",
            "--policy-configmap",
            "a/b",
        ];
        assert!(Arguments::try_parse_from(both).is_err());
    }

    /// Check the forms of byte counts.
    #[test]
    fn byte_counts() {
        assert_eq!(parse_bytes("512"), Some(512));
        assert_eq!(parse_bytes("2MiB"), Some(2 << 20));
        assert_eq!(parse_bytes("3GB"), Some(3_000_000_000));
        for text in ["", "MiB", "-1", "1.5GiB", "99999999999GiB", "1 MiB"] {
            assert_eq!(parse_bytes(text), None, "{text}");
        }
    }
}
