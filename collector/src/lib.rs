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
//! only [`pipeline`] knows all stages. Neither naming nor the network delays
//! sampling: they run on other threads, behind bounded queues.

pub mod aggregate;
pub mod cgroup;
pub mod file;
pub mod kubernetes;
pub mod label;
pub mod locate;
pub mod name;
pub mod process;
pub mod procfs;
pub mod profile;
pub mod sample;
pub mod send;
pub mod unwind;
pub mod upload;

pub mod pipeline;

pub mod accounts;
pub mod blocking_pool;
pub mod capability;
pub mod clock;
pub mod config;
pub mod hand_over;
pub mod health;
pub mod memory;
pub mod metrics;
pub mod metrics_server;
pub mod node_report;
pub mod policy;
pub mod preflight;
mod private_folder;
pub mod probe;
pub mod queue;
pub mod readiness;
pub mod threads;
