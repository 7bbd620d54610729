//! Puts the stages together. The one file that knows all of them.

use std::future::Future;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use axum::{Router, middleware};
use cgroupfs::MemoryLimit;
use listen::{ConnectionLimits, Hosts, HttpServer, ListenMetrics, Protocol};
use metrics::{Registry, register_figures};
use proto::v1::ingest_server::IngestServer;
use proto::v1::symbols_server::SymbolsServer;
use query::names::NameSource;
use serde_json::json;
use store::{EmbeddedStore, Store, StoreMetrics};
use tokio::net::TcpListener;
use tokio::sync::{Mutex, Semaphore, watch};
use tonic::service::Routes;
use tower::util::MapResponseLayer;
use tracing::{info, warn};

use crate::config::Config;
use crate::descriptors::{collectors_max, raise_limit};
use crate::memory::MemoryNeeds;
use crate::metrics::{PREFIX, register_process};
use crate::receive::ReceiveMetrics;
use crate::receive::grpc::unary::receive;
use crate::receive::grpc::{
    CheckLimits, IngestParts, IngestService, ReceiveLimits, Receiver, SymbolsService,
    correct_status, report_ingest,
};
use crate::serve::http::debuginfo::UPLOADS_MAX;
use crate::serve::http::error::refuse_head;
use crate::serve::http::metrics::HttpMetrics;
use crate::serve::http::questions::Questions;
use crate::serve::http::{HttpState, admin_router, router};
use crate::store_state::{StoreWatch, register_numbers, register_state, watch_store};
use crate::symbol::fetch::start_fetchers;
use crate::symbol::fetch_queue::{FetchQueue, RETRY_TIME};
use crate::symbol::{CollectorUploads, IndexStore, IndexStoreOptions, SymbolMetrics};

/// Metrics of the stages.
struct Metrics {
    listen: ListenMetrics,
    store: StoreMetrics,
    symbol: SymbolMetrics,
    receive: ReceiveMetrics,
    http: HttpMetrics,
}

impl Metrics {
    fn register(registry: &mut Registry) -> Self {
        let (store, symbol) = (StoreMetrics::default(), SymbolMetrics::default());
        let (receive, http) = (ReceiveMetrics::default(), HttpMetrics::default());
        let listen = ListenMetrics::default();
        receive.register(registry);
        store.register(registry);
        symbol.register(registry);
        http.register(registry);
        listen.register(registry);
        Self {
            listen,
            store,
            symbol,
            receive,
            http,
        }
    }
}

/// A server that listens.
pub struct App {
    http: TcpListener,
    grpc: TcpListener,
    admin: TcpListener,
    store: Arc<EmbeddedStore>,
    names: Arc<dyn NameSource>,
    symbols: Arc<IndexStore>,
    uploads: Arc<CollectorUploads>,
    metrics: Metrics,
    registry: Registry,
    config: Config,
}

impl App {
    /// Opens the store and the ports.
    ///
    /// # Errors
    /// The store cannot be opened, or a port is taken.
    pub async fn open(config: Config) -> Result<Self> {
        Self::open_named_by(config, None).await
    }

    /// As [`Self::open`]; names come from this source in place of the symbol store.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub async fn open_with_names(config: Config, names: Arc<dyn NameSource>) -> Result<Self> {
        Self::open_named_by(config, Some(names)).await
    }

    async fn open_named_by(config: Config, names: Option<Arc<dyn NameSource>>) -> Result<Self> {
        let mut registry = Registry::default();
        register_process(&mut registry);
        let own = registry.sub_registry_with_prefix(PREFIX);
        let metrics = Metrics::register(own);
        let (options, counted) = (config.store.clone(), metrics.store.clone());
        let store =
            tokio::task::spawn_blocking(move || EmbeddedStore::open(&options, counted)).await?;
        let store = store.with_context(|| {
            format!("failed to open the store `{}`", config.store.path.display())
        })?;
        let report = store.report();
        info!(path = %config.store.path.display(), ?report, "opened the store");
        let symbols = open_symbols(&config, &metrics.symbol).await?;
        let uploads = CollectorUploads::open(Arc::clone(&symbols), metrics.symbol.clone())
            .context("failed to open the parts of files that collectors have sent")?;
        let uploads = Arc::new(uploads);
        let names = names.unwrap_or_else(|| symbols.clone());
        let http = listen(config.http_listen, "--http-listen").await?;
        let grpc = listen(config.grpc_listen, "--grpc-listen").await?;
        let admin = listen(config.admin_listen, "--admin-listen").await?;
        let store = Arc::new(store);
        register_numbers(own, store.clone());
        let shown = (Arc::clone(&symbols), Arc::clone(&uploads));
        register_figures(own, move |figures| {
            shown.0.show(figures);
            shown.1.show(figures);
        });
        Ok(Self {
            http,
            grpc,
            admin,
            store,
            names,
            symbols,
            uploads,
            metrics,
            registry,
            config,
        })
    }

    /// The addresses for HTTP and gRPC.
    ///
    /// # Errors
    /// The system call failed.
    pub fn addresses(&self) -> Result<(SocketAddr, SocketAddr)> {
        Ok((self.http.local_addr()?, self.grpc.local_addr()?))
    }

    /// The address for probes.
    ///
    /// # Errors
    /// The system call failed.
    pub fn admin_address(&self) -> Result<SocketAddr> {
        Ok(self.admin.local_addr()?)
    }

    /// Serves until `stop` is done, then lets requests end, and closes the store.
    ///
    /// # Errors
    /// A port failed, or the addresses cannot be written.
    pub async fn run(self, stop: impl Future<Output = ()>) -> Result<()> {
        let (http_address, grpc_address) = self.addresses()?;
        let admin_address = self.admin_address()?;
        let Self {
            http,
            grpc,
            admin,
            store,
            names,
            symbols,
            uploads,
            metrics,
            mut registry,
            config,
        } = self;
        if let Some(path) = &config.addresses_file {
            write_addresses(path, http_address, grpc_address, admin_address)?;
        }
        info!(http = %http_address, grpc = %grpc_address, admin = %admin_address, "listening");

        let (stopping, stopped) = watch::channel(());
        let (store_state, store_watcher) =
            watch_store(Arc::clone(&store) as Arc<dyn Store>, stopped.clone()).await;
        register_state(
            registry.sub_registry_with_prefix(PREFIX),
            store_state.clone(),
        );
        let wait = |mut stopped: watch::Receiver<()>| async move { drop(stopped.changed().await) };
        let questions = Questions::new(
            Arc::clone(&store) as Arc<dyn Store>,
            names,
            config.queries,
            metrics.http.clone(),
        );
        let shown = questions.clone();
        register_figures(registry.sub_registry_with_prefix(PREFIX), move |figures| {
            shown.show(figures);
        });
        let state = HttpState {
            store: Arc::clone(&store) as Arc<dyn Store>,
            store_state: store_state.clone(),
            metrics: metrics.http.clone(),
            registry: Arc::new(registry),
            symbols: Arc::clone(&symbols),
            uploads: Arc::new(Semaphore::new(UPLOADS_MAX)),
            questions,
            own_profile: Arc::new(Mutex::new(())),
        };
        let serve = |listener: TcpListener, router, protocol, limits| -> Result<_> {
            let server = HttpServer {
                router,
                protocol,
                hosts: Hosts::of(listener.local_addr()?, &config.allowed_hosts),
                limits,
                metrics: metrics.listen.clone(),
                refusal_body: Some(refuse_head),
            };
            Ok(server.serve(listener, wait(stopped.clone())))
        };
        let limits = CheckLimits {
            profile_bytes_max: config.profile_bytes_max,
        };
        let parts = IngestParts {
            store: Arc::clone(&store) as Arc<dyn Store>,
            symbols: Arc::clone(&symbols),
            uploads: Arc::clone(&uploads),
            metrics: metrics.receive.clone(),
        };
        let services = Services {
            ingest: IngestService::new(parts, limits, config.ingest_bytes_max),
            symbols: SymbolsService::new(uploads),
            limits: ReceiveLimits::new(config.message_bytes_max),
            store_state,
        };
        let collectors = services.into_router(metrics.receive).await;
        let collectors_max = collectors_max(raise_limit());
        let serve_grpc = serve(
            grpc,
            collectors,
            Protocol::Http2,
            ConnectionLimits::of_collectors(collectors_max),
        )?;
        let serve_admin = serve(
            admin,
            admin_router(state.clone()),
            Protocol::Http1,
            ConnectionLimits::of_probes(),
        )?;
        let serve_http = serve(
            http,
            router(state, config.path_prefix.as_deref()),
            Protocol::Http1,
            ConnectionLimits::default(),
        )?;
        let mut servers = tokio::spawn(async move {
            tokio::join!(serve_http, serve_grpc, serve_admin);
        });
        tokio::select! {
            result = &mut servers => return Ok(result?),
            () = stop => info!("stopping"),
        }
        drop(stopping);
        symbols.fetch_queue().close();
        match tokio::time::timeout(config.drain_timeout, &mut servers).await {
            Ok(result) => result?,
            Err(_) => {
                warn!(after = ?config.drain_timeout, "requests did not end in time, stopping without them");
                servers.abort();
            }
        }
        // It holds the store, whose directory is unlocked when the last holder is gone.
        store_watcher.join().await;
        tokio::task::spawn_blocking(move || store.close()).await?;
        info!("stopped");
        Ok(())
    }
}

fn memory_needs(config: &Config) -> MemoryNeeds {
    MemoryNeeds::new(
        config.store.block_bytes_max as u64,
        config.ingest_bytes_max,
        config.queries.bytes_max as u64,
    )
}

/// Opens the symbols, after the store: the store's lock is the directory's.
async fn open_symbols(config: &Config, metrics: &SymbolMetrics) -> Result<Arc<IndexStore>> {
    let mut options: IndexStoreOptions = config.symbols.clone();
    let needs = memory_needs(config);
    let limit = MemoryLimit::read();
    needs.report(limit);
    options.child = needs.limit_child(limit, options.child);
    let urls = config.debuginfod_urls.clone();
    let queue = if urls.is_empty() {
        FetchQueue::off()
    } else {
        FetchQueue::new(RETRY_TIME)
    };
    let (path, shared) = (options.path.clone(), metrics.clone());
    let indexes =
        tokio::task::spawn_blocking(move || IndexStore::open(options, shared, queue)).await?;
    let indexes = Arc::new(
        indexes.with_context(|| format!("failed to open the symbols `{}`", path.display()))?,
    );
    start_fetchers(&indexes, metrics, &urls)
        .context("failed to start the threads that ask debuginfod servers")?;
    Ok(indexes)
}

/// The gRPC services for collectors.
struct Services {
    ingest: IngestService,
    symbols: SymbolsService,
    limits: ReceiveLimits,
    store_state: StoreWatch,
}

impl Services {
    async fn into_router(self, metrics: ReceiveMetrics) -> Router {
        let (health, health_service) = tonic_health::server::health_reporter();
        report_ingest(health, self.store_state).await;
        let ingest =
            IngestServer::new(self.ingest).max_decoding_message_size(self.limits.window_bytes_max);
        let receiver = Receiver::new(self.limits, metrics.clone());
        Routes::new(health_service)
            .add_service(ingest)
            .add_service(SymbolsServer::new(self.symbols))
            .prepare()
            .into_axum_router()
            .layer(middleware::from_fn_with_state(receiver, receive))
            .layer(MapResponseLayer::new(move |response| {
                correct_status(response, &metrics)
            }))
    }
}

async fn listen(address: SocketAddr, option: &str) -> Result<TcpListener> {
    let bound = TcpListener::bind(address).await;
    bound.with_context(|| {
        format!("failed to listen on {address}; choose another address with {option}")
    })
}

/// Writes the file under another name first, so that a reader never sees a part of it.
fn write_addresses(
    path: &Path,
    http: SocketAddr,
    grpc: SocketAddr,
    admin: SocketAddr,
) -> Result<()> {
    let [http, grpc, admin] = [http, grpc, admin].map(|address| address.to_string());
    let text = format!(
        "{}\n",
        json!({ "http": http, "grpc": grpc, "admin": admin })
    );
    let unfinished = path.with_extension("unfinished");
    std::fs::write(&unfinished, text)
        .and_then(|()| std::fs::rename(&unfinished, path))
        .with_context(|| format!("failed to write the addresses to `{}`", path.display()))
}
