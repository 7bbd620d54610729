//! Configuration in two levels: the arguments, and the values that the collector is built from.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use crate::{kubernetes::ClusterAccess, label::OWN_LABELS, policy::PolicySource, sample::Event};

mod arguments;
mod checks;

pub use arguments::{Arguments, Command};
pub use checks::BadValue;
use checks::{Checks, parse_bytes};

const MIB: u64 = 1 << 20;

const EVENTS: [(&str, Event); 2] = [("cpu-clock", Event::CpuClock), ("cycles", Event::Cycles)];

const UNWINDS: [(&str, Unwind); 2] = [
    ("rows", Unwind::Rows),
    ("frame-pointers", Unwind::FramePointers),
];

const ON_FAILURE: [(&str, OnFailure); 2] = [("exit", OnFailure::Exit), ("wait", OnFailure::Wait)];

const LOG_FORMATS: [(&str, LogFormat); 2] = [("text", LogFormat::Text), ("json", LogFormat::Json)];

/// Labels of the flag `--label`. The server takes 128 labels a series.
const EXTERNAL_LABELS_MAX: usize = 32;

/// Bytes of such a label's value.
const EXTERNAL_VALUE_BYTES_MAX: usize = 256;

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
        let mut check = Checks::default();
        let config = Config {
            node: self.check_node(&mut check, surroundings),
            kubernetes: self.check_kubernetes(&mut check, surroundings),
            policy: self.check_policy(&mut check, surroundings),
            external_labels: self.check_labels(&mut check),
            label_values_max: check.number(
                "--label-values-max",
                &self.label_values_max,
                10..=10_000,
            ),
            server: check.server("--server", &self.server),
            metrics_listen: check.address("--metrics-listen", &self.metrics_listen),
            allowed_hosts: check.hosts("--allowed-host", &self.allowed_host),
            frequency_hz: check.number("--frequency", &self.frequency, 1..=1000),
            event: check.choice("--event", &self.event, EVENTS),
            include_idle: check.boolean("--include-idle", &self.include_idle),
            window: check.window("--window", &self.window),
            buffer_bytes: check.bytes(
                "--buffer-bytes",
                &self.buffer_bytes,
                MIB..,
                "1MiB or more, like 64MiB or 1GiB",
            ),
            force_kernel: check.boolean("--force-kernel", &self.force_kernel),
            walk_budget_ppm: self.check_walk_budget(&mut check),
            unwind_bytes: check.bytes(
                "--unwind-bytes",
                &self.unwind_bytes,
                MIB..=64 * MIB,
                "1MiB to 64MiB, like 24MiB",
            ),
            unwind: check.choice("--unwind", &self.unwind, UNWINDS),
            cache_dir: check.folder("--cache-dir", &self.cache_dir),
            cache_bytes: check.bytes(
                "--cache-bytes",
                &self.cache_bytes,
                MIB..,
                "1MiB or more, like 128MiB or 1GiB",
            ),
            prove_one_in: self.check_prove_one_in(&mut check),
            name_cpu_share: check.percentage("--name-cpu", &self.name_cpu, 0.0..=100.0),
            upload_rate: self.check_upload_rate(&mut check),
            on_failure: check.choice("--on-failure", &self.on_failure, ON_FAILURE),
            hand_over: check.boolean("--hand-over", &self.hand_over),
            log_format: check.choice("--log-format", &self.log_format, LOG_FORMATS),
            log: check.log_filter("--log", &self.log),
            relabel_config: self.relabel_config,
        };
        if check.bad.is_empty() {
            Ok(config)
        } else {
            Err(check.bad)
        }
    }

    fn check_walk_budget(&self, check: &mut Checks) -> u32 {
        let share = check.percentage("--walk-budget", &self.walk_budget, 0.01..=10.0);
        (share * 1_000_000.0).round() as u32
    }

    fn check_prove_one_in(&self, check: &mut Checks) -> u32 {
        let want = "a whole number, 0 for none";
        let parsed = check.value("--prove-one-in", &self.prove_one_in, want, |text| {
            text.parse().ok()
        });
        parsed.unwrap_or_default()
    }

    fn check_upload_rate(&self, check: &mut Checks) -> u64 {
        let want = "64KiB or more, like 4MiB, or 0 for never";
        let is_valid = |bytes: &u64| *bytes == 0 || *bytes >= 64 << 10;
        let checked = check.value("--upload-rate", &self.upload_rate, want, |text| {
            parse_bytes(text).filter(is_valid)
        });
        checked.unwrap_or_default()
    }

    fn check_node(&self, check: &mut Checks, surroundings: Surroundings<'_>) -> String {
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
        let checked = check.value("--node", name, want, |text| {
            (1..=253).contains(&text.len()).then(|| text.to_owned())
        });
        checked.unwrap_or_default()
    }

    fn check_kubernetes(
        &self,
        check: &mut Checks,
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
        let checked = check.value("--kubernetes", &self.kubernetes, want, |text| match text {
            "auto" => Some(access),
            "on" => access.map(Some),
            "off" => Some(None),
            _ => None,
        });
        checked.flatten()
    }

    fn find_access(&self, surroundings: Surroundings<'_>) -> Option<ClusterAccess> {
        let file = self.kubeconfig.clone().map(ClusterAccess::Kubeconfig);
        let account = surroundings.has_service_account;
        file.or(account.then_some(ClusterAccess::ServiceAccount))
    }

    fn check_policy(
        &self,
        check: &mut Checks,
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
            Some(PolicySource::ConfigMap {
                namespace: namespace.to_owned(),
                name: name.to_owned(),
                access,
            })
        })
    }

    fn check_labels(&self, check: &mut Checks) -> Vec<(String, String)> {
        let want = format!(
            "NAME=VALUE, a name of the form [a-zA-Z_][a-zA-Z0-9_]* that the collector does not set itself and a value of \
             1 to {EXTERNAL_VALUE_BYTES_MAX} bytes, at most {EXTERNAL_LABELS_MAX} times"
        );
        let labels = self.label.iter().zip(0..);
        let labels = labels.filter_map(|(text, number)| {
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

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

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
