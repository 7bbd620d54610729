//! Pilotlight's server.
//!
//! Takes the profiles that collectors send, keeps them durably, and answers questions about them: to the page that
//! it carries, to people with a browser or curl, and to `go tool pprof`. What it acknowledges survives a kill at any
//! moment. It names what the nodes could not, from files with symbols that it was given; it knows nothing of the kernel,
//! and has no state outside its data directory.
//!
//! In reading order: [`config`] and [`app`] put it together; [`receive`] checks messages and makes windows of them
//! ([`profile`]); [`store`] keeps windows, [`symbol`] what there is to name addresses with; [`query`] reads them;
//! [`render`] and [`http`] give the answers their form.

#[cfg(test)]
extern crate self as server;

pub mod app;
pub mod config;
pub mod http;
pub mod metrics;
pub mod profile;
pub mod query;
pub mod receive;
pub mod render;
pub mod store;
pub mod symbol;
