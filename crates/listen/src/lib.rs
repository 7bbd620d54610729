//! Listeners: accept connections, limit their number and the time for which a client may keep an
//! idle one, and check the host name of requests.
//!
//! [`HttpServer`] serves a listener and its routes within [`ConnectionLimits`], over HTTP/1 or
//! HTTP/2, and counts each connection that it closes in [`ListenMetrics`]. Both programs use it for
//! all of their listeners: for browsers, collectors and probes. It looks only at the host name of a
//! request.
//!
//! The caller chooses the limits and the names, registers the metrics, and completes the future
//! that stops the server.

pub mod connections;
pub mod hosts;
pub mod metrics;
pub mod refusals;
pub mod slots;

pub use connections::{ConnectionLimits, HttpServer, Protocol};
pub use hosts::Hosts;
pub use metrics::ListenMetrics;
