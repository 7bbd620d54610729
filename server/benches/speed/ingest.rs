//! Pushes a plan into a new store, and measures what it took.

use std::fs;
use std::sync::Arc;

use anyhow::{Context, Result};
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use crate::files::{SegmentWatch, Stats};
use crate::plan::Plan;
use crate::process::Process;
use crate::push::push_all;
use crate::store::{Store, checked};

/// File that an [`Ingested`] is kept in.
const KEPT: &str = "ingested.json";

/// Measurements of the pushes into a store, kept beside it.
#[derive(Serialize, Deserialize)]
pub(crate) struct Ingested {
    /// Set and options.
    pub(crate) description: String,
    /// Start of the first window's hour or day.
    pub(crate) from_ms: i64,
    pub(crate) rows: u64,
    pub(crate) push_seconds: f64,
    pub(crate) retries: usize,
    /// Server, until the last push was acknowledged.
    pub(crate) push_cpu_seconds: f64,
    pub(crate) client_cpu_seconds: f64,
    /// Server, until all was merged.
    pub(crate) cpu_seconds: f64,
    pub(crate) peak_bytes: u64,
    pub(crate) log_bytes: u64,
    pub(crate) part_bytes: u64,
}

impl Ingested {
    /// Reads the measurements of an earlier run, if it had the same description and came to its end.
    pub(crate) fn read(store: &Store, description: &str) -> Option<Self> {
        let text = fs::read(store.data.join(KEPT)).ok()?;
        let ingested: Self = serde_json::from_slice(&text).ok()?;
        (ingested.description == description).then_some(ingested)
    }

    /// Pushes all, and waits until it is merged.
    pub(crate) fn measure(
        store: &Store,
        plan: &Arc<Plan>,
        in_flight: usize,
        description: String,
        from_ms: i64,
    ) -> Result<Self> {
        let _none = fs::remove_dir_all(&store.data);
        fs::create_dir_all(&store.data)?;
        let process = store.start()?;
        let watch = SegmentWatch::start(&store.data);
        let (server_cpu, client_cpu) = (cpu_of(&process)?, own_cpu_seconds());
        eprintln!("pushing {} rows, {in_flight} in flight", plan.rows());
        let pushed = push_all(process.grpc, plan, in_flight)?;
        let client_cpu_seconds = own_cpu_seconds() - client_cpu;
        let push_cpu_seconds = cpu_of(&process)? - server_cpu;
        let log_bytes = metric(&process, "pilotlight_server_stored_bytes_total")?;
        eprintln!("waiting until all is merged");
        store.wait_until_quiet(&process)?;
        let ingested = Self {
            description,
            from_ms,
            rows: plan.rows(),
            push_seconds: pushed.time.as_secs_f64(),
            retries: pushed.retries,
            push_cpu_seconds,
            client_cpu_seconds,
            cpu_seconds: cpu_of(&process)? - server_cpu,
            peak_bytes: checked(process.peak_bytes())?,
            log_bytes,
            part_bytes: watch.finish("part")?,
        };
        checked(process.stop())?;
        let text = serde_json::to_vec(&ingested)?;
        fs::write(store.data.join(KEPT), text)?;
        Ok(ingested)
    }
}

/// Rows a second of pushes one after the other, into a store of their own.
pub(crate) fn measure_one_in_flight(plan: &Arc<Plan>, options: &[String]) -> Result<f64> {
    let folder = TempDir::new()?;
    let store = Store {
        data: folder.path().to_owned(),
        options: options.to_vec(),
    };
    let process = store.start()?;
    let pushed = push_all(process.grpc, plan, 1)?;
    checked(process.stop())?;
    Ok(plan.rows() as f64 / pushed.time.as_secs_f64())
}

/// Rolls up a store whose windows are older than a second, which is then pushed again in the next run. Returns its bytes.
pub(crate) fn roll_up(store: &Store) -> Result<u64> {
    fs::remove_file(store.data.join(KEPT))?;
    let rolled_up = Store {
        data: store.data.clone(),
        options: ["--roll-up=1s:1m", "--retention=forever"]
            .map(str::to_owned)
            .into(),
    };
    let process = rolled_up.start()?;
    rolled_up.wait_until_quiet(&process)?;
    checked(process.stop())?;
    Ok(Stats::read(&store.data)?.bytes)
}

fn cpu_of(process: &Process) -> Result<f64> {
    checked(process.cpu_seconds())
}

fn own_cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

fn metric(process: &Process, name: &str) -> Result<u64> {
    let metrics = checked(process.get("/metrics"))?.text();
    let value = metrics
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    let value = value.with_context(|| format!("no metric {name}"))?;
    Ok(value.parse()?)
}
