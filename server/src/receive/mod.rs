//! Receives profiles, a folder a protocol.
//!
//! In: messages from anybody who can reach the port. Out: checked windows, appended to the store, and an answer when they are
//! durable. A message that is not completely valid changes nothing.
//!
//! [`grpc`] is the protocol of Pilotlight's collectors. What a message is refused for ([`refusal`]), limits on its entries
//! ([`entries`], [`wire`]) and its accounts ([`accounts`]), and reading a profile ([`profile_bytes`], [`pprof`]) do not depend on how it came.

pub mod accounts;
pub mod entries;
pub mod grpc;
pub mod metrics;
pub mod pprof;
pub mod profile_bytes;
pub mod refusal;
pub mod wire;

pub use self::metrics::ReceiveMetrics;
pub use refusal::{Refusal, RefusalReason};
