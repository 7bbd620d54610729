//! Configuration in two levels: what was typed ([`Typed`]), and what the server is built from ([`Config`]).

use std::net::SocketAddr;
use std::num::NonZero;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

use crate::store::StoreOptions;
use crate::symbol::ShelfOptions;
use crate::symbol::child::ChildLimits;
use crate::symbol::debuginfo_command::DebuginfoCommand;
use crate::symbol::process::own_program;

/// Only this machine, until somebody decides otherwise: there is no authentication yet.
const HTTP_LISTEN: &str = "127.0.0.1:7070";
const GRPC_LISTEN: &str = "127.0.0.1:7071";

/// Below the working directory, so that a first try needs no root and leaves nothing elsewhere.
const DATA_DIR: &str = "./var/server";

/// A busy node with 64 cores sends about 1 MB a window; a first window after a compiler ran, some more.
const MESSAGE_BYTES_MAX: &str = "32MiB";

/// pprof shrinks by a factor of four to eight with zstd, so that this is what 32 MiB unfold to.
const PROFILE_BYTES_MAX: &str = "256MiB";

/// Two of the largest profiles at once, or some hundred usual ones.
const INGEST_BYTES_MAX: &str = "512MiB";

/// An hour of one busy node is 30 to 60 MB decoded.
const CACHE_BYTES_MAX: &str = "256MiB";

/// Indexes of symbols: an index is at most as large as what its file has in lines and names, 32 MiB of a program of 55 MiB, so
/// that these are some hundred such programs, or thousands of usual libraries.
const SYMBOL_BYTES_MAX: &str = "4GiB";

/// Largest file with debug information: a browser's has 3 GB. Two are taken at a time, two fetched, as much as one has may wait
/// in parts that collectors send, and two that were removed there may still be read, so that (2 + 2 + 1 + 2) × 4 GiB = 28 GiB of
/// the disk may be used for as long as that takes.
const SYMBOL_FILE_BYTES_MAX: &str = "4GiB";

/// The catalog's log grows in steps of 512 KiB and is rewritten while it is cleaned up; when it cannot write, the
/// server must be restarted. Segments stop first.
const RESERVE_BYTES: &str = "64MiB";

/// Queries that wait: some people with one page each, which asks five things at once.
const QUERIES_WAITING_MAX: &str = "64";

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

    /// Directory of the store; one server at a time
    #[arg(long, env = "PILOTLIGHT_DATA_DIR", value_name = "PATH", default_value = DATA_DIR)]
    data_dir: PathBuf,

    /// Largest message of a collector, as it comes over the wire
    #[arg(long, env = "PILOTLIGHT_MESSAGE_BYTES_MAX", value_name = "SIZE", default_value = MESSAGE_BYTES_MAX)]
    message_bytes_max: String,

    /// Largest profile in a message, when it is unfolded
    #[arg(long, env = "PILOTLIGHT_PROFILE_BYTES_MAX", value_name = "SIZE", default_value = PROFILE_BYTES_MAX)]
    profile_bytes_max: String,

    /// Unfolded profiles that are worked on at the same time, together
    #[arg(long, env = "PILOTLIGHT_INGEST_BYTES_MAX", value_name = "SIZE", default_value = INGEST_BYTES_MAX)]
    ingest_bytes_max: String,

    /// Decoded windows that are kept in memory for queries
    #[arg(long, env = "PILOTLIGHT_CACHE_BYTES_MAX", value_name = "SIZE", default_value = CACHE_BYTES_MAX)]
    cache_bytes_max: String,

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

    /// Queries that run at the same time [default: the number of CPUs]
    #[arg(long, env = "PILOTLIGHT_QUERIES_MAX", value_name = "NUMBER")]
    queries_max: Option<String>,

    /// Queries that wait while others run; more are told to come back
    #[arg(long, env = "PILOTLIGHT_QUERIES_WAITING_MAX", value_name = "NUMBER", default_value = QUERIES_WAITING_MAX)]
    queries_waiting_max: String,

    /// How long requests may take to end after SIGTERM or SIGINT
    #[arg(long, env = "PILOTLIGHT_DRAIN_TIMEOUT", value_name = "DURATION", default_value = DRAIN_TIMEOUT)]
    drain_timeout: String,

    /// File that gets the addresses as JSON when the server listens
    #[arg(long, env = "PILOTLIGHT_ADDRESSES_FILE", value_name = "PATH")]
    addresses_file: Option<PathBuf>,

    /// What is logged: off, error, warn, info, debug or trace, or by module as in `info,server::store=debug`
    #[arg(
        long,
        env = "PILOTLIGHT_LOG",
        value_name = "FILTER",
        default_value = "info"
    )]
    log: String,

    /// Does something else than serve.
    #[command(subcommand)]
    command: Option<Command>,
}

/// What the program does besides serving.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Symbols for a server that runs
    #[command(subcommand)]
    Debuginfo(DebuginfoCommand),
}

/// What the server is built from.
#[derive(Debug)]
pub struct Config {
    /// Address for HTTP.
    pub http_listen: SocketAddr,
    /// Address for gRPC.
    pub grpc_listen: SocketAddr,
    /// The store.
    pub store: StoreOptions,
    /// The symbol store.
    pub symbols: ShelfOptions,
    /// debuginfod servers.
    pub debuginfod_urls: Vec<String>,
    /// Largest message on the wire.
    pub message_bytes_max: usize,
    /// Largest unfolded profile.
    pub profile_bytes_max: u64,
    /// Unfolded profiles at once.
    pub ingest_bytes_max: u64,
    /// Queries that run.
    pub queries_max: usize,
    /// Queries that wait.
    pub queries_waiting_max: usize,
    /// How long a stop may take.
    pub drain_timeout: Duration,
    /// Where the addresses are written.
    pub addresses_file: Option<PathBuf>,
    /// What is logged.
    pub log: EnvFilter,
}

/// All values that are wrong, one a line.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct ConfigError(pub Vec<String>);

impl Typed {
    /// What is to be done instead of serving.
    pub fn take_command(&mut self) -> Option<Command> {
        self.command.take()
    }

    /// Checks everything that was typed.
    ///
    /// # Errors
    /// All values that are wrong.
    pub fn build(self) -> Result<Config, ConfigError> {
        let mut check = Check::default();
        let queries_default = std::thread::available_parallelism().map_or(2, NonZero::get);
        let reserve_bytes = check.size("--reserve-bytes", &self.reserve_bytes);
        let symbols = ShelfOptions {
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
            store: StoreOptions {
                path: self.data_dir,
                cache_bytes_max: check.size("--cache-bytes-max", &self.cache_bytes_max) as usize,
                reserve_bytes,
            },
            symbols,
            debuginfod_urls: check.urls("--debuginfod-url", self.debuginfod_url),
            message_bytes_max: check.size("--message-bytes-max", &self.message_bytes_max) as usize,
            profile_bytes_max: check.size("--profile-bytes-max", &self.profile_bytes_max),
            ingest_bytes_max: check.size("--ingest-bytes-max", &self.ingest_bytes_max),
            queries_max: self
                .queries_max
                .map_or(queries_default, |text| check.count("--queries-max", &text))
                .max(1),
            queries_waiting_max: check.count("--queries-waiting-max", &self.queries_waiting_max),
            drain_timeout: check.duration("--drain-timeout", &self.drain_timeout),
            addresses_file: self.addresses_file,
            log: check.filter("--log", &self.log),
        };
        if check.errors.is_empty() {
            Ok(config)
        } else {
            Err(ConfigError(check.errors))
        }
    }
}

/// Collects what is wrong, so that all of it is reported at once.
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

    fn duration(&mut self, option: &str, text: &str) -> Duration {
        let parsed = crate::query::time::parse_duration(text)
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

    fn filter(&mut self, option: &str, text: &str) -> EnvFilter {
        let parsed = EnvFilter::builder().parse(text).ok();
        self.parsed(
            option,
            text,
            parsed,
            "a log filter, as in info or info,server::store=debug",
            EnvFilter::default(),
        )
    }
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
            "--message-bytes-max=32MB",
            "--queries-max=many",
            "--symbol-bytes-max=4GB",
            "--debuginfod-url=debuginfod.debian.net",
            "--drain-timeout=10",
            "--log=a=b=c",
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
                "--debuginfod-url",
                "--message-bytes-max",
                "--queries-max",
                "--drain-timeout",
                "--log"
            ]
        );
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
