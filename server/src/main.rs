//! The server's program: configuration, logs, run, signal, drain.

use std::io::IsTerminal;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use server::app::App;
use server::config::{Command, Config, Typed};
use server::symbol::child::{CHILD_ARGUMENT, run_child};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    if arguments.next().as_deref() == Some(CHILD_ARGUMENT) {
        return run_child(arguments);
    }
    let mut typed = Typed::parse();
    if let Some(Command::Debuginfo(command)) = typed.take_command() {
        return command.run();
    }
    let config = match typed.build() {
        Ok(config) => config,
        Err(err) => {
            eprintln!("{err}");
            return ExitCode::from(2);
        }
    };
    match run(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            eprintln!("pilotlight-server: {err:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(mut config: Config) -> Result<()> {
    init_logs(std::mem::take(&mut config.log));
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

fn init_logs(filter: EnvFilter) {
    let is_terminal = std::io::stderr().is_terminal();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(is_terminal)
        .init();
}
