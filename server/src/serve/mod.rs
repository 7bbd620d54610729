//! Answers questions, a folder a protocol.

pub mod http;
