//! A message that is encoded already, over gRPC.
//!
//! The generated client takes a message, so that each try would decode the bytes of the queue and encode them again.

use std::marker::PhantomData;

use prost::bytes::{BufMut as _, Bytes};
use proto::v1::PushResponse;
use tonic::client::Grpc;
use tonic::codec::{BufferSettings, Codec, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};
use tonic_prost::{ProstCodec, ProstDecoder};

/// `rpc Push` of `service Ingest`.
const PUSH_PATH: &str = "/pilotlight.v1.Ingest/Push";

/// Pushes an encoded `PushRequest`.
pub(super) async fn push_encoded(
    channel: Channel,
    message: Bytes,
) -> Result<Response<PushResponse>, Status> {
    let mut client = Grpc::new(channel);
    let ready = client.ready().await;
    ready.map_err(|err| Status::from_error(err.into()))?;
    let path = PathAndQuery::from_static(PUSH_PATH);
    client
        .unary(Request::new(message), path, EncodedCodec::default())
        .await
}

/// Passes the bytes of a request on as they are, and decodes its answer.
struct EncodedCodec<T>(PhantomData<T>);

impl<T> Default for EncodedCodec<T> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T: prost::Message + Default + Send + 'static> Codec for EncodedCodec<T> {
    type Encode = Bytes;
    type Decode = T;
    type Encoder = BytesEncoder;
    type Decoder = ProstDecoder<T>;

    fn encoder(&mut self) -> BytesEncoder {
        BytesEncoder
    }

    fn decoder(&mut self) -> ProstDecoder<T> {
        ProstCodec::<T, T>::raw_decoder(BufferSettings::default())
    }
}

struct BytesEncoder;

impl Encoder for BytesEncoder {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.reserve(message.len());
        buffer.put(message);
        Ok(())
    }
}
