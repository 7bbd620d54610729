//! Receives messages of collectors over gRPC: windows, reports of nodes, and files with symbols.

pub mod check;
pub mod health;
pub mod missing_names;
pub mod report;
pub mod service;
pub mod status;
pub mod symbols;
#[cfg(test)]
pub mod test_push;
pub mod unary;

pub use check::{CheckLimits, check_layouts, check_push};
pub use health::report_ingest;
pub use service::{IngestParts, IngestService};
pub use status::correct_status;
pub use symbols::SymbolsService;
pub use unary::{ReceiveLimits, Receiver};
