//! The server's program: configuration, logs, run, signal, drain.

use std::io::IsTerminal;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use sandbox::allocator;
use server::app::App;
use server::config::{Command, Config, LogFormat, Typed};
use server::store_command::{run_check, run_rebuild, run_stats};
use server::symbol::child::{CHILD_ARGUMENT, run_child};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    if arguments.next().as_deref() == Some(CHILD_ARGUMENT) {
        return run_child(arguments);
    }
    let mut typed = Typed::parse();
    match typed.take_command() {
        None => {}
        Some(Command::Debuginfo(command)) => return command.run(),
        Some(Command::Check(directory)) => return run_check(&directory),
        Some(Command::Stats(arguments)) => return run_stats(&arguments),
        Some(Command::Rebuild(directory)) => return run_rebuild(&directory),
    }
    if let Err(err) = allocator::limit(allocator::BUSY) {
        eprintln!("pilotlight-server: failed to limit the allocator: {err}");
    }
    let config = match typed.build() {
        Ok(config) => config,
        Err(err) => {
            eprintln!("{err}");
            return ExitCode::from(2);
        }
    };
    let log_format = config.log_format;
    match run(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            match log_format {
                LogFormat::Text => eprintln!("pilotlight-server: {err:#}"),
                LogFormat::Json => tracing::error!(err = format!("{err:#}"), "failed"),
            }
            ExitCode::FAILURE
        }
    }
}

fn run(mut config: Config) -> Result<()> {
    init_logs(std::mem::take(&mut config.log), config.log_format);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("failed to start the runtime")?;
    runtime.block_on(async {
        let mut interrupt =
            signal(SignalKind::interrupt()).context("failed to listen for SIGINT")?;
        let mut terminate =
            signal(SignalKind::terminate()).context("failed to listen for SIGTERM")?;
        let stop = async move {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        };
        App::open(config).await?.run(stop).await
    })
}

fn init_logs(filter: EnvFilter, format: LogFormat) {
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    match format {
        LogFormat::Text => log.with_ansi(std::io::stderr().is_terminal()).init(),
        LogFormat::Json => log.json().flatten_event(true).init(),
    }
}
