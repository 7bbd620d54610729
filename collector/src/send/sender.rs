//! The thread that sends windows to the server.
//!
//! Sends one window at a time, the oldest first, and the next one after it is acknowledged or
//! dropped: with one window in ten seconds, sending in parallel gains nothing.

use std::pin::pin;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use metrics::{Registry, register_figures};
use parking_lot::Mutex;
use prost::Message as _;
use prost::bytes::Bytes;
use proto::v1::PushRequest;
use tokio::sync::Notify;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};
use tracing::{error, info, warn};

use super::backoff::Backoff;
use super::encoded::push_encoded;
use super::link::{Link, SendError, is_transport_error};
use super::pending_uploads::PendingUploads;
use super::queue::{Window, WindowQueue};
use super::stats::{DropReason, SenderStats};
use crate::threads::spawn;

/// The server's address, and time-outs.
#[derive(Clone, Debug)]
pub struct SenderOptions {
    /// The server, such as `http://127.0.0.1:7070`.
    pub server: String,
    /// Memory for windows while the server is unreachable. A window of a small node is 20 to 100
    /// KB, so 64 MiB last for two hours or more.
    pub queue_bytes_max: usize,
    /// Time-out of a connection attempt.
    pub connect_time: Duration,
    /// Time-out from sending a window to its acknowledgement. The server syncs its disk before it
    /// answers, which may take seconds.
    pub request_time: Duration,
    /// Delay after the first failure; doubles with each further one.
    pub retry_first: Duration,
    /// The maximum delay.
    pub retry_max: Duration,
    /// Receives the ids of files that the server requests in its answers.
    pub wanted: PendingUploads,
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
            wanted: PendingUploads::default(),
        }
    }
}

/// Sends windows from a thread of its own.
#[derive(Debug)]
pub struct Sender {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// Statistics of a sender, without the sender.
#[derive(Clone, Debug)]
pub struct SenderWatch(Arc<Shared>);

impl SenderWatch {
    /// Registers the counts of windows and samples that were sent and lost.
    pub fn register(&self, registry: &mut Registry) {
        let watch = self.clone();
        register_figures(registry, move |figures| watch.stats().show(figures));
    }

    /// Counts since the start.
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
    /// Set by a shutdown: the deadline for emptying the queue.
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
        let thread_state = SendThread {
            shared: Arc::clone(&shared),
            backoff: Backoff::new(options.retry_first, options.retry_max),
            options,
            endpoint: link.endpoint,
            channel: None,
            logged: None,
        };
        let thread = spawn("send", move || link.runtime.block_on(thread_state.run()))?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// Queues a window with its number of samples. Does not block.
    pub fn push(&self, request: &PushRequest, samples: u64) {
        self.push_encoded(request.sequence, samples, request.encode_to_vec().into());
    }

    /// Queues an encoded window. All attempts send the same bytes.
    pub fn push_encoded(&self, sequence: u64, samples: u64, message: Bytes) {
        let window = Window {
            sequence,
            samples,
            message,
        };
        let mut state = self.shared.state.lock();
        let dropped = state.queue.push(window);
        for window in &dropped {
            state.drop_window(DropReason::QueueFull, window);
        }
        drop(state);
        self.shared.changed.notify_one();
    }

    /// Counts since the start.
    pub fn stats(&self) -> SenderStats {
        self.shared.stats()
    }

    /// A view of the counts for another thread.
    pub fn watch(&self) -> SenderWatch {
        SenderWatch(self.shared.clone())
    }

    /// Sends waiting windows until `deadline`, then drops and counts the others. Returns the final
    /// counts.
    pub fn shutdown(mut self, deadline: Instant) -> SenderStats {
        self.close(deadline);
        self.shared.stats()
    }

    fn close(&mut self, deadline: Instant) {
        self.shared.state.lock().closing = Some(deadline);
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
    fn stats(&self) -> SenderStats {
        let state = self.state.lock();
        SenderStats {
            queue_windows: state.queue.len() as u64,
            queue_bytes: state.queue.bytes() as u64,
            oldest_wait: state.queue.oldest().map(|since| since.elapsed()),
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

/// The result of an attempt.
enum Outcome {
    /// Acknowledged.
    Taken { is_repeat: bool },
    /// Permanently refused.
    Lost(DropReason, Status),
    /// Refused because of the size limit or a full disk; the status does not distinguish them.
    Full(Status),
    /// Failed, and worth a retry.
    Failed(Status),
}

/// The sending thread's own things.
struct SendThread {
    shared: Arc<Shared>,
    options: SenderOptions,
    endpoint: Endpoint,
    channel: Option<Channel>,
    backoff: Backoff,
    /// The last logged failure: repeated ones are not logged again.
    logged: Option<String>,
}

impl SendThread {
    async fn run(mut self) {
        while let Some(window) = self.next().await {
            let is_delivered = self.deliver(&window).await;
            if is_delivered {
                self.backoff.reset();
            } else {
                self.wait().await;
            }
        }
        let mut state = self.shared.state.lock();
        for window in state.queue.drain() {
            state.drop_window(DropReason::Shutdown, &window);
        }
    }

    /// The oldest window, as soon as there is one; `None` when the thread should end. The window
    /// stays in the queue until its outcome is known.
    async fn next(&self) -> Option<Window> {
        loop {
            {
                let mut state = self.shared.state.lock();
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

    /// One attempt. Returns `false` if the window stays in the queue.
    async fn deliver(&mut self, window: &Window) -> bool {
        match self.push(window).await {
            Outcome::Full(status) => self.retry_smaller(window, status).await,
            outcome => self.record(window, outcome),
        }
    }

    /// With a full disk the server refuses every window, with the size limit only large ones. So
    /// try the next smaller window: if the server accepts it, the first one is lost.
    async fn retry_smaller(&mut self, window: &Window, status: Status) -> bool {
        let bytes = window.message.len();
        let smaller = self.shared.state.lock().queue.hold_oldest(bytes);
        if let Some(smaller) = smaller {
            let outcome = self.push(&smaller).await;
            let is_taken = matches!(outcome, Outcome::Taken { .. });
            self.record(&smaller, outcome);
            if is_taken {
                return self.record(window, Outcome::Lost(DropReason::TooLarge, status));
            }
        }
        self.record(window, Outcome::Failed(status))
    }

    /// Counts the outcome. Returns `false` if the window stays in the queue.
    fn record(&mut self, window: &Window, outcome: Outcome) -> bool {
        let mut state = self.shared.state.lock();
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
        let started = Instant::now();
        // A clone is a handle of the same connection.
        let channel = self
            .channel
            .get_or_insert_with(|| self.endpoint.connect_lazy())
            .clone();
        let push = push_encoded(channel, window.message.clone());
        let result = self.answer(push, started).await;
        self.note_connection(&result);
        match result {
            Ok(response) => {
                let wanted = &response.get_ref().wanted_file_ids;
                self.options.wanted.ask(wanted.iter().map(String::as_str));
                let mut state = self.shared.state.lock();
                state.stats.ack_time_last = started.elapsed();
                state.stats.ack_time_total += started.elapsed();
                Outcome::Taken {
                    is_repeat: response.get_ref().duplicate,
                }
            }
            Err(status) => match status.code() {
                Code::InvalidArgument => Outcome::Lost(DropReason::Refused, status),
                // The code of tonic's server for a message above its own limit.
                Code::OutOfRange => Outcome::Lost(DropReason::TooLarge, status),
                Code::ResourceExhausted => Outcome::Full(status),
                _ => Outcome::Failed(status),
            },
        }
    }

    /// The answer to a request sent at `started`, or an error after its time-out.
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

    /// Records whether the server is reachable. Drops a failed connection, since a hanging one
    /// would hang again.
    fn note_connection<T>(&mut self, result: &Result<T, Status>) {
        let is_connected = !result.as_ref().is_err_and(is_transport_error);
        self.shared.state.lock().stats.connected = is_connected;
        if !is_connected {
            self.channel = None;
        }
    }

    /// Waits before the next attempt, at most until the deadline of a shutdown.
    async fn wait(&mut self) {
        let until = Instant::now() + self.backoff.wait();
        loop {
            let was_closing = self.shared.state.lock().closing.is_some();
            let left = self.time_left(until.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                return;
            }
            // A new window is no reason for an earlier attempt. A shutdown is, since the server may
            // be back and little time is left.
            let _ = tokio::time::timeout(left, self.shared.changed.notified()).await;
            if !was_closing && self.shared.state.lock().closing.is_some() {
                return;
            }
        }
    }

    /// `time`, limited by the deadline of a shutdown.
    fn time_left(&self, time: Duration) -> Duration {
        match self.shared.state.lock().closing {
            Some(at) => time.min(at.saturating_duration_since(Instant::now())),
            None => time,
        }
    }
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
