//! The sender against a real gRPC server in this process.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use collector::send::{DropReason, Dropped, Sender, SenderOptions, SenderStats};
use proto::v1::ingest_server::{Ingest, IngestServer};
use proto::v1::{PushRequest, PushResponse};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tonic::{Code, Request, Response, Status};

/// What the server does with the next message.
#[derive(Clone, Copy, Debug)]
enum Act {
    Take,
    /// Stores it, and the acknowledgement is lost.
    TakeAndFail,
    Refuse(Code),
    Hang,
}

#[derive(Default)]
struct Server {
    /// What to do in turn; then `Take`.
    script: Mutex<VecDeque<Act>>,
    /// Messages above these bytes are refused as a full disk is.
    bytes_max: Mutex<Option<usize>>,
    /// Sequence numbers of all tries.
    tried: Mutex<Vec<u64>>,
    /// What is stored: instance and sequence, in order.
    stored: Mutex<Vec<(Vec<u8>, u64)>>,
}

#[tonic::async_trait]
impl Ingest for Server {
    async fn push(&self, request: Request<PushRequest>) -> Result<Response<PushResponse>, Status> {
        let request = request.into_inner();
        self.tried.lock().unwrap().push(request.sequence);
        let act = self.script.lock().unwrap().pop_front().unwrap_or(Act::Take);
        match act {
            Act::Refuse(code) => return Err(Status::new(code, "as the test wants it")),
            Act::Hang => std::future::pending::<()>().await,
            Act::Take | Act::TakeAndFail => {}
        }
        let bytes_max = *self.bytes_max.lock().unwrap();
        if bytes_max.is_some_and(|max| request.profile_zstd.len() > max) {
            return Err(Status::resource_exhausted("full"));
        }
        let key = (request.collector_instance.to_vec(), request.sequence);
        let mut stored = self.stored.lock().unwrap();
        let duplicate = stored.contains(&key);
        if !duplicate {
            stored.push(key);
        }
        match act {
            Act::TakeAndFail => Err(Status::internal("after it was stored")),
            _ => Ok(Response::new(PushResponse {
                duplicate,
                ..PushResponse::default()
            })),
        }
    }
}

impl Server {
    fn new(script: impl IntoIterator<Item = Act>) -> Arc<Self> {
        let server = Self::default();
        server.script.lock().unwrap().extend(script);
        Arc::new(server)
    }

    fn stored(&self) -> Vec<u64> {
        let stored = self.stored.lock().unwrap();
        stored.iter().map(|(_, sequence)| *sequence).collect()
    }

    /// Serves at the address until the task is aborted.
    async fn serve(self: &Arc<Self>, listener: TcpListener) -> JoinHandle<()> {
        let service = IngestServer::from_arc(Arc::clone(self)).max_decoding_message_size(1 << 20);
        let incoming = tonic::transport::server::TcpIncoming::from(listener);
        tokio::spawn(async move {
            tonic::transport::Server::builder()
                .add_service(service)
                .serve_with_incoming(incoming)
                .await
                .unwrap();
        })
    }
}

async fn listen(address: Option<SocketAddr>) -> (TcpListener, SocketAddr) {
    let address = address.unwrap_or_else(|| ([127, 0, 0, 1], 0).into());
    let listener = TcpListener::bind(address).await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

fn options(address: SocketAddr) -> SenderOptions {
    SenderOptions {
        retry_first: Duration::from_millis(5),
        retry_max: Duration::from_millis(50),
        ..SenderOptions::new(format!("http://{address}"))
    }
}

fn window(sequence: u64, profile_bytes: usize) -> PushRequest {
    PushRequest {
        collector_instance: vec![7; 16],
        sequence,
        node: "node".into(),
        profile_zstd: vec![1; profile_bytes].into(),
        ..PushRequest::default()
    }
}

/// Waits, and gives up after 20 s.
async fn until(sender: &Sender, is_reached: impl Fn(&SenderStats) -> bool) -> SenderStats {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let stats = sender.stats();
        if is_reached(&stats) {
            return stats;
        }
        assert!(Instant::now() < deadline, "{stats:?}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Waits until the server was sent this window.
async fn until_tried(server: &Server, sequence: u64) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !server.tried.lock().unwrap().contains(&sequence) {
        assert!(Instant::now() < deadline, "window {sequence} was not sent");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Shuts down away from the runtime's threads, as it blocks.
async fn shut_down(sender: Sender, time: Duration) -> SenderStats {
    let deadline = Instant::now() + time;
    tokio::task::spawn_blocking(move || sender.shutdown(deadline))
        .await
        .unwrap()
}

/// Check that windows pushed while there is no server arrive once there is one,
/// each once and in order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn server_that_comes_later_gets_everything() {
    let (listener, address) = listen(None).await;
    drop(listener);
    let sender = Sender::start(options(address)).unwrap();
    for sequence in 1..=20 {
        sender.push(&window(sequence, 1000), sequence);
    }
    let away = until(&sender, |stats| stats.retries >= 3).await;
    assert!(!away.connected);
    assert!(
        away.last_error.unwrap().contains("refused"),
        "the error says why"
    );
    let server = Server::new([]);
    let (listener, _) = listen(Some(address)).await;
    let task = server.serve(listener).await;
    let stats = until(&sender, |stats| stats.sent_windows == 20).await;
    assert!(stats.connected);
    assert_eq!((stats.queue_windows, stats.queue_bytes), (0, 0));
    assert_eq!(stats.sent_samples, 210);
    assert_eq!(stats.dropped, [Dropped::default(); 4]);
    assert!(stats.ack_time_last > Duration::ZERO);
    assert_eq!(server.stored(), (1..=20).collect::<Vec<_>>());
    task.abort();
}

/// Check that a server that dies in the middle and comes back again and again
/// has every window at the end, and that a lost acknowledgement stores none twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn server_that_dies_in_the_middle_loses_nothing() {
    let server = Server::new([Act::Take, Act::TakeAndFail, Act::TakeAndFail, Act::Hang]);
    let (mut listener, address) = listen(None).await;
    let sender = Sender::start(SenderOptions {
        request_time: Duration::from_millis(300),
        ..options(address)
    })
    .unwrap();
    let mut sequence = 0;
    for _ in 0..5 {
        let task = server.serve(listener).await;
        for _ in 0..10 {
            sequence += 1;
            sender.push(&window(sequence, 10_000), 1);
        }
        until(&sender, |stats| stats.sent_windows + 5 >= sequence).await;
        task.abort();
        let _ = task.await;
        listener = listen(Some(address)).await.0;
    }
    let task = server.serve(listener).await;
    let stats = until(&sender, |stats| stats.sent_windows == sequence).await;
    assert!(stats.repeated_windows >= 1, "{stats:?}");
    assert_eq!(server.stored(), (1..=sequence).collect::<Vec<_>>());
    task.abort();
}

/// Check that the oldest windows go when there is no more room, and that every
/// one of them is counted, with samples and bytes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn windows_over_the_bound_are_counted() {
    let (listener, address) = listen(None).await;
    drop(listener);
    let sender = Sender::start(SenderOptions {
        queue_bytes_max: 50_000,
        ..options(address)
    })
    .unwrap();
    for sequence in 1..=100 {
        sender.push(&window(sequence, 1000), 10);
    }
    let stats = sender.stats();
    assert!(stats.queue_bytes <= 50_000);
    let dropped = stats.dropped_for(DropReason::QueueFull);
    assert_eq!(stats.queue_windows + dropped.windows, 100);
    assert_eq!(dropped.samples, dropped.windows * 10);
    assert!(dropped.bytes >= dropped.windows * 1000);
    let server = Server::new([]);
    let (listener, _) = listen(Some(address)).await;
    let task = server.serve(listener).await;
    let stats = until(&sender, |stats| stats.queue_windows == 0).await;
    assert_eq!(stats.sent_windows + dropped.windows, 100);
    let stored = server.stored();
    assert_eq!(stored.last(), Some(&100), "the newest are kept");
    assert!(stored.is_sorted());
    task.abort();
}

/// Check that a malformed window is given up at once and the next one goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn malformed_window_is_dropped_and_not_repeated() {
    let server = Server::new([Act::Refuse(Code::InvalidArgument)]);
    let (listener, address) = listen(None).await;
    let task = server.serve(listener).await;
    let sender = Sender::start(options(address)).unwrap();
    sender.push(&window(1, 10), 5);
    sender.push(&window(2, 10), 6);
    let stats = until(&sender, |stats| stats.sent_windows == 1).await;
    let dropped = stats.dropped_for(DropReason::Refused);
    assert_eq!((dropped.windows, dropped.samples), (1, 5));
    assert_eq!(*server.tried.lock().unwrap(), [1, 2]);
    assert!(stats.last_error.unwrap().contains("as the test wants it"));
    task.abort();
}

/// Check that a window above the server's limit is dropped once a smaller one
/// shows that the disk is not full, and that a full disk drops nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_large_and_disk_full_are_told_apart() {
    let server = Server::new([]);
    *server.bytes_max.lock().unwrap() = Some(0);
    let (listener, address) = listen(None).await;
    let task = server.serve(listener).await;
    let sender = Sender::start(options(address)).unwrap();
    sender.push(&window(1, 5000), 1);
    sender.push(&window(2, 100), 1);
    let full = until(&sender, |stats| stats.retries >= 6).await;
    assert_eq!(full.dropped, [Dropped::default(); 4]);
    assert_eq!(full.queue_windows, 2);
    assert!(full.connected, "the server spoke");
    *server.bytes_max.lock().unwrap() = Some(1000);
    let stats = until(&sender, |stats| stats.queue_windows == 0).await;
    assert_eq!(stats.dropped_for(DropReason::TooLarge).windows, 1);
    assert_eq!(server.stored(), [2]);
    // What tonic itself refuses, before the service sees it.
    sender.push(&window(3, 2 << 20), 1);
    let stats = until(&sender, |stats| stats.queue_windows == 0).await;
    assert_eq!(stats.dropped_for(DropReason::TooLarge).windows, 2);
    task.abort();
}

/// Check that a server that never answers costs its time-out and no window.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn server_that_hangs_is_tried_again() {
    let server = Server::new([Act::Hang, Act::Refuse(Code::Unavailable), Act::Hang]);
    let (listener, address) = listen(None).await;
    let task = server.serve(listener).await;
    let sender = Sender::start(SenderOptions {
        request_time: Duration::from_millis(200),
        ..options(address)
    })
    .unwrap();
    sender.push(&window(1, 10), 1);
    let stats = until(&sender, |stats| stats.sent_windows == 1).await;
    assert_eq!(stats.retries, 3);
    assert_eq!(*server.tried.lock().unwrap(), [1, 1, 1, 1]);
    task.abort();
}

/// Check that a shutdown sends what is left, and counts what it could not send
/// when its time is over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shutdown_drains_until_its_deadline() {
    let server = Server::new([]);
    let (listener, address) = listen(None).await;
    let task = server.serve(listener).await;
    let sender = Sender::start(options(address)).unwrap();
    for sequence in 1..=50 {
        sender.push(&window(sequence, 1000), 1);
    }
    let stats = shut_down(sender, Duration::from_secs(20)).await;
    assert_eq!((stats.sent_windows, stats.queue_windows), (50, 0));
    task.abort();

    let server = Server::new([Act::Hang]);
    let (listener, address) = listen(None).await;
    let task = server.serve(listener).await;
    let sender = Sender::start(options(address)).unwrap();
    sender.push(&window(1, 10), 3);
    // The harder case: the window is on its way when the shutdown begins.
    until_tried(&server, 1).await;
    let started = Instant::now();
    let stats = shut_down(sender, Duration::from_millis(300)).await;
    assert!(
        started.elapsed() < Duration::from_secs(5),
        "{:?}",
        started.elapsed()
    );
    let dropped = stats.dropped_for(DropReason::Shutdown);
    assert_eq!((dropped.windows, dropped.samples), (1, 3));
    task.abort();
}

/// Check that a bad address is told at the start, with how to write it.
#[test]
fn bad_address_is_an_error() {
    let err = Sender::start(SenderOptions::new("not an address")).unwrap_err();
    assert!(err.to_string().contains("http://HOST:PORT"), "{err}");
}
