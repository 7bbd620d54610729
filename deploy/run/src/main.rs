//! `make run`: a server and a collector on this machine, and a live summary of their numbers.
//!
//! Stops the collector before the server, so that its last window is delivered. However the run
//! ends (a signal, `RUN_FOR`, the death of a child), both have ended before this program exits.

#![forbid(unsafe_code)]

mod screen;
mod settings;

use std::collections::VecDeque;
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail};
use clap::Parser as _;
use run::child::{Child, Privilege, Start};
use run::http;
use run::metrics::Metrics;
use run::summary::{Snapshot, Top};
use run::wait::wait_for;
use rustix::process::geteuid;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::screen::Screen;
use crate::settings::Settings;

/// Opening the store reads the logs of the last minutes, and parts of all segments if the catalog is missing.
const SERVER_READY_TIMEOUT: Duration = Duration::from_secs(60);
/// The collector takes up to 10 s for its last delivery.
const STOP_TIMEOUT: Duration = Duration::from_secs(20);
/// Interval of checks for the children and signals.
const TICK: Duration = Duration::from_millis(100);
/// Interval of updates of the numbers.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Number of updates over which the programs' own CPU time is shown.
const LOOKS_KEPT: usize = 10;
/// By default sudo forgets the password after 15 minutes, and the collector is stopped through
/// sudo.
const SUDO_REFRESH_EVERY: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    match run_both(&Settings::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("pilotlight: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run_both(settings: &Settings) -> Result<()> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&stop)).context("failed to take signals")?;
    }
    check_free(settings)?;
    fs::create_dir_all(&settings.dir)
        .with_context(|| format!("failed to make `{}`", settings.dir.display()))?;

    let started = Instant::now();
    let started_ms = unix_ms()?;
    let mut server = start_server(settings)?;
    wait_for("the server to be ready", SERVER_READY_TIMEOUT, || {
        server.check_alive()?;
        let ready =
            http::get(settings.http_listen, "/readyz", &[]).is_ok_and(|(status, _)| status == 200);
        Ok((ready || stop.load(Ordering::Relaxed)).then_some(()))
    })?;
    let mut collector = start_collector(settings)?;

    let watched = watch(settings, &mut server, &mut collector, started, &stop);
    let stopped = collector.stop(STOP_TIMEOUT);
    let stored = describe_stored(settings.http_listen, started_ms);
    let stopped = stopped.and(server.stop(STOP_TIMEOUT));
    watched.and(stopped)?;
    println!("stopped; {}", stored?);
    Ok(())
}

/// Fails if one of the addresses is in use.
fn check_free(settings: &Settings) -> Result<()> {
    let addresses = [
        (
            settings.http_listen,
            "the page and the HTTP API",
            settings::HTTP_LISTEN,
        ),
        (
            settings.grpc_listen,
            "the collector's way in",
            settings::GRPC_LISTEN,
        ),
        (
            settings.admin_listen,
            "the server's answers to probes",
            settings::ADMIN_LISTEN,
        ),
        (
            settings.metrics_listen,
            "the collector's metrics",
            settings::METRICS_LISTEN,
        ),
    ];
    for (address, what, variable) in addresses {
        if let Err(error) = TcpListener::bind(address) {
            bail!(
                "cannot listen on {address}, for {what}: {error}; stop what listens there (perhaps an earlier run), \
                 or choose another port: {variable}=127.0.0.1:PORT"
            );
        }
    }
    Ok(())
}

fn start_server(settings: &Settings) -> Result<Child> {
    Child::start(Start {
        name: "server",
        program: &settings.program("pilotlight-server")?,
        arguments: vec![
            format!("--http-listen={}", settings.http_listen),
            format!("--grpc-listen={}", settings.grpc_listen),
            format!("--admin-listen={}", settings.admin_listen),
            format!("--data-dir={}", settings.dir.join("data").display()),
        ],
        privilege: Privilege::Same,
        log: settings.dir.join("server.log"),
    })
}

fn start_collector(settings: &Settings) -> Result<Child> {
    Child::start(Start {
        name: "collector",
        program: &settings.program("pilotlight-collector")?,
        arguments: vec![
            format!("--server=http://{}", settings.grpc_listen),
            format!("--node={}", settings.node()),
            format!("--metrics-listen={}", settings.metrics_listen),
            format!(
                "--cache-dir={}",
                std::path::absolute(settings.dir.join("cache"))?.display()
            ),
        ],
        privilege: Privilege::Root,
        log: settings.dir.join("collector.log"),
    })
}

/// Shows the numbers until a signal, the end of `RUN_FOR`, or the death of a child.
fn watch(
    settings: &Settings,
    server: &mut Child,
    collector: &mut Child,
    started: Instant,
    stop: &AtomicBool,
) -> Result<()> {
    let mut screen = Screen::new(settings.http_listen);
    let mut looks: VecDeque<Snapshot> = VecDeque::from([Snapshot::default()]);
    let mut next_look = Instant::now();
    let mut next_sudo = Instant::now() + SUDO_REFRESH_EVERY;
    while !stop.load(Ordering::Relaxed)
        && settings.run_for.is_none_or(|time| started.elapsed() < time)
    {
        server.check_alive()?;
        collector.check_alive()?;
        if Instant::now() >= next_look {
            next_look += LOOK_EVERY;
            // An update may fail while the collector starts; the check above detects a dead child.
            if let Ok((now, top)) = look(settings, server.pid(), started) {
                screen.show(&looks[0], &now, &top)?;
                looks.push_back(now);
                if looks.len() > LOOKS_KEPT {
                    looks.pop_front();
                }
            }
        }
        if Instant::now() >= next_sudo && !geteuid().is_root() {
            next_sudo += SUDO_REFRESH_EVERY;
            // If this fails, the end of the run asks for the password.
            let _ = Command::new("sudo").args(["-n", "-v"]).status();
        }
        std::thread::sleep(TICK);
    }
    Ok(())
}

/// Reads the current numbers.
fn look(settings: &Settings, server_pid: u32, started: Instant) -> Result<(Snapshot, Top)> {
    let metrics = Metrics::parse(&http::get_text(settings.metrics_listen, "/metrics", &[])?);
    let now = Snapshot::new(
        started.elapsed().as_secs_f64(),
        &metrics,
        read_cpu_s(server_pid)?,
    );
    let top = http::get_json(
        settings.http_listen,
        "/api/v1/top",
        &[("sort", "self"), ("limit", "5"), ("from", "now-1m")],
    )?;
    Ok((
        now,
        serde_json::from_value(top).context("failed to read the top functions")?,
    ))
}

/// CPU seconds that a process has used, user and system, from `/proc/PID/stat`.
fn read_cpu_s(pid: u32) -> Result<f64> {
    let path = format!("/proc/{pid}/stat");
    let stat =
        fs::read_to_string(Path::new(&path)).with_context(|| format!("failed to read `{path}`"))?;
    // The name, field 2, may contain any characters and ends at the last parenthesis; user and
    // system time are fields 14 and 15.
    let fields = stat
        .rsplit_once(')')
        .map(|(_, rest)| rest.split_whitespace())
        .with_context(|| format!("no `)` in `{path}`"))?;
    let ticks: u32 = fields
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse::<u32>().ok())
        .sum();
    #[expect(clippy::cast_precision_loss, reason = "ticks per second, 100")]
    Ok(f64::from(ticks) / rustix::param::clock_ticks_per_second() as f64)
}

/// Describes the server's data of this run.
fn describe_stored(server: SocketAddr, from_ms: u128) -> Result<String> {
    // A window begins up to 10 s before the run that sends it.
    let from = (from_ms - 10_000).to_string();
    let answer = http::get_json(server, "/api/v1/nodes", &[("from", &from), ("to", "now")])?;
    let nodes = answer["nodes"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    let sum = |field: &str| {
        nodes
            .iter()
            .filter_map(|node| node[field].as_u64())
            .sum::<u64>()
    };
    Ok(format!(
        "stored {} samples in {} windows",
        sum("samples"),
        sum("windows")
    ))
}

fn unix_ms() -> Result<u128> {
    Ok(SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .context("the clock is before 1970")?
        .as_millis())
}
