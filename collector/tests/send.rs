//! The sender against a real gRPC server in this process.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use collector::send::{
    DropReason, Dropped, Reporter, ReporterStats, ReporterTimes, Sender, SenderOptions, SenderStats,
};
use http_body_util::BodyExt as _;
use prost::Message as _;
use proto::v1::ingest_server::{Ingest, IngestServer};
use proto::v1::{NodeState, PushRequest, PushResponse, ReportRequest, ReportResponse};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tonic::{Code, Request, Response, Status};

/// Time after which a test that waits for a condition fails; no machine needs as long.
const DEADLINE: Duration = Duration::from_secs(60);

/// The server's treatment of the next message.
#[derive(Clone, Copy, Debug)]
enum Act {
    Take,
    /// Stores the message and loses the acknowledgement.
    TakeAndFail,
    Refuse(Code),
    Hang,
}

#[derive(Default)]
struct Server {
    /// The next treatments, then `Take`.
    script: Mutex<VecDeque<Act>>,
    /// Larger messages are refused as if the disk were full.
    bytes_max: Mutex<Option<usize>>,
    /// Sequence numbers of all attempts.
    tried: Mutex<Vec<u64>>,
    /// Stored messages: instance and sequence, in order.
    stored: Mutex<Vec<(Vec<u8>, u64)>>,
    /// Reports that were taken.
    reports: Mutex<Vec<ReportRequest>>,
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

    async fn report(
        &self,
        request: Request<ReportRequest>,
    ) -> Result<Response<ReportResponse>, Status> {
        let act = self.script.lock().unwrap().pop_front();
        if let Some(Act::Refuse(code)) = act {
            return Err(Status::new(code, "as the test wants it"));
        }
        self.reports.lock().unwrap().push(request.into_inner());
        Ok(Response::new(ReportResponse::default()))
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

    /// Serves on the address until the task is aborted.
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

/// Waits for a condition.
async fn until(sender: &Sender, is_reached: impl Fn(&SenderStats) -> bool) -> SenderStats {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let stats = sender.stats();
        if is_reached(&stats) {
            return stats;
        }
        assert!(Instant::now() < deadline, "{stats:?}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Waits until the server has received this window.
async fn until_tried(server: &Server, sequence: u64) {
    let deadline = Instant::now() + DEADLINE;
    while !server.tried.lock().unwrap().contains(&sequence) {
        assert!(Instant::now() < deadline, "window {sequence} was not sent");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Shuts down on another thread, since that blocks.
async fn shut_down(sender: Sender, time: Duration) -> SenderStats {
    let deadline = Instant::now() + time;
    tokio::task::spawn_blocking(move || sender.shutdown(deadline))
        .await
        .unwrap()
}

/// Check that windows pushed while the server is down arrive later, each once and in order.
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

/// Check that a server which is killed repeatedly ends up with every window, and that a lost
/// acknowledgement stores none twice.
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

/// Check that the oldest windows are dropped when the queue is full, and that each is counted with
/// samples and bytes.
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

/// Check that a malformed window is dropped at once, and the next one is sent.
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

/// Check that a window above the server's size limit is dropped after a smaller one shows that the
/// disk is not full, and that a full disk drops no window.
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
    // tonic itself refuses this message before the service sees it.
    sender.push(&window(3, 2 << 20), 1);
    let stats = until(&sender, |stats| stats.queue_windows == 0).await;
    assert_eq!(stats.dropped_for(DropReason::TooLarge).windows, 2);
    task.abort();
}

/// Check that a server that never answers costs its time-out but no window.
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
    // On a busy machine a try that the server takes may be too late as well.
    assert!(stats.retries >= 3);
    let tried = server.tried.lock().unwrap().clone();
    assert!(tried.len() >= 4 && tried.iter().all(|sequence| *sequence == 1));
    assert_eq!(server.stored(), [1]);
    task.abort();
}

/// Check that a shutdown sends waiting windows, and counts the others at its deadline.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shutdown_drains_until_its_deadline() {
    let server = Server::new([]);
    let (listener, address) = listen(None).await;
    let task = server.serve(listener).await;
    let sender = Sender::start(options(address)).unwrap();
    for sequence in 1..=50 {
        sender.push(&window(sequence, 1000), 1);
    }
    let stats = shut_down(sender, DEADLINE).await;
    assert_eq!((stats.sent_windows, stats.queue_windows), (50, 0));
    task.abort();

    let server = Server::new([Act::Hang]);
    let (listener, address) = listen(None).await;
    let task = server.serve(listener).await;
    let sender = Sender::start(SenderOptions {
        request_time: 2 * DEADLINE,
        ..options(address)
    })
    .unwrap();
    sender.push(&window(1, 10), 3);
    // The harder case: the window is being sent when the shutdown begins.
    until_tried(&server, 1).await;
    let started = Instant::now();
    let stats = shut_down(sender, Duration::from_millis(300)).await;
    assert!(started.elapsed() < DEADLINE, "{:?}", started.elapsed());
    let dropped = stats.dropped_for(DropReason::Shutdown);
    assert_eq!((dropped.windows, dropped.samples), (1, 3));
    task.abort();
}

/// Check that an invalid address is an error at the start, with the correct form.
#[test]
fn bad_address_is_an_error() {
    let err = Sender::start(SenderOptions::new("not an address")).unwrap_err();
    assert!(err.to_string().contains("http://HOST:PORT"), "{err}");
}

/// A server that records the bytes of each attempt, and refuses all.
#[derive(Clone, Default)]
struct Recorder(Arc<Mutex<Vec<Vec<u8>>>>);

impl tonic::server::NamedService for Recorder {
    const NAME: &'static str = "pilotlight.v1.Ingest";
}

impl tonic::codegen::Service<tonic::codegen::http::Request<tonic::body::Body>> for Recorder {
    type Response = tonic::codegen::http::Response<tonic::body::Body>;
    type Error = std::convert::Infallible;
    type Future = tonic::codegen::BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(
        &mut self,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), Self::Error>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: tonic::codegen::http::Request<tonic::body::Body>) -> Self::Future {
        let tries = self.0.clone();
        Box::pin(async move {
            let body = request.into_body().collect().await.unwrap();
            tries.lock().unwrap().push(body.to_bytes().to_vec());
            Ok(Status::unavailable("as the test wants it").into_http())
        })
    }
}

/// Check that each attempt sends the original bytes, including fields unknown to this version:
/// nothing encodes them again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_is_encoded_once() {
    let (listener, address) = listen(None).await;
    let recorder = Recorder::default();
    let service = recorder.clone();
    let incoming = tonic::transport::server::TcpIncoming::from(listener);
    let task = tokio::spawn(async move {
        let server = tonic::transport::Server::builder().add_service(service);
        server.serve_with_incoming(incoming).await.unwrap();
    });
    let mut message = window(1, 100_000).encode_to_vec();
    // Field 1000, a varint.
    message.extend([0xc0, 0x3e, 7]);
    let sender = Sender::start(options(address)).unwrap();
    sender.push_encoded(1, 5, message.clone().into());
    until(&sender, |stats| stats.retries >= 3).await;
    let mut framed = vec![0];
    framed.extend((message.len() as u32).to_be_bytes());
    framed.extend(message);
    let tries = recorder.0.lock().unwrap().clone();
    assert!(tries.len() >= 3 && tries.iter().all(|bytes| *bytes == framed));
    task.abort();
}

/// Check that reports come at the start, at each change that is one, at each interval and at the end, also after failures; and
/// that a server that does not know them is not asked again soon.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reports_of_the_node() {
    let times = ReporterTimes {
        retry_first: Duration::from_millis(5),
        ..ReporterTimes::default()
    };
    let failing = Act::Refuse(Code::Unavailable);
    let server = Server::new([failing, failing]);
    let (listener, address) = listen(None).await;
    let task = server.serve(listener).await;
    let first = ReportRequest {
        node: "node".into(),
        state: NodeState::Starting.into(),
        ..ReportRequest::default()
    };
    let start =
        |times| Reporter::start(&format!("http://{address}"), first.clone(), times).unwrap();
    let states = || -> Vec<NodeState> {
        let reports = server.reports.lock().unwrap();
        reports.iter().map(ReportRequest::state).collect()
    };
    let wait_for = |count| {
        let states = &states;
        async move {
            let deadline = Instant::now() + DEADLINE;
            while states().len() < count {
                assert!(Instant::now() < deadline, "{:?}", states());
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        }
    };
    let set = |reporter: &Reporter, state: NodeState| {
        reporter.update(|report| report.state = state.into());
    };

    let reporter = start(times);
    wait_for(1).await;
    set(&reporter, NodeState::Starting);
    set(&reporter, NodeState::Sampling);
    wait_for(2).await;
    set(&reporter, NodeState::Stopping);
    let stats = reporter.stats();
    assert_eq!((stats.failed, stats.unknown), (2, 0));
    tokio::task::spawn_blocking(|| drop(reporter))
        .await
        .unwrap();
    let [begin @ .., last] = &states()[..] else {
        panic!("no report")
    };
    assert_eq!(begin[..2], [NodeState::Starting, NodeState::Sampling]);
    assert_eq!(*last, NodeState::Stopping);

    server.reports.lock().unwrap().clear();
    let often = start(ReporterTimes {
        interval: Duration::from_millis(10),
        ..times
    });
    wait_for(4).await;
    tokio::task::spawn_blocking(|| drop(often)).await.unwrap();

    *server.script.lock().unwrap() = [Act::Refuse(Code::Unimplemented)].into();
    server.reports.lock().unwrap().clear();
    let old = start(ReporterTimes {
        interval: Duration::from_millis(10),
        ..times
    });
    let deadline = Instant::now() + DEADLINE;
    while old.stats() == ReporterStats::default() {
        assert!(Instant::now() < deadline, "no report was tried");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    let expected = ReporterStats {
        unknown: 1,
        ..ReporterStats::default()
    };
    assert_eq!(old.stats(), expected);
    tokio::task::spawn_blocking(|| drop(old)).await.unwrap();
    task.abort();
}
