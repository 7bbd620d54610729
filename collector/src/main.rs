//! The collector's program: configuration, checks, start, run until a signal, drain.

use std::{
    env,
    io::{self, IsTerminal as _},
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use clap::Parser as _;
use collector::{
    config::{Arguments, Command, Config, LogFormat, OnFailure, Surroundings},
    health::Health,
    kubernetes::{has_service_account, is_in_pod},
    metrics::{PREFIX, SharedRegistry, register_process},
    metrics_server::serve_metrics,
    name::{CHILD_ARGUMENT, run_child},
    node_report::{CANNOT_SAMPLE, STARTING, first_report, update_policy, update_report},
    pipeline::Pipeline,
    policy::PolicyWatch,
    preflight::{self, Report, Verdict},
    probe::wait_ready,
    send::{Reporter, ReporterTimes, draw_instance},
    threads::has_panicked,
};
use sandbox::allocator;
use tokio::{
    runtime::Runtime,
    signal::unix::{Signal, SignalKind, signal},
};

/// Time between two attempts to start with `--on-failure wait`. The checks take some milliseconds.
const RETRY_INTERVAL: Duration = Duration::from_secs(10);

const THREAD_ENDED: &str = "a thread of the collector ended by itself";

fn main() -> ExitCode {
    let started = Instant::now();
    let mut arguments = env::args().skip(1);
    if arguments.next().as_deref() == Some(CHILD_ARGUMENT) {
        return run_child(arguments);
    }
    let arguments = Arguments::parse();
    let command = arguments.subcommand();
    if command.is_none()
        && let Err(err) = allocator::limit(allocator::SMALL)
    {
        eprintln!("pilotlight-collector: failed to limit the allocator: {err}");
    }
    let names = rustix::system::uname();
    let hostname = names.nodename().to_string_lossy().into_owned();
    let surroundings = Surroundings {
        hostname: &hostname,
        is_in_pod: is_in_pod(),
        has_service_account: has_service_account(),
    };
    let config = match arguments.build(surroundings) {
        Ok(config) => config,
        Err(bad) => {
            for value in bad {
                eprintln!("pilotlight-collector: {value}");
            }
            return ExitCode::from(2);
        }
    };
    match command {
        Some(Command::Preflight) => return print_preflight(&config),
        Some(Command::Ready { wait }) => return print_readiness(&config, wait),
        None => {}
    }
    init_log(&config);
    match run(&config, started) {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            match config.log_format {
                LogFormat::Text => eprintln!("pilotlight-collector: {err:#}"),
                LogFormat::Json => tracing::error!(err = format!("{err:#}"), "failed"),
            }
            ExitCode::FAILURE
        }
    }
}

fn init_log(config: &Config) {
    let log = tracing_subscriber::fmt()
        .with_env_filter(&config.log)
        .with_writer(io::stderr);
    match config.log_format {
        LogFormat::Text => log.with_ansi(io::stderr().is_terminal()).init(),
        LogFormat::Json => log.json().flatten_event(true).init(),
    }
}

fn print_preflight(config: &Config) -> ExitCode {
    let report = preflight::run(config);
    print!("{report}");
    match report.verdict() {
        Verdict::Ok | Verdict::Degraded => ExitCode::SUCCESS,
        Verdict::NotReady | Verdict::Fatal => ExitCode::FAILURE,
    }
}

fn print_readiness(config: &Config, wait: Duration) -> ExitCode {
    match wait_ready(config.metrics_listen, wait) {
        Ok((is_ready, text)) => {
            print!("{text}");
            if is_ready {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            }
        }
        Err(err) => {
            eprintln!("pilotlight-collector: {err:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(config: &Config, started: Instant) -> Result<()> {
    let registry = SharedRegistry::default();
    register_process(&mut registry.write());
    let health = Health::default();
    health.register(&mut registry.write());
    health.readiness.hold(
        STARTING,
        "the collector has just begun to load its eBPF program",
    );
    let address = serve_metrics(
        config.metrics_listen,
        &config.allowed_hosts,
        registry.clone(),
        health.clone(),
    )?;
    let instance = draw_instance();
    let kernel = rustix::system::uname()
        .release()
        .to_string_lossy()
        .into_owned();
    let first = first_report(config, instance, kernel);
    let reporter = Reporter::start(&config.server, first, ReporterTimes::default())?;
    reporter.register(registry.write().sub_registry_with_prefix(PREFIX));
    let mut collector = Collector {
        config,
        instance,
        registry,
        health,
        policy: None,
        reporter,
        signals: Signals::new()?,
        started,
    };
    let Some(pipeline) = collector.start()? else {
        return Ok(());
    };
    let doing = if collector.health.hand_over.is_waiting() {
        "ready"
    } else {
        "sampling"
    };
    tracing::info!(
        node = config.node,
        server = config.server,
        metrics = %address,
        "{doing}"
    );
    collector.run(&pipeline)?;
    tracing::info!("stopping: sending what was sampled");
    if !pipeline.stop()? {
        bail!("the server did not take all windows in time: the last samples are lost");
    }
    Ok(())
}

/// The parts that live as long as the process, with or without a pipeline.
struct Collector<'a> {
    config: &'a Config,
    instance: [u8; 16],
    registry: SharedRegistry,
    health: Health,
    /// Followed since the first try that could read it.
    policy: Option<PolicyWatch>,
    reporter: Reporter,
    signals: Signals,
    started: Instant,
}

impl Collector<'_> {
    /// Starts to sample, with as many tries as it takes if so configured. `None` if a signal comes before.
    fn start(&mut self) -> Result<Option<Pipeline>> {
        let mut known_causes = String::new();
        loop {
            let causes = match self.try_to_start() {
                Ok(pipeline) => {
                    self.health.readiness.release(CANNOT_SAMPLE);
                    self.health.readiness.release(STARTING);
                    self.report(false);
                    return Ok(Some(pipeline));
                }
                Err(causes) => causes,
            };
            self.health.readiness.hold(CANNOT_SAMPLE, &*causes);
            self.health.readiness.release(STARTING);
            self.report(false);
            if self.config.on_failure == OnFailure::Exit {
                bail!("cannot sample this machine:\n{causes}");
            }
            if causes != known_causes {
                tracing::error!(
                    causes,
                    "cannot sample this machine; trying again every 10 s"
                );
                known_causes = causes;
            }
            if self.signals.wait(RETRY_INTERVAL) {
                self.report(true);
                return Ok(None);
            }
            if has_panicked() {
                bail!(THREAD_ENDED);
            }
        }
    }

    /// Reports the state of the node until a signal comes.
    fn run(&mut self, pipeline: &Pipeline) -> Result<()> {
        while !self.signals.wait(Duration::from_secs(1)) {
            if pipeline.has_failed() {
                bail!(THREAD_ENDED);
            }
            if let Some(policy) = &mut self.policy {
                policy.list_excluded(pipeline.pods());
            }
            self.report(false);
        }
        self.report(true);
        Ok(())
    }

    fn report(&self, is_stopping: bool) {
        self.reporter.update(|report| {
            update_report(report, &self.health, is_stopping);
            if let Some(policy) = &self.policy {
                update_policy(report, policy.state(), policy.excluded());
            }
        });
    }

    /// Checks the machine, starts to follow the policy, unless an earlier try did, and starts to sample. The error has the causes, one a
    /// line.
    fn try_to_start(&mut self) -> Result<Pipeline, String> {
        let Self { config, health, .. } = self;
        let report = preflight::run(config);
        if report != health.preflight() {
            report.log(config.log_format);
        }
        health.set_preflight(report.clone());
        let policy = match &mut self.policy {
            Some(policy) => Ok(policy),
            none => start_policy(config, &self.registry, health).map(|watch| none.insert(watch)),
        };
        match (report.refusal(), policy) {
            (None, Ok(policy)) => {
                let policy = policy.state().clone();
                let pipeline = Pipeline::start(
                    config,
                    self.instance,
                    &self.registry,
                    health,
                    policy,
                    self.started,
                );
                pipeline.map_err(|err| explain_failed_start(&err, &report))
            }
            (Some(causes), Ok(_)) => Err(causes),
            (causes, Err(cause)) => {
                let causes: Vec<String> = causes.into_iter().chain([cause]).collect();
                Err(causes.join("\n"))
            }
        }
    }
}

fn start_policy(
    config: &Config,
    registry: &SharedRegistry,
    health: &Health,
) -> Result<PolicyWatch, String> {
    let policy = PolicyWatch::start(
        config.policy.as_ref(),
        config.cache_dir.as_deref(),
        &health.readiness,
    )
    .map_err(|err| format!("policy: {err:#}").replace('\n', " "))?;
    policy.register(registry.write().sub_registry_with_prefix(PREFIX));
    Ok(policy)
}

/// The reason for a failure that the checks did not foresee: none of what they rule out is its cause.
fn explain_failed_start(err: &anyhow::Error, report: &Report) -> String {
    let mut text = format!(
        "start: {}; the checks found no cause",
        shorten(&format!("{err:#}"))
    );
    for check in report.of(Verdict::Degraded) {
        text.push_str(&format!("\n{check}"));
    }
    text
}

/// The begin and the end of an error: the kernel's verifier writes up to 16 MiB, and the cause last.
fn shorten(text: &str) -> String {
    const BEGIN_CHARS: usize = 300;
    const END_CHARS: usize = 1200;
    let chars = text.chars().count();
    if chars <= BEGIN_CHARS + END_CHARS {
        return text.to_owned();
    }
    let begin = text.chars().take(BEGIN_CHARS);
    let end = text.chars().skip(chars - END_CHARS);
    begin.chain(" ... ".chars()).chain(end).collect()
}

/// SIGINT and SIGTERM.
struct Signals {
    runtime: Runtime,
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("failed to start the signal handler")?;
        let entered = runtime.enter();
        let interrupt = signal(SignalKind::interrupt())?;
        let terminate = signal(SignalKind::terminate())?;
        drop(entered);
        Ok(Self {
            runtime,
            interrupt,
            terminate,
        })
    }

    /// Waits for a signal, at most this long. Returns whether one came.
    fn wait(&mut self, time: Duration) -> bool {
        let Self {
            runtime,
            interrupt,
            terminate,
        } = self;
        runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => true,
                _ = terminate.recv() => true,
                () = tokio::time::sleep(time) => false,
            }
        })
    }
}
