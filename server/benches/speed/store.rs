//! A store on the disk, and the server processes on it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, bail};
use libtest_mimic::Failed;

use crate::files::{list, segments_folder};
use crate::process::Process;

/// Time without work in the background after which there is none to come: the server looks for it each five seconds.
const QUIET_TIME: Duration = Duration::from_secs(12);

/// CPU seconds in that time that are not those of work.
const QUIET_CPU: f64 = 0.6;

/// Longest time for work in the background.
const WORK_TIME_MAX: Duration = Duration::from_secs(3600);

/// A data directory, and how servers are started on it.
pub(crate) struct Store {
    pub(crate) data: PathBuf,
    pub(crate) options: Vec<String>,
}

impl Store {
    pub(crate) fn start(&self) -> Result<Process> {
        let options: Vec<&str> = self.options.iter().map(String::as_str).collect();
        checked(Process::start(&self.data, &options))
    }

    /// Starts a server that has read nothing yet, on a page cache without its files. Returns the time of the start too.
    pub(crate) fn start_cold(&self) -> Result<(Process, Duration)> {
        // Else it counts what it does for the first time.
        drop_page_cache()?;
        let started = Instant::now();
        let process = self.start()?;
        Ok((process, started.elapsed()))
    }

    pub(crate) fn remove_catalog(&self) -> io::Result<()> {
        fs::remove_dir_all(self.data.join("default/catalog"))
    }

    /// Waits until blocks are written and all that is due is merged.
    pub(crate) fn wait_until_quiet(&self, process: &Process) -> Result<()> {
        let started = Instant::now();
        let state = || -> Result<_> {
            let logs = list(&self.data.join("default/log"));
            let segments = list(&segments_folder(&self.data));
            Ok((logs, segments, checked(process.cpu_seconds())?))
        };
        let (mut before, mut changed_at, mut told_at) = (state()?, started, started);
        while changed_at.elapsed() < QUIET_TIME || !before.0.is_empty() {
            std::thread::sleep(Duration::from_millis(500));
            let now = state()?;
            let is_same = (&now.0, &now.1) == (&before.0, &before.1);
            if !is_same || now.2 - before.2 > QUIET_CPU {
                (before, changed_at) = (now, Instant::now());
            }
            if told_at.elapsed() > Duration::from_secs(30) {
                told_at = Instant::now();
                eprintln!("merging, {} segments now", before.1.len());
            }
            if started.elapsed() > WORK_TIME_MAX {
                bail!("the server merges for an hour already");
            }
        }
        Ok(())
    }
}

/// Writes what is dirty, and drops the page cache of the whole machine. Needs root.
pub(crate) fn drop_page_cache() -> Result<()> {
    rustix::fs::sync();
    let path = Path::new("/proc/sys/vm/drop_caches");
    fs::write(path, "3")
        .map_err(|err| anyhow!("failed to drop the page cache, which needs root: {err}"))
}

/// The error of a test as one of a program.
pub(crate) fn checked<T>(result: Result<T, Failed>) -> Result<T> {
    result.map_err(|failed| anyhow!("{}", failed.message().unwrap_or("failed")))
}
