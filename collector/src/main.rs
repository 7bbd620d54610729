//! The collector's program: configuration, start, run until a signal, drain.

use std::{
    env,
    io::{self, IsTerminal as _},
    os::unix::process::CommandExt as _,
    process::{Command, ExitCode},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use clap::Parser as _;
use collector::{
    allocator,
    config::{Arguments, Config},
    metrics::SharedMetrics,
    metrics_server::serve_metrics,
    name::{CHILD_ARGUMENT, run_child},
    pipeline::Pipeline,
    preflight::check_machine,
};
use tokio::signal::unix::{SignalKind, signal};

fn main() -> ExitCode {
    let started = Instant::now();
    let mut arguments = env::args().skip(1);
    if arguments.next().as_deref() == Some(CHILD_ARGUMENT) {
        return run_child(arguments);
    }
    if env::var_os(allocator::LIMITS[0].0).is_none() {
        // The same process, from its beginning. If that fails it only takes more memory.
        let err = start_again();
        eprintln!("pilotlight-collector: failed to limit the allocator: {err}");
    }
    let hostname = rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned();
    let config = match Arguments::parse().build(&hostname) {
        Ok(config) => config,
        Err(bad) => {
            for value in bad {
                eprintln!("pilotlight-collector: {value}");
            }
            return ExitCode::from(2);
        }
    };
    tracing_subscriber::fmt()
        .with_env_filter(&config.log)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .init();
    match run(&config, started) {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            eprintln!("pilotlight-collector: {err:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs this program in the place of itself with [`allocator::LIMITS`]; comes back if that fails.
fn start_again() -> io::Error {
    let mut arguments = env::args_os();
    let name = arguments.next().unwrap_or_default();
    match env::current_exe() {
        Ok(program) => Command::new(program)
            .arg0(name)
            .args(arguments)
            .envs(allocator::LIMITS)
            .exec(),
        Err(err) => err,
    }
}

fn run(config: &Config, started: Instant) -> Result<()> {
    check_machine(config.force_kernel)?;
    let metrics = SharedMetrics::default();
    let pipeline = Pipeline::start(config, metrics.clone(), started)?;
    let address = serve_metrics(config.metrics_listen, metrics, pipeline.sender())?;
    tracing::info!(
        node = config.node,
        server = config.server,
        metrics = %address,
        "sampling"
    );
    wait_for_signal(&pipeline)?;
    tracing::info!("stopping: sending what was sampled");
    if !pipeline.stop()? {
        bail!("the server did not take all windows in time: the last samples are lost");
    }
    Ok(())
}

/// Waits for SIGINT or SIGTERM.
fn wait_for_signal(pipeline: &Pipeline) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("failed to start the signal handler")?;
    runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut check = tokio::time::interval(Duration::from_secs(1));
        loop {
            tokio::select! {
                _ = interrupt.recv() => return Ok(()),
                _ = terminate.recv() => return Ok(()),
                _ = check.tick() => {
                    if pipeline.has_failed() {
                        bail!("a thread of the collector ended by itself");
                    }
                }
            }
        }
    })
}
