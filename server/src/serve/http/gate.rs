//! Admission of queries: some run, some wait, the others get an error.

use std::sync::Arc;

use tokio::sync::{Semaphore, TryAcquireError};

use super::error::{ApiError, ErrorKind};

/// Bounds the running and waiting queries.
#[derive(Clone)]
pub struct Gate {
    admitted: Arc<Semaphore>,
    running: Arc<Semaphore>,
}

impl Gate {
    /// A gate for this many running and waiting queries.
    pub fn new(running_max: usize, waiting_max: usize) -> Self {
        Self {
            admitted: Arc::new(Semaphore::new(
                running_max
                    .saturating_add(waiting_max)
                    .min(Semaphore::MAX_PERMITS),
            )),
            running: Arc::new(Semaphore::new(running_max.min(Semaphore::MAX_PERMITS))),
        }
    }

    /// Runs a query on a thread that may block. The query runs to its end, and keeps its place until then, also when
    /// its client is gone.
    ///
    /// # Errors
    /// The query's own, or there are too many.
    pub async fn run<T, F>(&self, query: F) -> Result<T, ApiError>
    where
        T: Send + 'static,
        F: FnOnce() -> Result<T, ApiError> + Send + 'static,
    {
        let admitted = match Arc::clone(&self.admitted).try_acquire_owned() {
            Ok(admitted) => admitted,
            Err(TryAcquireError::NoPermits) => {
                let busy = ApiError::new(
                    ErrorKind::Busy,
                    "too many queries run and wait at this moment",
                );
                return Err(busy.with_hint("ask again in a few seconds"));
            }
            Err(TryAcquireError::Closed) => {
                return Err(ApiError::new(ErrorKind::Busy, "the server is stopping"));
            }
        };
        let running = Arc::clone(&self.running).acquire_owned().await;
        let running =
            running.map_err(|_| ApiError::new(ErrorKind::Busy, "the server is stopping"))?;
        let task = tokio::task::spawn_blocking(move || {
            let result = query();
            drop((admitted, running));
            result
        });
        task.await.unwrap_or_else(|err| {
            tracing::error!(%err, "a query panicked");
            Err(ApiError::new(
                ErrorKind::Internal,
                "the query failed; the server's log has the reason",
            ))
        })
    }
}
