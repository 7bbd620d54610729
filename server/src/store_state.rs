//! The store's state for probes, metrics and the page: checked once a second, so that none of them waits for the disk.

use std::sync::Arc;
use std::time::Duration;

use metrics::{Registry, register_figures};
use store::{Store, StoreError, StoreNumbers, StoreState};
use tokio::sync::watch;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{sleep, timeout};
use tracing::{error, info};

/// When checks are made, and when they count as failed.
#[derive(Clone, Copy)]
struct CheckTimes {
    interval: Duration,
    timeout: Duration,
}

/// A check takes some microseconds. A local disk answers in milliseconds, a network file system in seconds; one that hangs does not
/// answer at all.
const CHECK_TIMES: CheckTimes = CheckTimes {
    interval: Duration::from_secs(1),
    timeout: Duration::from_secs(10),
};

/// Shows the last state that was read.
pub type StoreWatch = watch::Receiver<StoreState>;

/// The task that keeps the state up to date.
pub struct StoreWatcher(JoinHandle<()>);

impl StoreWatcher {
    /// Waits until the task no longer holds the store, but not for a check that hangs. The `stopped` of [`watch_store`] ends it.
    pub async fn join(self) {
        let _ = timeout(CHECK_TIMES.timeout, self.0).await;
    }
}

/// Reads the state, and keeps it up to date in a task until `stopped` fires or its sender is gone.
pub async fn watch_store(
    store: Arc<dyn Store>,
    stopped: watch::Receiver<()>,
) -> (StoreWatch, StoreWatcher) {
    let check = Arc::new(move || store.state());
    watch_checks(check, CHECK_TIMES, stopped).await
}

type Check = Arc<dyn Fn() -> StoreState + Send + Sync>;

async fn watch_checks(
    check: Check,
    times: CheckTimes,
    mut stopped: watch::Receiver<()>,
) -> (StoreWatch, StoreWatcher) {
    let first = run_check(&check, times, &|_| {}).await;
    log_change(&Ok(()), &first.writable);
    let (sender, receiver) = watch::channel(first);
    let task = tokio::spawn(async move {
        loop {
            tokio::select! {
                () = sleep(times.interval) => {}
                _ = stopped.changed() => return,
            }
            let state = run_check(&check, times, &|hung| note(&sender, hung)).await;
            note(&sender, state);
        }
    });
    (receiver, StoreWatcher(task))
}

/// Runs the check. If the disk does not answer in time, calls `note_hung` and goes on waiting: another check would hang too.
async fn run_check(
    check: &Check,
    times: CheckTimes,
    note_hung: &(dyn Fn(StoreState) + Sync),
) -> StoreState {
    let check = Arc::clone(check);
    let mut running = spawn_blocking(move || check());
    let checked = match timeout(times.timeout, &mut running).await {
        Ok(checked) => checked,
        Err(_) => {
            note_hung(failed("the store's file system does not answer"));
            running.await
        }
    };
    checked.unwrap_or_else(|_| failed("the check of the store panicked; the log has the reason"))
}

fn failed(reason: &str) -> StoreState {
    let err = StoreError::Failed(reason.to_owned());
    StoreState {
        readable: Err(err.clone()),
        writable: Err(err.clone()),
        space: Err(err),
    }
}

fn note(sender: &watch::Sender<StoreState>, state: StoreState) {
    log_change(&sender.borrow().writable, &state.writable);
    sender.send_replace(state);
}

fn log_change(before: &Result<(), StoreError>, now: &Result<(), StoreError>) {
    match (before, now) {
        (_, Err(StoreError::Stopping)) => {}
        (Ok(()), Err(err)) => error!(%err, "windows are not stored until this is over"),
        (Err(_), Ok(())) => info!("windows are stored again"),
        _ => {}
    }
}

/// Registers the sizes of a store, which are read at each scrape.
pub fn register_numbers(registry: &mut Registry, store: Arc<dyn Store>) {
    register_figures(registry, move |figures| {
        let StoreNumbers {
            segments,
            segment_bytes,
            blocks,
            block_bytes,
            log_bytes,
            old_files,
            damaged_files,
        } = store.numbers();
        figures.gauge("segments", "Segments", segments);
        figures.gauge("segment_bytes", "Bytes of segments", segment_bytes);
        figures.gauge("blocks", "Blocks that are no segments yet", blocks);
        figures.gauge("block_bytes", "Bytes of blocks in memory", block_bytes);
        figures.gauge("log_bytes", "Bytes of the logs of blocks", log_bytes);
        figures.gauge(
            "old_files",
            "Files of earlier versions that are not converted yet",
            old_files,
        );
        figures.gauge(
            "damaged_files",
            "Files that are known to be damaged or gone",
            damaged_files,
        );
    });
}

/// Registers the state.
pub fn register_state(registry: &mut Registry, watch: StoreWatch) {
    register_figures(registry, move |figures| {
        let state = watch.borrow();
        let writable = u64::from(state.writable.is_ok());
        figures.gauge("ingest_ready", "1 if windows can be stored", writable);
        let Ok(space) = &state.space else { return };
        for (name, help, bytes) in [
            (
                "disk_free_bytes",
                "Free bytes of the store's file system",
                space.free_bytes,
            ),
            (
                "disk_size_bytes",
                "Size of the store's file system",
                space.size_bytes,
            ),
            (
                "disk_reserve_bytes",
                "Free bytes below which windows are refused",
                space.reserve_bytes,
            ),
        ] {
            figures.gauge(name, help, bytes);
        }
    });
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;
    use store::DiskSpace;

    use super::*;

    /// Check that a state is shown while the disk does not answer, that it is another one as soon as it answers, and that the task
    /// ends when it is stopped.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_disk_that_hangs_is_noticed_and_recovers() {
        let disk = Arc::new(Mutex::new(()));
        let shared = Arc::clone(&disk);
        let check = Arc::new(move || {
            let _answers = shared.lock();
            StoreState {
                readable: Ok(()),
                writable: Ok(()),
                space: Ok(DiskSpace {
                    free_bytes: 2,
                    size_bytes: 3,
                    reserve_bytes: 1,
                }),
            }
        });
        let times = CheckTimes {
            interval: Duration::from_millis(1),
            timeout: Duration::from_millis(20),
        };
        let (stop, stopped) = watch::channel(());
        let (mut state, watcher) = watch_checks(check, times, stopped).await;
        // A check may be late on a busy machine.
        state
            .wait_for(|state| state.writable.is_ok())
            .await
            .unwrap();

        let hangs = tokio::task::spawn_blocking({
            let (disk, mut state) = (Arc::clone(&disk), state.clone());
            move || {
                let _hung = disk.lock();
                let hung = tokio::runtime::Handle::current()
                    .block_on(state.wait_for(|state| state.writable.is_err()))
                    .map(|state| state.clone());
                hung.unwrap()
            }
        });
        let hung = hangs.await.unwrap();
        let message = "the store's file system does not answer";
        assert_eq!(hung.readable.unwrap_err().to_string(), message);
        assert_eq!(hung.writable.unwrap_err().to_string(), message);
        state
            .wait_for(|state| state.writable.is_ok())
            .await
            .unwrap();

        drop(stop);
        watcher.join().await;
        assert_eq!(Arc::strong_count(&disk), 1, "the task holds no check");
    }
}
