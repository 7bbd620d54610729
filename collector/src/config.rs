//! What was typed, and what it means.

use std::{net::SocketAddr, ops::RangeInclusive, path::PathBuf, time::Duration};

use clap::Parser;
use thiserror::Error;

use crate::sample::Event;

/// Samples the stacks of all processes of this machine, kernel and user, and
/// sends them to a Pilotlight server. Needs root, or the capabilities BPF, PERFMON,
/// SYS_PTRACE, DAC_READ_SEARCH, SYSLOG and CHECKPOINT_RESTORE, and SYS_CHROOT for names
/// by debug information.
#[derive(Debug, Parser)]
#[command(name = "pilotlight-collector", version, max_term_width = 100)]
pub struct Arguments {
    /// Address of the server's gRPC port
    #[arg(
        long,
        value_name = "URL",
        env = "PILOTLIGHT_COLLECTOR_SERVER",
        default_value = "http://127.0.0.1:7071"
    )]
    server: String,
    /// Name of this node, the label `node` [default: the host's name]
    #[arg(long, value_name = "NAME", env = "PILOTLIGHT_COLLECTOR_NODE")]
    node: Option<String>,
    /// Where /metrics and /healthz are served
    #[arg(
        long,
        value_name = "HOST:PORT",
        env = "PILOTLIGHT_COLLECTOR_METRICS_LISTEN",
        default_value = "127.0.0.1:7072"
    )]
    metrics_listen: String,
    /// Samples a second on each busy processor, 1 to 1000
    #[arg(
        long,
        value_name = "HZ",
        env = "PILOTLIGHT_COLLECTOR_FREQUENCY",
        default_value = "100"
    )]
    frequency: String,
    /// What makes the sampling timers tick: cpu-clock, or cycles where the processor has counters
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
    /// Samples are sent together for this long, 1s to 30s
    #[arg(
        long,
        value_name = "DURATION",
        env = "PILOTLIGHT_COLLECTOR_WINDOW",
        default_value = "10s"
    )]
    window: String,
    /// Memory for windows that the server has not taken yet; beyond it the oldest are dropped and counted
    #[arg(
        long,
        value_name = "BYTES",
        env = "PILOTLIGHT_COLLECTOR_BUFFER_BYTES",
        default_value = "64MiB"
    )]
    buffer_bytes: String,
    /// Run on a kernel that is known to crash in its own stack walkers: true or false
    #[arg(
        long,
        value_name = "BOOL",
        env = "PILOTLIGHT_COLLECTOR_FORCE_KERNEL",
        default_value = "false",
        default_missing_value = "true",
        num_args = 0..=1
    )]
    force_kernel: String,
    /// Time that the sampling program may take for deep stacks, in percent of each processor: 0.01 to 10
    #[arg(
        long,
        value_name = "PERCENT",
        env = "PILOTLIGHT_COLLECTOR_WALK_BUDGET",
        default_value = "0.8"
    )]
    walk_budget: String,
    /// Kernel memory for the unwind rows of files, 4 bytes a row; beyond it the files used least lately
    /// are pushed out
    #[arg(
        long,
        value_name = "BYTES",
        env = "PILOTLIGHT_COLLECTOR_UNWIND_BYTES",
        default_value = "24MiB"
    )]
    unwind_bytes: String,
    /// How stacks are unwound: rows (of the call frame information of each file), or frame-pointers (all
    /// stacks, as many of them as that breaks: to compare)
    #[arg(
        long,
        value_name = "HOW",
        env = "PILOTLIGHT_COLLECTOR_UNWIND",
        default_value = "rows"
    )]
    unwind: String,
    /// Where what took long to make is kept across restarts (the unwind rows of large files), or `none`
    #[arg(
        long,
        value_name = "PATH",
        env = "PILOTLIGHT_COLLECTOR_CACHE_DIR",
        default_value = "/var/cache/pilotlight"
    )]
    cache_dir: String,
    /// Bytes that are kept there; beyond it the files used least lately go
    #[arg(
        long,
        value_name = "BYTES",
        env = "PILOTLIGHT_COLLECTOR_CACHE_BYTES",
        default_value = "128MiB"
    )]
    cache_bytes: String,
    /// Of this many complete stacks one is proved by a second unwinder, at most five a second on each
    /// processor; 0 for none
    #[arg(
        long,
        value_name = "COUNT",
        env = "PILOTLIGHT_COLLECTOR_PROVE_ONE_IN",
        default_value = "1000"
    )]
    prove_one_in: String,
    /// CPU time that naming may take on average, in percent of one core, up to 100. What is not named for want of it is named
    /// in a later window, or by the server, which asks for the files that it lacks; with 0 the server names all, but not the
    /// kernel, code made at run time and files without a build id
    #[arg(
        long,
        value_name = "PERCENT",
        env = "PILOTLIGHT_COLLECTOR_NAME_CPU",
        default_value = "5"
    )]
    name_cpu: String,
    /// Bytes a second in which files with symbols are sent when the server asks for them (only the parts that names
    /// are made of, one file after the other); 0 for never
    #[arg(
        long,
        value_name = "BYTES",
        env = "PILOTLIGHT_COLLECTOR_UPLOAD_RATE",
        default_value = "4MiB"
    )]
    upload_rate: String,
    /// What is logged: error, warn, info, debug or trace, also for parts (`info,collector::name=debug`)
    #[arg(
        long,
        value_name = "FILTER",
        env = "PILOTLIGHT_COLLECTOR_LOG",
        default_value = "info"
    )]
    log: String,
}

/// How stacks are unwound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unwind {
    /// By the call frame information of each file, and by frame pointers where there is none.
    #[default]
    Rows,
    /// By frame pointers alone.
    FramePointers,
}

/// What the collector runs with.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Address of the server's gRPC port.
    pub server: String,
    /// Name of this node.
    pub node: String,
    /// Where /metrics is served.
    pub metrics_listen: SocketAddr,
    /// Samples a second on each busy processor.
    pub frequency_hz: u32,
    /// What makes the timers tick.
    pub event: Event,
    /// Whether idle time is sampled.
    pub include_idle: bool,
    /// Length of a window.
    pub window: Duration,
    /// Memory for windows that wait for the server.
    pub buffer_bytes: u64,
    /// Whether known-bad kernels are run on.
    pub force_kernel: bool,
    /// Nanoseconds that the sampling program may take of each million on a processor, before deep stacks
    /// are cut.
    pub walk_budget_ppm: u32,
    /// Kernel memory for unwind rows.
    pub unwind_bytes: u64,
    /// How stacks are unwound.
    pub unwind: Unwind,
    /// Where what took long to make is kept across restarts; `None` for nowhere.
    pub cache_dir: Option<PathBuf>,
    /// Bytes that are kept there.
    pub cache_bytes: u64,
    /// Of this many complete stacks one is proved; 0 for none.
    pub prove_one_in: u32,
    /// CPU time that naming may take on average, for each second.
    pub name_cpu_share: f64,
    /// Bytes a second in which files are sent; 0 for never. The default is a thirtieth of a link of 1 Gbit/s: 40 MB, as a
    /// large program has, take 10 s, and 2 % of a processor meanwhile (4.2 ms a MB).
    pub upload_rate: u64,
    /// What is logged.
    pub log: String,
}

/// A value that cannot be used.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("{flag} is `{value}`: {want}")]
pub struct BadValue {
    flag: &'static str,
    value: String,
    want: String,
}

impl Arguments {
    /// Makes the configuration; `hostname` is the node's name if none was given.
    ///
    /// # Errors
    /// All values that cannot be used, not only the first.
    pub fn build(self, hostname: &str) -> Result<Config, Vec<BadValue>> {
        let mut bad = Vec::new();
        let mut check = Checks { bad: &mut bad };
        let config = Config {
            node: check.value(
                "--node",
                self.node.as_deref().unwrap_or(hostname),
                "a name of 1 to 253 bytes",
                |text| (1..=253).contains(&text.len()).then(|| text.to_owned()),
            ),
            server: check.value(
                "--server",
                &self.server,
                "a URL like http://server:7071",
                |text| {
                    let host = text
                        .strip_prefix("http://")
                        .or(text.strip_prefix("https://"))?;
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
}

/// Collects the values that cannot be used.
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
    use super::*;

    fn build(words: &[&str]) -> Result<Config, Vec<String>> {
        let words = ["pilotlight-collector"].iter().chain(words);
        let arguments = Arguments::try_parse_from(words).unwrap();
        arguments
            .build("host")
            .map_err(|bad| bad.iter().map(ToString::to_string).collect())
    }

    /// Check that the defaults are good.
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
        assert_eq!(build(&["--cache-dir", "none"]).unwrap().cache_dir, None);
    }

    /// Check that all bad values are reported, each with what was wanted.
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
        ])
        .unwrap_err();
        assert_eq!(bad.len(), 16, "{bad:#?}");
        assert!(
            bad.contains(&"--frequency is `0`: expected a whole number from 1 to 1000".to_owned())
        );
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
