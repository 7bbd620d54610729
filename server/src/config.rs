//! Configuration in two levels: typed values ([`Typed`]), and checked ones ([`Config`]).

use std::net::SocketAddr;
use std::num::NonZero;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand};
use listen::hosts::read_name;
use store::{HourLimits, RetentionFlags, RollUp, RollUpAddresses, StoreOptions};
use tracing_subscriber::EnvFilter;

use crate::serve::http::questions::QuestionLimits;
use crate::store_command::{DATA_DIR, DataDir, StatsArguments};
use crate::symbol::IndexStoreOptions;
use crate::symbol::child::ChildLimits;
use crate::symbol::debuginfo_command::DebuginfoCommand;
use crate::symbol::process::own_program;

/// Loopback only, unless configured otherwise: there is no authentication yet.
const HTTP_LISTEN: &str = "127.0.0.1:7070";
const GRPC_LISTEN: &str = "127.0.0.1:7071";
/// 7072 is the collector's.
const ADMIN_LISTEN: &str = "127.0.0.1:7073";

/// A busy node with 64 cores sends about 1 MB a window; a first window after a compiler ran, some more.
const MESSAGE_BYTES_MAX: &str = "32MiB";

/// zstd shrinks a pprof by a factor of four to eight: this is the decompressed size of 32 MiB.
const PROFILE_BYTES_MAX: &str = "256MiB";

/// A segment of five minutes takes 1.6 bytes a row of generated load, one of ten 1.2; and a start reads the logs of so much time again.
const BLOCK_TIME: Duration = Duration::from_secs(300);

/// A verification reads two to three times a segment's bytes: 20 GiB take two hours, 1 TiB four days. Less than a tenth of what a slow
/// disk of a cloud reads.
const VERIFY_BYTES_PER_SECOND: u64 = 8 << 20;

/// Two of the largest profiles at once, or some hundred usual ones.
const INGEST_BYTES_MAX: &str = "512MiB";

/// Five minutes of one busy node are 20 MB, of 100 nodes that run the same programs 150 MB.
const CACHE_BYTES_MAX: &str = "256MiB";

/// After a day windows of a minute, after a week of ten: a month of 20 nodes is then asked in a second.
const ROLL_UP: &str = "1d:1m 7d:10m";

/// New entries that a node may bring to an hour. [`HourLimits`] has the arithmetic.
const HOUR_SERIES_MAX: &str = "65536";
const HOUR_STACKS_MAX: &str = "100000000";
const HOUR_LOCATIONS_MAX: &str = "20000000";

/// Indexes of symbols: an index is at most as large as the lines and names of its file, 32 MiB for a program of 55
/// MiB. This is room for some hundred such programs, or thousands of common libraries.
const SYMBOL_BYTES_MAX: &str = "4GiB";

/// Largest file with debug information: a browser's has 3 GB. Two are uploaded at a time, two are fetched, parts from
/// collectors have as many bytes as one, and two removed parts may still be read: (2 + 2 + 1 + 2) × 4 GiB = 28 GiB of
/// the disk for a while.
const SYMBOL_FILE_BYTES_MAX: &str = "4GiB";

/// The catalog's log grows in steps of 512 KiB and is rewritten while it is cleaned up; when it cannot write, the
/// server must be restarted. Segments stop first.
const RESERVE_BYTES: &str = "64MiB";

/// Queries that wait: some people with one page each, which asks five things at once.
const QUERIES_WAITING_MAX: &str = "64";

/// A pprof of a busy cluster's hour takes some 200 MB, and an answer with a million nodes 30 MB.
const QUERY_BYTES_MAX: &str = "512MiB";

/// Longer than anybody waits for an answer, and than a query for a month takes.
const QUERY_TIMEOUT: &str = "2m";

/// A push takes milliseconds, a query less than a few seconds; an orchestrator kills after 30 s.
const DRAIN_TIMEOUT: &str = "10s";

/// Pilotlight's server: takes the profiles of the collectors, keeps them, and shows them.
///
/// It listens for browsers and `go tool pprof` on one port and for collectors on another. Everything it keeps is
/// below --data-dir; it may be killed at any time without losing what it acknowledged.
///
/// Sizes are bytes, or a number with KiB, MiB or GiB. Each option can also be given as the environment variable that
/// is named beside it.
#[derive(Debug, Parser)]
#[command(name = "pilotlight-server", version, max_term_width = 110)]
pub struct Typed {
    /// Address for the page, the API and the metrics; port 0 takes any free one
    #[arg(long, env = "PILOTLIGHT_HTTP_LISTEN", value_name = "ADDRESS", default_value = HTTP_LISTEN)]
    http_listen: String,

    /// Address for the collectors (gRPC); port 0 takes any free one
    #[arg(long, env = "PILOTLIGHT_GRPC_LISTEN", value_name = "ADDRESS", default_value = GRPC_LISTEN)]
    grpc_listen: String,

    /// Address for /healthz, /readyz and /metrics alone, which answer there however many profiles and browsers come; port 0
    /// takes any free one
    #[arg(long, env = "PILOTLIGHT_ADMIN_LISTEN", value_name = "ADDRESS", default_value = ADMIN_LISTEN)]
    admin_listen: String,

    /// A name that the server is reached by through a loopback address, as in a tunnel; may be given more than once. A listener on
    /// a loopback address answers to `localhost`, loopback addresses and these names only, so that no foreign page can have its
    /// own name point at it [default: none]
    #[arg(
        long,
        env = "PILOTLIGHT_ALLOWED_HOST",
        value_name = "NAME",
        value_delimiter = ' '
    )]
    allowed_host: Vec<String>,

    /// Path below which an ingress controller or a proxy shows the page and the API, as in /profiles, and which it does not take away;
    /// they answer at / as well [default: none]
    #[arg(long, env = "PILOTLIGHT_PATH_PREFIX", value_name = "PATH")]
    path_prefix: Option<String>,

    /// Directory of the store; one server at a time
    #[arg(long, env = "PILOTLIGHT_DATA_DIR", value_name = "PATH", default_value = DATA_DIR)]
    data_dir: PathBuf,

    /// Largest message of a collector, as it comes over the wire
    #[arg(long, env = "PILOTLIGHT_MESSAGE_BYTES_MAX", value_name = "SIZE", default_value = MESSAGE_BYTES_MAX)]
    message_bytes_max: String,

    /// Largest profile in a message, after decompression
    #[arg(long, env = "PILOTLIGHT_PROFILE_BYTES_MAX", value_name = "SIZE", default_value = PROFILE_BYTES_MAX)]
    profile_bytes_max: String,

    /// Decompressed profiles in work at the same time, together
    #[arg(long, env = "PILOTLIGHT_INGEST_BYTES_MAX", value_name = "SIZE", default_value = INGEST_BYTES_MAX)]
    ingest_bytes_max: String,

    /// Profiles in memory that are in no segment yet
    #[arg(long, env = "PILOTLIGHT_CACHE_BYTES_MAX", value_name = "SIZE", default_value = CACHE_BYTES_MAX)]
    cache_bytes_max: String,

    /// Different label sets that a node may bring in an hour; a window beyond it is refused, like those beyond the next two
    #[arg(long, env = "PILOTLIGHT_HOUR_SERIES_MAX", value_name = "NUMBER", default_value = HOUR_SERIES_MAX)]
    hour_series_max: String,

    /// Frames of different stacks that a node may bring in an hour, those that begin alike counted once
    #[arg(long, env = "PILOTLIGHT_HOUR_STACKS_MAX", value_name = "NUMBER", default_value = HOUR_STACKS_MAX)]
    hour_stacks_max: String,

    /// Different locations that a node may bring in an hour
    #[arg(long, env = "PILOTLIGHT_HOUR_LOCATIONS_MAX", value_name = "NUMBER", default_value = HOUR_LOCATIONS_MAX)]
    hour_locations_max: String,

    /// How long profiles are kept, as in 30d or 12h; `forever` for no limit [default: 30d for a new directory, no limit for one that
    /// an earlier version filled]
    #[arg(long, env = "PILOTLIGHT_RETENTION", value_name = "TIME")]
    retention: Option<String>,

    /// How many bytes profiles take on disk; the oldest are evicted first; `unlimited` for no limit [default: half of what is free
    /// when the directory is new, no limit for one that an earlier version filled]
    #[arg(long, env = "PILOTLIGHT_RETENTION_BYTES", value_name = "SIZE")]
    retention_bytes: Option<String>,

    /// Ages from which windows are added up to longer ones, with the length of these; no sample, label or frame is lost by it. `none`
    /// keeps all as they were received
    #[arg(
        long,
        env = "PILOTLIGHT_ROLL_UP",
        value_name = "AGE:LENGTH",
        default_value = ROLL_UP
    )]
    roll_up: String,

    /// Addresses of frames with function and line in windows that are rolled up: keep, or drop, which saves space. Other frames keep theirs
    #[arg(
        long,
        env = "PILOTLIGHT_ROLL_UP_ADDRESSES",
        value_name = "KEEP",
        default_value = "keep"
    )]
    roll_up_addresses: String,

    /// Free space on the data directory's disk that is left for the catalog; with less, no profiles are taken
    #[arg(long, env = "PILOTLIGHT_RESERVE_BYTES", value_name = "SIZE", default_value = RESERVE_BYTES)]
    reserve_bytes: String,

    /// Indexes of symbols that are kept on disk, those used least lately out first
    #[arg(long, env = "PILOTLIGHT_SYMBOL_BYTES_MAX", value_name = "SIZE", default_value = SYMBOL_BYTES_MAX)]
    symbol_bytes_max: String,

    /// Largest file with symbols that is taken, unpacked; only its index is kept. As many bytes may wait of files that
    /// collectors are asked for and have sent a part of
    #[arg(long, env = "PILOTLIGHT_SYMBOL_FILE_BYTES_MAX", value_name = "SIZE", default_value = SYMBOL_FILE_BYTES_MAX)]
    symbol_file_bytes_max: String,

    /// A debuginfod server that is asked for symbols of frames that somebody looks at and nobody has named, as in
    /// https://debuginfod.debian.net; may be given more than once. It learns which build ids run here [default: none]
    #[arg(
        long,
        env = "PILOTLIGHT_DEBUGINFOD_URL",
        value_name = "URL",
        value_delimiter = ' '
    )]
    debuginfod_url: Vec<String>,

    /// Queries that read much and run at the same time; as many that read little have places of their own [default: the number of CPUs]
    #[arg(long, env = "PILOTLIGHT_QUERIES_MAX", value_name = "NUMBER")]
    queries_max: Option<String>,

    /// Queries that wait while others run; more are told to come back
    #[arg(long, env = "PILOTLIGHT_QUERIES_WAITING_MAX", value_name = "NUMBER", default_value = QUERIES_WAITING_MAX)]
    queries_waiting_max: String,

    /// Memory of queries that run, and of answers that clients have not read yet; these may take a quarter of it
    #[arg(long, env = "PILOTLIGHT_QUERY_BYTES_MAX", value_name = "SIZE", default_value = QUERY_BYTES_MAX)]
    query_bytes_max: String,

    /// How long a query may wait and run
    #[arg(long, env = "PILOTLIGHT_QUERY_TIMEOUT", value_name = "DURATION", default_value = QUERY_TIMEOUT)]
    query_timeout: String,

    /// How long requests may take to end after SIGTERM or SIGINT
    #[arg(long, env = "PILOTLIGHT_DRAIN_TIMEOUT", value_name = "DURATION", default_value = DRAIN_TIMEOUT)]
    drain_timeout: String,

    /// File that gets the addresses as JSON when the server listens
    #[arg(long, env = "PILOTLIGHT_ADDRESSES_FILE", value_name = "PATH")]
    addresses_file: Option<PathBuf>,

    /// What is logged: off, error, warn, info, debug or trace, or by module as in `info,store=debug`
    #[arg(
        long,
        env = "PILOTLIGHT_LOG",
        value_name = "FILTER",
        default_value = "info"
    )]
    log: String,

    /// Form of the log: text, or json with one object a line
    #[arg(
        long,
        env = "PILOTLIGHT_LOG_FORMAT",
        value_name = "FORMAT",
        default_value = "text"
    )]
    log_format: String,

    /// A command other than serving.
    #[command(subcommand)]
    command: Option<Command>,
}

/// Commands other than serving.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Symbols for a server that runs
    #[command(subcommand)]
    Debuginfo(DebuginfoCommand),
    /// Reads all files of a data directory, and tells what is damaged; also while a server runs on it
    Check(DataDir),
    /// Tells what takes how many bytes in a data directory, and how many values each label has
    Stats(StatsArguments),
    /// Makes the catalog of a data directory anew, and forgets segments that are gone. A server does the former by itself
    Rebuild(DataDir),
}

/// Checked configuration.
#[derive(Debug)]
pub struct Config {
    /// Address for HTTP.
    pub http_listen: SocketAddr,
    /// Address for gRPC.
    pub grpc_listen: SocketAddr,
    /// Address for probes.
    pub admin_listen: SocketAddr,
    /// Names that listeners on loopback addresses answer to.
    pub allowed_hosts: Vec<String>,
    /// Path prefix of the page and the API: begins with a slash, ends without one.
    pub path_prefix: Option<String>,
    /// The store.
    pub store: StoreOptions,
    /// The symbol store.
    pub symbols: IndexStoreOptions,
    /// debuginfod servers.
    pub debuginfod_urls: Vec<String>,
    /// Largest message on the wire.
    pub message_bytes_max: usize,
    /// Largest decompressed profile.
    pub profile_bytes_max: u64,
    /// Bytes of decompressed profiles at once.
    pub ingest_bytes_max: u64,
    /// Limits of queries.
    pub queries: QuestionLimits,
    /// Longest time for a stop.
    pub drain_timeout: Duration,
    /// File for the addresses.
    pub addresses_file: Option<PathBuf>,
    /// Filter of log messages.
    pub log: EnvFilter,
    /// Form of the log.
    pub log_format: LogFormat,
}

/// The form of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// A line of text for each event.
    Text,
    /// A JSON object on a line for each event.
    Json,
}

/// All wrong values, one a line.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct ConfigError(pub Vec<String>);

impl Typed {
    /// The command to run instead of serving.
    pub fn take_command(&mut self) -> Option<Command> {
        self.command.take()
    }

    /// Checks all values.
    ///
    /// # Errors
    /// All values that are wrong.
    pub fn build(self) -> Result<Config, ConfigError> {
        let mut check = Check::default();
        let queries_default = std::thread::available_parallelism().map_or(2, NonZero::get);
        let reserve_bytes = check.size("--reserve-bytes", &self.reserve_bytes);
        let symbols = IndexStoreOptions {
            path: self.data_dir.join("symbols"),
            bytes_max: check.size("--symbol-bytes-max", &self.symbol_bytes_max),
            file_bytes_max: check.size("--symbol-file-bytes-max", &self.symbol_file_bytes_max),
            reserve_bytes,
            program: own_program(),
            child: ChildLimits::default(),
        };
        let config = Config {
            http_listen: check.address("--http-listen", &self.http_listen),
            grpc_listen: check.address("--grpc-listen", &self.grpc_listen),
            admin_listen: check.address("--admin-listen", &self.admin_listen),
            allowed_hosts: check.hosts("--allowed-host", self.allowed_host),
            path_prefix: check.path_prefix("--path-prefix", self.path_prefix),
            store: StoreOptions {
                path: self.data_dir,
                block_bytes_max: check.size("--cache-bytes-max", &self.cache_bytes_max) as usize,
                block_time: BLOCK_TIME,
                verify_bytes_per_second: Some(VERIFY_BYTES_PER_SECOND),
                reserve_bytes,
                retention: RetentionFlags {
                    age_ms: check.retention("--retention", self.retention),
                    bytes_max: check.retention_bytes("--retention-bytes", self.retention_bytes),
                    roll_ups: check.roll_ups("--roll-up", &self.roll_up),
                    roll_up_addresses: check
                        .roll_up_addresses("--roll-up-addresses", &self.roll_up_addresses),
                },
                hour_limits: HourLimits {
                    series: check.number("--hour-series-max", &self.hour_series_max),
                    stack_nodes: check.number("--hour-stacks-max", &self.hour_stacks_max),
                    locations: check.number("--hour-locations-max", &self.hour_locations_max),
                },
            },
            symbols,
            debuginfod_urls: check.urls("--debuginfod-url", self.debuginfod_url),
            message_bytes_max: check.size("--message-bytes-max", &self.message_bytes_max) as usize,
            profile_bytes_max: check.size("--profile-bytes-max", &self.profile_bytes_max),
            ingest_bytes_max: check.size("--ingest-bytes-max", &self.ingest_bytes_max),
            queries: QuestionLimits {
                running_max: self
                    .queries_max
                    .map_or(queries_default, |text| check.count("--queries-max", &text))
                    .max(1),
                waiting_max: check.count("--queries-waiting-max", &self.queries_waiting_max),
                bytes_max: check.size("--query-bytes-max", &self.query_bytes_max) as usize,
                time_max: check.duration("--query-timeout", &self.query_timeout),
            },
            drain_timeout: check.duration("--drain-timeout", &self.drain_timeout),
            addresses_file: self.addresses_file,
            log: check.filter("--log", &self.log),
            log_format: check.log_format("--log-format", &self.log_format),
        };
        if check.errors.is_empty() {
            Ok(config)
        } else {
            Err(ConfigError(check.errors))
        }
    }
}

/// Collects mistakes, so that all of them are reported at once.
#[derive(Default)]
struct Check {
    errors: Vec<String>,
}

impl Check {
    fn parsed<T>(
        &mut self,
        option: &str,
        text: &str,
        parsed: Option<T>,
        wanted: &str,
        otherwise: T,
    ) -> T {
        parsed.unwrap_or_else(|| {
            self.errors
                .push(format!("{option}: {text:?} is not {wanted}"));
            otherwise
        })
    }

    fn address(&mut self, option: &str, text: &str) -> SocketAddr {
        let otherwise = SocketAddr::from(([127, 0, 0, 1], 0));
        self.parsed(
            option,
            text,
            text.parse().ok(),
            "an IP address with a port, as in 127.0.0.1:7070",
            otherwise,
        )
    }

    fn size(&mut self, option: &str, text: &str) -> u64 {
        self.parsed(
            option,
            text,
            parse_size(text),
            "a size, as in 33554432, 512KiB, 32MiB or 1GiB",
            0,
        )
    }

    fn count(&mut self, option: &str, text: &str) -> usize {
        let parsed = text.parse().ok().filter(|count| *count <= 100_000);
        self.parsed(option, text, parsed, "a number up to 100000", 0)
    }

    fn number(&mut self, option: &str, text: &str) -> u64 {
        self.parsed(option, text, text.parse().ok(), "a number", 0)
    }

    fn urls(&mut self, option: &str, texts: Vec<String>) -> Vec<String> {
        let is_url = |text: &str| {
            let rest = text
                .strip_prefix("http://")
                .or_else(|| text.strip_prefix("https://"));
            rest.is_some_and(|rest| !rest.is_empty() && !rest.contains(char::is_whitespace))
        };
        let trimmed = texts.into_iter().map(|text| {
            let parsed = is_url(&text).then(|| text.trim_end_matches('/').to_owned());
            let wanted = "a URL, as in https://debuginfod.debian.net";
            self.parsed(option, &text, parsed, wanted, String::new())
        });
        trimmed.collect()
    }

    fn hosts(&mut self, option: &str, texts: Vec<String>) -> Vec<String> {
        let wanted = "a name without a port, as in pilotlight.example.com";
        let names = texts
            .into_iter()
            .map(|text| self.parsed(option, &text, read_name(&text), wanted, String::new()));
        names.collect()
    }

    fn path_prefix(&mut self, option: &str, text: Option<String>) -> Option<String> {
        let text = text?;
        let is_character = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        let is_segment = |segment: &str| {
            !matches!(segment, "" | "." | "..") && segment.bytes().all(is_character)
        };
        let prefix = text.strip_suffix('/').unwrap_or(&text);
        let segments = prefix.strip_prefix('/');
        let is_path = segments.is_some_and(|segments| segments.split('/').all(is_segment));
        let parsed = is_path.then(|| Some(prefix.to_owned()));
        // The root is no prefix.
        let parsed = parsed.or_else(|| (text == "/").then_some(None));
        let wanted = "a path of letters, digits, `-`, `.`, `_` and `~`, as in /profiles";
        self.parsed(option, &text, parsed, wanted, None)
    }

    fn duration(&mut self, option: &str, text: &str) -> Duration {
        let parsed = query::time::parse_duration(text)
            .ok()
            .and_then(|ms| u64::try_from(ms).ok());
        self.parsed(
            option,
            text,
            parsed.map(Duration::from_millis),
            "a duration, as in 500ms, 10s or 2m",
            Duration::ZERO,
        )
    }

    fn retention(&mut self, option: &str, text: Option<String>) -> Option<i64> {
        let text = text?;
        let parsed = match &*text {
            "forever" => Some(i64::MAX),
            text => parse_positive(text),
        };
        let wanted = "a time, as in 30d or 12h, or `forever`";
        Some(self.parsed(option, &text, parsed, wanted, i64::MAX))
    }

    fn retention_bytes(&mut self, option: &str, text: Option<String>) -> Option<u64> {
        let text = text?;
        let parsed = match &*text {
            "unlimited" => Some(u64::MAX),
            text => parse_size(text).filter(|bytes| *bytes > 0),
        };
        let wanted = "a size, as in 512MiB or 20GiB, or `unlimited`";
        Some(self.parsed(option, &text, parsed, wanted, u64::MAX))
    }

    fn roll_ups(&mut self, option: &str, text: &str) -> Vec<RollUp> {
        let wanted =
            "ages and lengths, each longer than the one before, as in `1d:1m 7d:10m`, or `none`";
        self.parsed(option, text, parse_roll_ups(text), wanted, Vec::new())
    }

    fn roll_up_addresses(&mut self, option: &str, text: &str) -> RollUpAddresses {
        let parsed = match text {
            "keep" => Some(RollUpAddresses::Keep),
            "drop" => Some(RollUpAddresses::Drop),
            _ => None,
        };
        self.parsed(option, text, parsed, "keep or drop", RollUpAddresses::Keep)
    }

    fn filter(&mut self, option: &str, text: &str) -> EnvFilter {
        let parsed = EnvFilter::builder().parse(text).ok();
        self.parsed(
            option,
            text,
            parsed,
            "a log filter, as in info or info,store=debug",
            EnvFilter::default(),
        )
    }

    fn log_format(&mut self, option: &str, text: &str) -> LogFormat {
        let parsed = match text {
            "text" => Some(LogFormat::Text),
            "json" => Some(LogFormat::Json),
            _ => None,
        };
        self.parsed(option, text, parsed, "text or json", LogFormat::Text)
    }
}

/// Reads a time of at least a millisecond.
fn parse_positive(text: &str) -> Option<i64> {
    let ms = query::time::parse_duration(text).ok()?;
    (ms > 0).then_some(ms)
}

fn parse_roll_ups(text: &str) -> Option<Vec<RollUp>> {
    if text == "none" {
        return Some(Vec::new());
    }
    let mut roll_ups: Vec<RollUp> = Vec::new();
    for rule in text.split_whitespace() {
        let (age, length) = rule.split_once(':')?;
        let rule = RollUp {
            after_ms: parse_positive(age)?,
            resolution_ms: parse_positive(length)? as u64,
        };
        let grows = |last: &RollUp| {
            last.after_ms < rule.after_ms
                && last.resolution_ms < rule.resolution_ms
                && rule.resolution_ms.is_multiple_of(last.resolution_ms)
        };
        if roll_ups.last().is_some_and(|last| !grows(last)) {
            return None;
        }
        roll_ups.push(rule);
    }
    (!roll_ups.is_empty()).then_some(roll_ups)
}

fn parse_size(text: &str) -> Option<u64> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let unit: u64 = match &text[digits..] {
        "" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    text[..digits].parse::<u64>().ok()?.checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid() {
        let config = Typed::parse_from(["pilotlight-server"]).build().unwrap();
        assert_eq!(config.http_listen.to_string(), HTTP_LISTEN);
        assert_eq!(config.message_bytes_max, 32 << 20);
        assert_eq!(config.drain_timeout, Duration::from_secs(10));
    }

    #[test]
    fn all_wrong_values_are_reported_at_once() {
        let typed = Typed::parse_from([
            "pilotlight-server",
            "--http-listen=localhost",
            "--grpc-listen=:7071",
            "--admin-listen=7073",
            "--allowed-host=https://a.example",
            "--path-prefix=profiles",
            "--message-bytes-max=32MB",
            "--retention=month",
            "--retention-bytes=0",
            "--roll-up=1d",
            "--queries-max=many",
            "--query-bytes-max=1GB",
            "--query-timeout=2",
            "--symbol-bytes-max=4GB",
            "--debuginfod-url=debuginfod.debian.net",
            "--drain-timeout=10",
            "--log=a=b=c",
            "--log-format=xml",
        ]);
        let error = typed.build().unwrap_err();
        let options: Vec<_> = error
            .0
            .iter()
            .map(|line| line.split(':').next().unwrap())
            .collect();
        assert_eq!(
            options,
            [
                "--symbol-bytes-max",
                "--http-listen",
                "--grpc-listen",
                "--admin-listen",
                "--allowed-host",
                "--path-prefix",
                "--retention",
                "--retention-bytes",
                "--roll-up",
                "--debuginfod-url",
                "--message-bytes-max",
                "--queries-max",
                "--query-bytes-max",
                "--query-timeout",
                "--drain-timeout",
                "--log",
                "--log-format"
            ]
        );
    }

    #[test]
    fn path_prefixes_are_read() {
        let read = |text: &str| {
            let mut check = Check::default();
            let prefix = check.path_prefix("--path-prefix", Some(text.to_owned()));
            (check.errors.is_empty(), prefix)
        };
        let accepted = |prefix: &str| (true, Some(prefix.to_owned()));
        assert_eq!(read("/team/profiles-2"), accepted("/team/profiles-2"));
        assert_eq!(read("/profiles/"), accepted("/profiles"));
        assert_eq!(read("/"), (true, None));
        for text in [
            "", "profiles", "//", "/a//b", "/a/../b", "/a b", "/{a}", "/a?b",
        ] {
            assert_eq!(read(text), (false, None), "{text}");
        }
    }

    #[test]
    fn roll_ups_are_read() {
        let day_ms = 24 * 60 * 60 * 1000;
        let rule = |days: i64, minutes: u64| RollUp {
            after_ms: days * day_ms,
            resolution_ms: minutes * 60_000,
        };
        assert_eq!(parse_roll_ups(ROLL_UP), Some(vec![rule(1, 1), rule(7, 10)]));
        assert_eq!(parse_roll_ups("none"), Some(Vec::new()));
        for text in [
            "",
            "1d",
            "1d:",
            "1d:0s",
            "7d:10m 1d:1m",
            "1d:1m 7d:90s",
            "1d:1m 7d:1m",
        ] {
            assert_eq!(parse_roll_ups(text), None, "{text}");
        }
    }

    #[test]
    fn sizes_are_read() {
        assert_eq!(parse_size("33554432"), Some(32 << 20));
        assert_eq!(parse_size("1GiB"), Some(1 << 30));
        for text in ["", "MiB", "-1", "1.5GiB", "32MB", "99999999999GiB", "1 MiB"] {
            assert_eq!(parse_size(text), None, "{text}");
        }
    }
}
