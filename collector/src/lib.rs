//! Pilotlight's collector: samples the stacks of all processes of a node, names
//! them, and sends them to a server.
//!
//! The stages, in the order in which a sample goes through them:
//!
//! ```text
//! sample -> process -> locate -> aggregate -> name -> label -> profile -> send
//! ```
//!
//! Each stage makes one type and knows only the type of the stage before it;
//! [`pipeline`] is the one file that knows them all. Samples are never delayed by
//! naming or by the network: those are other threads, behind bounded queues.

pub mod aggregate;
pub mod label;
pub mod locate;
pub mod name;
pub mod process;
pub mod profile;
pub mod sample;
pub mod send;
pub mod unwind;
pub mod upload;

pub mod pipeline;

pub mod accounts;
pub mod allocator;
pub mod clock;
pub mod config;
pub mod metrics;
pub mod metrics_server;
pub mod patience;
pub mod preflight;
pub mod queue;
