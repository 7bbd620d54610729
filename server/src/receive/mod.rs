//! Takes what collectors send.
//!
//! In: gRPC messages of anybody who can reach the port. Out: checked windows, appended to the store, and an
//! answer when they are durable. Never changes anything for a message that is not valid as a whole.

pub mod check;
pub mod lacking;
pub mod pprof;
pub mod refusal;
pub mod service;
pub mod status;
pub mod symbols;

pub use check::{CheckLimits, check_layouts, check_push};
pub use refusal::{Refusal, RefusalReason};
pub use service::{IngestParts, IngestService};
pub use status::correct_status;
pub use symbols::SymbolsService;
