//! Corrects statuses that the gRPC library chooses before the service sees a message.

use tonic::Code;
use tonic::codegen::http::{HeaderValue, Response};

use crate::receive::metrics::ReceiveMetrics;

const GRPC_STATUS: &str = "grpc-status";

/// Corrects the status of an answer, and counts the refusal.
///
/// The library answers `OUT_OF_RANGE` for a message above its limit and `INTERNAL` for an invalid protobuf; the
/// service itself never uses these.
pub fn correct_status<B>(mut response: Response<B>, metrics: &ReceiveMetrics) -> Response<B> {
    let given = response
        .headers()
        .get(GRPC_STATUS)
        .map(|status| Code::from_bytes(status.as_bytes()));
    let (code, reason) = match given {
        Some(Code::OutOfRange) => (Code::ResourceExhausted, "too_large"),
        Some(Code::Internal) => (Code::InvalidArgument, "malformed"),
        _ => return response,
    };
    metrics.count_refused(reason);
    response
        .headers_mut()
        .insert(GRPC_STATUS, HeaderValue::from(code as i32));
    response
}
