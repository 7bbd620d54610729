//! Pilotlight's server.
//!
//! Takes the profiles that collectors send, keeps them durably, and answers questions about them: to the page that it
//! carries, to people with a browser or curl, and to `go tool pprof`. Acknowledged profiles survive a kill at any
//! moment. It names frames that the nodes could not name, from files with symbols; it knows nothing of the kernel,
//! and has no state outside its data directory.
//!
//! The program is thin: windows, and reports of nodes, are types of [`model`]; [`store`] keeps them, [`query`] answers
//! questions about them, and [`render`] gives the answers a form. Here, in reading order: [`config`] and [`app`] put it
//! together; [`listen`] takes connections; [`receive`] checks messages and makes windows of them; [`symbol`] keeps indexes of
//! symbols, and names frames; [`serve`] takes questions and sends answers.

pub mod app;
pub mod config;
pub mod descriptors;
pub mod memory;
pub mod metrics;
pub mod receive;
pub mod serve;
pub mod store_command;
pub mod store_state;
pub mod symbol;
