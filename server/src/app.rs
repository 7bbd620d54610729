//! Puts the stages together. The one file that knows all of them.

use std::future::Future;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use proto::v1::ingest_server::IngestServer;
use proto::v1::symbols_server::SymbolsServer;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::{Mutex, Semaphore, watch};
use tonic::transport::server::TcpIncoming;
use tower::limit::GlobalConcurrencyLimitLayer;
use tower::util::MapResponseLayer;
use tracing::{info, warn};

use crate::config::Config;
use crate::http::connections::{ConnectionLimits, HttpServer};
use crate::http::debuginfo::UPLOADS_MAX;
use crate::http::gate::Gate;
use crate::http::{HttpState, router};
use crate::metrics::Metrics;
use crate::receive::{CheckLimits, IngestParts, IngestService, SymbolsService, correct_status};
use crate::store::{EmbeddedStore, Store};
use crate::symbol::fetch::start_fetchers;
use crate::symbol::wanted::{RETRY_TIME, Wanted};
use crate::symbol::{Intake, NameSource, Shelf, ShelfOptions};

/// Pushes that are received at once. Each may hold a message of 32 MiB, so that this is 1 GiB at worst and some 30 MB
/// usually; the store's queue takes twice as many.
const PUSHES_MAX: usize = 32;

/// A collector that went away without a word is noticed after this time.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// A server that listens.
pub struct App {
    http: TcpListener,
    grpc: TcpListener,
    store: Arc<EmbeddedStore>,
    symbols: Arc<Shelf>,
    intake: Arc<Intake>,
    metrics: Arc<Metrics>,
    config: Config,
}

impl App {
    /// Opens the store and both ports.
    ///
    /// # Errors
    /// The store cannot be opened, or a port is taken.
    pub async fn open(config: Config) -> Result<Self> {
        Self::open_named_by(config, None).await
    }

    /// As [`Self::open`]; what the nodes could not name is named from this source in place of the store of symbols.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub async fn open_with_names(config: Config, names: Arc<dyn NameSource>) -> Result<Self> {
        Self::open_named_by(config, Some(names)).await
    }

    async fn open_named_by(config: Config, names: Option<Arc<dyn NameSource>>) -> Result<Self> {
        let metrics = Arc::new(Metrics::new());
        let (options, shared) = (config.store.clone(), Arc::clone(&metrics));
        let store =
            tokio::task::spawn_blocking(move || EmbeddedStore::open(&options, shared)).await?;
        let store = store.with_context(|| {
            format!("failed to open the store `{}`", config.store.path.display())
        })?;
        let report = store.report();
        metrics.note_recovery(&report);
        info!(path = %config.store.path.display(), ?report, "opened the store");
        let symbols = open_symbols(&config, &metrics).await?;
        let intake = Intake::open(Arc::clone(&symbols), Arc::clone(&metrics))
            .context("failed to open what has come of files from collectors")?;
        let names = names.unwrap_or_else(|| symbols.clone());
        let http = listen(config.http_listen, "--http-listen").await?;
        let grpc = listen(config.grpc_listen, "--grpc-listen").await?;
        Ok(Self {
            http,
            grpc,
            store: Arc::new(store.with_names(names)),
            symbols,
            intake: Arc::new(intake),
            metrics,
            config,
        })
    }

    /// The addresses for HTTP and gRPC.
    ///
    /// # Errors
    /// The system does not say.
    pub fn addresses(&self) -> Result<(SocketAddr, SocketAddr)> {
        Ok((self.http.local_addr()?, self.grpc.local_addr()?))
    }

    /// Serves until `stop` is done, then lets requests end, and closes the store.
    ///
    /// # Errors
    /// A port failed, or the addresses cannot be written.
    pub async fn run(self, stop: impl Future<Output = ()>) -> Result<()> {
        let (http_address, grpc_address) = self.addresses()?;
        let Self {
            http,
            grpc,
            store,
            symbols,
            intake,
            metrics,
            config,
        } = self;
        if let Some(path) = &config.addresses_file {
            write_addresses(path, http_address, grpc_address)?;
        }
        info!(http = %http_address, grpc = %grpc_address, "listening");

        let (stopping, stopped) = watch::channel(());
        let wait = |mut stopped: watch::Receiver<()>| async move { drop(stopped.changed().await) };
        let state = HttpState {
            store: Arc::clone(&store) as Arc<dyn Store>,
            metrics: Arc::clone(&metrics),
            symbols: Arc::clone(&symbols),
            uploads: Arc::new(Semaphore::new(UPLOADS_MAX)),
            gate: Gate::new(config.queries_max, config.queries_waiting_max),
            own_profile: Arc::new(Mutex::new(())),
        };
        let server = HttpServer {
            router: router(state),
            limits: ConnectionLimits::default(),
            metrics: Arc::clone(&metrics),
        };
        let serve_http = server.serve(http, wait(stopped.clone()));
        let limits = CheckLimits {
            profile_bytes_max: config.profile_bytes_max,
        };
        let parts = IngestParts {
            store: Arc::clone(&store) as Arc<dyn Store>,
            symbols: Arc::clone(&symbols),
            intake: Arc::clone(&intake),
            metrics: Arc::clone(&metrics),
        };
        let ingest = IngestService::new(parts, limits, config.ingest_bytes_max);
        let services = Services {
            ingest: IngestServer::new(ingest).max_decoding_message_size(config.message_bytes_max),
            // A piece of 1 MiB and its names; gRPC's own limit is 4 MiB.
            symbols: SymbolsServer::new(SymbolsService::new(intake)),
        };
        let serve_grpc = serve_collectors(grpc, services, metrics, wait(stopped));
        let mut servers = tokio::spawn(async move {
            let ((), grpc) = tokio::join!(serve_http, serve_grpc);
            grpc.context("failed to serve gRPC")
        });
        tokio::select! {
            result = &mut servers => return result?,
            () = stop => info!("stopping"),
        }
        drop(stopping);
        symbols.wanted().close();
        match tokio::time::timeout(config.drain_timeout, &mut servers).await {
            Ok(result) => result??,
            Err(_) => {
                warn!(after = ?config.drain_timeout, "requests did not end in time, stopping without them");
                servers.abort();
            }
        }
        tokio::task::spawn_blocking(move || store.close()).await?;
        info!("stopped");
        Ok(())
    }
}

/// Opens the symbols, after the store: the store's lock is the directory's.
async fn open_symbols(config: &Config, metrics: &Arc<Metrics>) -> Result<Arc<Shelf>> {
    let options: ShelfOptions = config.symbols.clone();
    metrics.show_symbol_limit("index_bytes", options.bytes_max);
    metrics.show_symbol_limit("file_bytes", options.file_bytes_max);
    let urls = config.debuginfod_urls.clone();
    let wanted = if urls.is_empty() {
        Wanted::off()
    } else {
        Wanted::new(RETRY_TIME)
    };
    let (path, shared) = (options.path.clone(), Arc::clone(metrics));
    let shelf = tokio::task::spawn_blocking(move || Shelf::open(options, shared, wanted)).await?;
    let shelf = Arc::new(
        shelf.with_context(|| format!("failed to open the symbols `{}`", path.display()))?,
    );
    start_fetchers(&shelf, metrics, &urls)
        .context("failed to start what asks debuginfod servers")?;
    Ok(shelf)
}

/// What collectors talk to.
struct Services {
    ingest: IngestServer<IngestService>,
    symbols: SymbolsServer<SymbolsService>,
}

async fn serve_collectors(
    listener: TcpListener,
    services: Services,
    metrics: Arc<Metrics>,
    stop: impl Future<Output = ()>,
) -> Result<(), tonic::transport::Error> {
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_serving::<IngestServer<IngestService>>().await;
    tonic::transport::Server::builder()
        .layer(MapResponseLayer::new(move |response| {
            correct_status(response, &metrics)
        }))
        .layer(GlobalConcurrencyLimitLayer::new(PUSHES_MAX))
        .http2_keepalive_interval(Some(KEEPALIVE))
        .add_service(health_service)
        .add_service(services.ingest)
        .add_service(services.symbols)
        .serve_with_incoming_shutdown(TcpIncoming::from(listener), stop)
        .await
}

async fn listen(address: SocketAddr, option: &str) -> Result<TcpListener> {
    let bound = TcpListener::bind(address).await;
    bound.with_context(|| {
        format!("failed to listen on {address}; choose another address with {option}")
    })
}

/// Writes the file under another name first, so that a reader finds all of it or nothing.
fn write_addresses(path: &Path, http: SocketAddr, grpc: SocketAddr) -> Result<()> {
    let text = format!(
        "{}\n",
        json!({ "http": http.to_string(), "grpc": grpc.to_string() })
    );
    let unfinished = path.with_extension("unfinished");
    std::fs::write(&unfinished, text)
        .and_then(|()| std::fs::rename(&unfinished, path))
        .with_context(|| format!("failed to write the addresses to `{}`", path.display()))
}
