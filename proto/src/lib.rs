//! The messages and the service between Pilotlight's collector and its server,
//! generated from `pilotlight/v1/*.proto`; nothing else.
//!
//! Fields are only ever added, so that neighbouring versions understand each other.

#![allow(missing_docs, unreachable_pub, clippy::all, reason = "generated code")]

/// Version 1 of the protocol.
pub mod v1 {
    tonic::include_proto!("pilotlight.v1");
}
