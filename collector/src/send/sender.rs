//! The thread that talks to the server.
//!
//! One window is on its way at a time, the oldest first, and the next only when
//! it is acknowledged or dropped: at one window in ten seconds there is nothing
//! to gain from more.

use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use prost::Message;
use proto::v1::PushRequest;
use proto::v1::ingest_client::IngestClient;
use tokio::sync::Notify;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};
use tracing::{error, info, warn};

use super::backoff::Backoff;
use super::link::{Link, SendError};
use super::queue::{Window, WindowQueue};
use super::stats::{DropReason, SenderStats};
use super::uploader::WantedFiles;

/// Where windows are sent, and what waiting for it may cost.
#[derive(Clone, Debug)]
pub struct SenderOptions {
    /// The server, such as `http://127.0.0.1:7070`.
    pub server: String,
    /// Bytes of windows kept while the server is away. A window of a small node
    /// is 20 to 100 KB, so 64 MiB are two hours or more.
    pub queue_bytes_max: usize,
    /// Time for a connection.
    pub connect_time: Duration,
    /// Time from sending a window to its acknowledgement. The server syncs its
    /// disk before it answers, which takes seconds on a bad day.
    pub request_time: Duration,
    /// Wait after the first failure; it doubles with each further one.
    pub retry_first: Duration,
    /// The longest wait.
    pub retry_max: Duration,
    /// Where files go that the server asks for in its answers.
    pub wanted: WantedFiles,
}

impl SenderOptions {
    /// The defaults, for the server at this address.
    pub fn new(server: impl Into<String>) -> Self {
        Self {
            server: server.into(),
            queue_bytes_max: 64 << 20,
            connect_time: Duration::from_secs(5),
            request_time: Duration::from_secs(30),
            retry_first: Duration::from_millis(100),
            retry_max: Duration::from_secs(10),
            wanted: WantedFiles::default(),
        }
    }
}

/// Sends windows from a thread of its own.
#[derive(Debug)]
pub struct Sender {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// Shows what a sender does, without the sender.
#[derive(Clone, Debug)]
pub struct SenderWatch(Arc<Shared>);

impl SenderWatch {
    /// What was sent and lost so far.
    pub fn stats(&self) -> SenderStats {
        self.0.stats()
    }
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug)]
struct State {
    queue: WindowQueue,
    stats: SenderStats,
    /// Set by a shutdown: until when the queue may still be emptied.
    closing: Option<Instant>,
}

impl Sender {
    /// Starts the thread. The server need not be there yet.
    ///
    /// # Errors
    ///
    /// When the address cannot be understood, or the thread not be started.
    pub fn start(options: SenderOptions) -> Result<Self, SendError> {
        let link = Link::prepare(&options.server, options.connect_time)?;
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                queue: WindowQueue::new(options.queue_bytes_max),
                stats: SenderStats::default(),
                closing: None,
            }),
            changed: Notify::new(),
        });
        let courier = Courier {
            shared: Arc::clone(&shared),
            backoff: Backoff::new(options.retry_first, options.retry_max),
            options,
            endpoint: link.endpoint,
            client: None,
            logged: None,
        };
        let thread = std::thread::Builder::new()
            .name("send".into())
            .spawn(move || link.runtime.block_on(courier.run()))?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// Hands over a window with its number of samples. Returns at once.
    pub fn push(&self, request: &PushRequest, samples: u64) {
        let window = Window {
            sequence: request.sequence,
            samples,
            message: request.encode_to_vec().into(),
        };
        let mut state = self.shared.lock();
        let dropped = state.queue.push(window);
        for window in &dropped {
            state.drop_window(DropReason::QueueFull, window);
        }
        drop(state);
        self.shared.changed.notify_one();
    }

    /// What was sent and lost so far.
    pub fn stats(&self) -> SenderStats {
        self.shared.stats()
    }

    /// A view of the counts for another thread.
    pub fn watch(&self) -> SenderWatch {
        SenderWatch(self.shared.clone())
    }

    /// Sends what is left, until `deadline`; what is left then is dropped and
    /// counted. Returns the final counts.
    pub fn shutdown(mut self, deadline: Instant) -> SenderStats {
        self.close(deadline);
        self.shared.stats()
    }

    fn close(&mut self, deadline: Instant) {
        self.shared.lock().closing = Some(deadline);
        self.shared.changed.notify_one();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            error!("sending thread panicked");
        }
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        if self.thread.is_some() {
            self.close(Instant::now());
        }
    }
}

impl Shared {
    /// A panic of another thread leaves counts and queue usable.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stats(&self) -> SenderStats {
        let state = self.lock();
        SenderStats {
            queue_windows: state.queue.len() as u64,
            queue_bytes: state.queue.bytes() as u64,
            ..state.stats.clone()
        }
    }
}

impl State {
    fn drop_window(&mut self, reason: DropReason, window: &Window) {
        let Window {
            sequence,
            samples,
            message,
        } = window;
        error!(
            sequence,
            samples,
            bytes = message.len(),
            reason = reason.as_str(),
            "dropped a window"
        );
        self.stats.drop_window(reason, *samples, message.len());
    }
}

/// What became of a try.
enum Outcome {
    /// Acknowledged.
    Taken { is_repeat: bool },
    /// Never going to be taken.
    Lost(DropReason, Status),
    /// Full, by size or by disk; the status does not say which.
    Full(Status),
    /// Perhaps later.
    Failed(Status),
}

/// The sending thread's own things.
struct Courier {
    shared: Arc<Shared>,
    options: SenderOptions,
    endpoint: Endpoint,
    client: Option<IngestClient<Channel>>,
    backoff: Backoff,
    /// The failure that was logged last, so that it is logged once.
    logged: Option<String>,
}

impl Courier {
    async fn run(mut self) {
        while let Some(window) = self.next().await {
            let is_delivered = self.deliver(&window).await;
            if is_delivered {
                self.backoff.reset();
            } else {
                self.wait().await;
            }
        }
        let mut state = self.shared.lock();
        for window in state.queue.drain() {
            state.drop_window(DropReason::Shutdown, &window);
        }
    }

    /// The oldest window, when there is one; `None` when it is time to end. It
    /// stays in the queue until its outcome is known.
    async fn next(&self) -> Option<Window> {
        loop {
            {
                let mut state = self.shared.lock();
                if state.closing.is_some_and(|at| Instant::now() >= at) {
                    return None;
                }
                let oldest = state.queue.hold_oldest(usize::MAX);
                if oldest.is_some() || state.closing.is_some() {
                    return oldest;
                }
            }
            self.shared.changed.notified().await;
        }
    }

    /// Tries once. `false`: the window is still there.
    async fn deliver(&mut self, window: &Window) -> bool {
        match self.push(window).await {
            Outcome::Full(status) => self.settle_full(window, status).await,
            outcome => self.settle(window, outcome),
        }
    }

    /// A full disk refuses every window, a limit of size only the large ones. So
    /// the next smaller one is tried: if the server takes it, the first is lost.
    async fn settle_full(&mut self, window: &Window, status: Status) -> bool {
        let bytes = window.message.len();
        let smaller = self.shared.lock().queue.hold_oldest(bytes);
        if let Some(smaller) = smaller {
            let outcome = self.push(&smaller).await;
            let is_taken = matches!(outcome, Outcome::Taken { .. });
            self.settle(&smaller, outcome);
            if is_taken {
                return self.settle(window, Outcome::Lost(DropReason::TooLarge, status));
            }
        }
        self.settle(window, Outcome::Failed(status))
    }

    /// Counts the outcome. `false`: the window is still there.
    fn settle(&mut self, window: &Window, outcome: Outcome) -> bool {
        let mut state = self.shared.lock();
        match outcome {
            Outcome::Taken { is_repeat } => {
                state.queue.take(window.sequence);
                state.stats.sent_windows += 1;
                state.stats.sent_samples += window.samples;
                state.stats.sent_bytes += window.message.len() as u64;
                state.stats.repeated_windows += u64::from(is_repeat);
                if self.logged.take().is_some() {
                    info!(server = self.options.server, "server takes windows again");
                }
                true
            }
            Outcome::Lost(reason, status) => {
                let message = status.message();
                error!(
                    sequence = window.sequence,
                    message, "server refused a window"
                );
                state.stats.last_error = Some(describe(&status));
                state.queue.take(window.sequence);
                state.drop_window(reason, window);
                true
            }
            Outcome::Full(status) | Outcome::Failed(status) => {
                state.queue.release(window.sequence);
                state.stats.retries += 1;
                let error = describe(&status);
                if self.logged.as_ref() != Some(&error) {
                    let server = &self.options.server;
                    warn!(server, error, "failed to send a window, keeping it");
                    self.logged = Some(error.clone());
                }
                state.stats.last_error = Some(error);
                false
            }
        }
    }

    async fn push(&mut self, window: &Window) -> Outcome {
        // The profile is shared with the queue, not copied.
        let request = match PushRequest::decode(window.message.clone()) {
            Ok(request) => request,
            Err(err) => {
                let status = Status::invalid_argument(err.to_string());
                return Outcome::Lost(DropReason::Refused, status);
            }
        };
        let started = Instant::now();
        // A clone is a handle of the same connection.
        let mut client = self
            .client
            .get_or_insert_with(|| IngestClient::new(self.endpoint.connect_lazy()))
            .clone();
        let result = self.answer(client.push(request), started).await;
        self.note_connection(&result);
        match result {
            Ok(response) => {
                let wanted = &response.get_ref().wanted_build_ids;
                self.options.wanted.ask(wanted.iter().map(String::as_str));
                let mut state = self.shared.lock();
                state.stats.ack_time_last = started.elapsed();
                state.stats.ack_time_total += started.elapsed();
                Outcome::Taken {
                    is_repeat: response.get_ref().duplicate,
                }
            }
            Err(status) => match status.code() {
                Code::InvalidArgument => Outcome::Lost(DropReason::Refused, status),
                // What tonic's server says of a message above its own limit.
                Code::OutOfRange => Outcome::Lost(DropReason::TooLarge, status),
                Code::ResourceExhausted => Outcome::Full(status),
                _ => Outcome::Failed(status),
            },
        }
    }

    /// The answer to what was sent at `started`, or that there is none in time.
    async fn answer<T>(
        &self,
        answer: impl Future<Output = Result<T, Status>>,
        started: Instant,
    ) -> Result<T, Status> {
        let time = self.options.request_time;
        let until = started + time;
        let mut answer = pin!(answer);
        loop {
            let left = self.time_left(until.saturating_duration_since(Instant::now()));
            tokio::select! {
                biased;
                result = &mut answer => return result,
                () = tokio::time::sleep(left) => {
                    let message = format!("no answer in time, at most {time:?}");
                    return Err(Status::deadline_exceeded(message));
                }
                // A shutdown may have begun, which leaves less time.
                () = self.shared.changed.notified() => {}
            }
        }
    }

    /// Keeps whether the server is there. A connection that failed is not used
    /// again: one that hangs would hang again.
    fn note_connection<T>(&mut self, result: &Result<T, Status>) {
        let is_connected = !result.as_ref().is_err_and(is_transport_error);
        self.shared.lock().stats.connected = is_connected;
        if !is_connected {
            self.client = None;
        }
    }

    /// Waits before the next try, but not beyond the end of a shutdown.
    async fn wait(&mut self) {
        let until = Instant::now() + self.backoff.wait();
        loop {
            let was_closing = self.shared.lock().closing.is_some();
            let left = self.time_left(until.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                return;
            }
            // A new window is no reason to try earlier, but a shutdown is: the
            // server may be back, and there is little time.
            let _ = tokio::time::timeout(left, self.shared.changed.notified()).await;
            if !was_closing && self.shared.lock().closing.is_some() {
                return;
            }
        }
    }

    /// `time`, or what is left of it until a shutdown ends.
    fn time_left(&self, time: Duration) -> Duration {
        match self.shared.lock().closing {
            Some(at) => time.min(at.saturating_duration_since(Instant::now())),
            None => time,
        }
    }
}

/// Whether the server was not reached, or did not answer.
pub(super) fn is_transport_error(status: &Status) -> bool {
    // tonic keeps the connection's own error as the source of the status.
    std::error::Error::source(status).is_some()
        || matches!(status.code(), Code::DeadlineExceeded | Code::Cancelled)
}

/// The status in one line, with its cause.
fn describe(status: &Status) -> String {
    let mut text = format!("{:?}: {}", status.code(), status.message());
    let mut source = std::error::Error::source(status);
    while let Some(err) = source {
        let cause = err.to_string();
        if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
        source = err.source();
    }
    text
}
