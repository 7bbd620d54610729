//! Settings from the command line and the environment.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

/// Environment variable of the HTTP address.
pub(crate) const HTTP_LISTEN: &str = "PILOTLIGHT_HTTP_LISTEN";
/// Environment variable of the gRPC address.
pub(crate) const GRPC_LISTEN: &str = "PILOTLIGHT_GRPC_LISTEN";
/// Environment variable of the server's address for probes.
pub(crate) const ADMIN_LISTEN: &str = "PILOTLIGHT_ADMIN_LISTEN";
/// Environment variable of the collector's metrics address.
pub(crate) const METRICS_LISTEN: &str = "PILOTLIGHT_METRICS_LISTEN";

/// Runs Pilotlight on this machine: a server and a collector, until Ctrl-C.
#[derive(Debug, clap::Parser)]
#[command(name = "pilotlight-run", version)]
pub(crate) struct Settings {
    /// Address of the page and the HTTP API.
    #[arg(long, env = HTTP_LISTEN, default_value = "127.0.0.1:7070")]
    pub(crate) http_listen: SocketAddr,
    /// Address on which the server takes profiles.
    #[arg(long, env = GRPC_LISTEN, default_value = "127.0.0.1:7071")]
    pub(crate) grpc_listen: SocketAddr,
    /// Address on which the server answers probes; any free one, since nobody probes it here.
    #[arg(long, env = ADMIN_LISTEN, default_value = "127.0.0.1:0")]
    pub(crate) admin_listen: SocketAddr,
    /// Address of the collector's metrics.
    #[arg(long, env = METRICS_LISTEN, default_value = "127.0.0.1:7072")]
    pub(crate) metrics_listen: SocketAddr,
    /// Directory of the profiles and the logs.
    #[arg(long, env = "PILOTLIGHT_DIR", default_value = "var")]
    pub(crate) dir: PathBuf,
    /// Name of this node in the profiles [default: the host's name].
    #[arg(long, env = "PILOTLIGHT_NODE")]
    node: Option<String>,
    /// Ends by itself after this time: `30s`, `5m` [default: until Ctrl-C].
    #[arg(long, env = "RUN_FOR", value_parser = humantime::parse_duration)]
    pub(crate) run_for: Option<Duration>,
}

impl Settings {
    pub(crate) fn node(&self) -> String {
        self.node.clone().unwrap_or_else(|| {
            rustix::system::uname()
                .nodename()
                .to_string_lossy()
                .into_owned()
        })
    }

    /// The path of one of the two programs, in the directory of this program.
    pub(crate) fn program(&self, name: &str) -> Result<PathBuf> {
        let own = std::env::current_exe().context("failed to find this program's own file")?;
        let path = own.with_file_name(name);
        if !path.is_file() {
            bail!(
                "`{}` is missing; build it: cargo build --release -p {name}",
                path.display()
            );
        }
        Ok(path)
    }
}
