//! Broken and hostile senders over gRPC: they get a clear status, and change nothing.

#![allow(clippy::unwrap_used, reason = "a test")]

mod running;
#[path = "../src/receive/grpc/test_push.rs"]
mod test_push;

use bytes::{Buf, BufMut};
use model::text::window_at;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use running::Running;
use std::sync::LazyLock;
use test_push::push_request;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

/// Sends and receives messages as raw bytes.
#[derive(Clone, Copy, Default)]
struct RawCodec;

impl Codec for RawCodec {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for RawCodec {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put_slice(&item);
        Ok(())
    }
}

impl Decoder for RawCodec {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        let mut bytes = vec![0; buffer.remaining()];
        buffer.copy_to_slice(&mut bytes);
        Ok(Some(bytes))
    }
}

async fn connect(server: &Running) -> Grpc<Channel> {
    Grpc::new(
        Endpoint::new(format!("http://{}", server.grpc))
            .unwrap()
            .connect()
            .await
            .unwrap(),
    )
}

async fn push_raw(client: &mut Grpc<Channel>, message: Vec<u8>) -> Result<Vec<u8>, Status> {
    client
        .ready()
        .await
        .map_err(|err| Status::unavailable(err.to_string()))?;
    let path = PathAndQuery::from_static("/pilotlight.v1.Ingest/Push");
    Ok(client
        .unary(Request::new(message), path, RawCodec)
        .await?
        .into_inner())
}

fn encode(request: &proto::v1::PushRequest) -> Vec<u8> {
    prost::Message::encode_to_vec(request)
}

fn valid(sequence: u64) -> proto::v1::PushRequest {
    static START_MS: LazyLock<i64> =
        LazyLock::new(|| server::serve::http::routes::now_ms() - 20_000);
    push_request(&window_at(
        "comm=a,node=a | main work | 3 | thread=x\ncomm=b,node=a | main | 1",
        *START_MS,
        sequence,
    ))
}

async fn stored_windows(server: &Running) -> u64 {
    let nodes = server.json("/api/v1/nodes?from=0&to=now%2B1d").await;
    nodes["nodes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|node| node["windows"].as_u64().unwrap())
        .sum()
}

/// Check that truncated, changed and random messages are refused, and that the server accepts a valid message after
/// all of them.
#[tokio::test(flavor = "multi_thread")]
async fn broken_messages_change_nothing() {
    let server = Running::start().await;
    let mut client = connect(&server).await;
    let whole = encode(&valid(1));
    let mut refused = 0;
    for end in (0..whole.len()).step_by(7) {
        let status = push_raw(&mut client, whole[..end].to_vec())
            .await
            .unwrap_err();
        assert_eq!(
            status.code(),
            Code::InvalidArgument,
            "cut at {end}: {status}"
        );
        refused += 1;
    }
    let mut random = StdRng::seed_from_u64(1);
    for _ in 0..300 {
        let length = random.random_range(0..600);
        let bytes: Vec<u8> = (0..length).map(|_| random.random()).collect();
        let status = push_raw(&mut client, bytes).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        refused += 1;
    }
    assert_eq!(stored_windows(&server).await, 0);
    // A changed byte may give another valid message, of another node or number; it must not do worse.
    let mut taken = 0;
    for at in 0..whole.len() {
        let mut changed = whole.clone();
        changed[at] ^= 1 << random.random_range(0..8);
        match push_raw(&mut client, changed).await {
            Ok(_) => taken += 1,
            Err(status) => {
                assert_eq!(
                    status.code(),
                    Code::InvalidArgument,
                    "changed at {at}: {status}"
                );
                refused += 1;
            }
        }
    }
    assert!(refused > taken, "{refused} refused, {taken} taken");
    assert!(stored_windows(&server).await <= taken);
    assert!(!server.push(valid(1_000_000)).await.unwrap().duplicate);
    assert_eq!(server.get("/readyz").await.status, 200);
    let metrics = server.get("/metrics").await.text();
    let malformed = metrics.lines().find_map(|line| {
        line.strip_prefix("pilotlight_server_windows_refused_total{reason=\"malformed\"} ")
    });
    assert!(malformed.is_some_and(|count| count != "0"), "{metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_are_too_large_are_refused() {
    let server =
        Running::start_with(&["--message-bytes-max=64KiB", "--profile-bytes-max=64KiB"]).await;
    let mut large = valid(1);
    large.profile_zstd = vec![0; 128 << 10].into();
    let status = server.push(large).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    // A small message that decompresses to a large profile.
    let mut bomb = valid(1);
    bomb.profile_zstd = zstd::encode_all(&*vec![0; 8 << 20], 19).unwrap().into();
    for stated in [8 << 20, u64::MAX] {
        bomb.profile_bytes = stated;
        let status = server.push(bomb.clone()).await.unwrap_err();
        assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
        assert!(status.message().contains("at most 65536"), "{status}");
    }
    bomb.profile_bytes = 64 << 10;
    let status = server.push(bomb).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    assert_eq!(stored_windows(&server).await, 0);
    server.push(valid(1)).await.unwrap();
    let metrics = server.get("/metrics").await.text();
    assert!(
        metrics.contains("windows_refused_total{reason=\"too_large\"} 3"),
        "{metrics}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn many_senders_of_the_same_message_store_it_once() {
    let server = Running::start().await;
    let request = valid(1);
    let pushes: Vec<_> = (0..64)
        .map(|_| {
            let (grpc, request) = (server.grpc, request.clone());
            tokio::spawn(async move {
                running::connect(grpc)
                    .await
                    .unwrap()
                    .push(request)
                    .await
                    .unwrap()
                    .into_inner()
            })
        })
        .collect();
    let mut first = 0;
    for push in pushes {
        first += u32::from(!push.await.unwrap().duplicate);
    }
    assert_eq!(first, 1);
    assert_eq!(stored_windows(&server).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_health_service_answers() {
    let server = Running::start().await;
    let channel = Endpoint::new(format!("http://{}", server.grpc))
        .unwrap()
        .connect()
        .await
        .unwrap();
    let mut client = tonic_health::pb::health_client::HealthClient::new(channel);
    for service in ["", "pilotlight.v1.Ingest"] {
        let request = tonic_health::pb::HealthCheckRequest {
            service: service.into(),
        };
        let answer = client.check(request).await.unwrap().into_inner();
        assert_eq!(answer.status, 1, "{service:?} is serving");
    }
}
