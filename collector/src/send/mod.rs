//! Windows -> server.
//!
//! In: one message a window. Out: each either acknowledged by the server or
//! counted as dropped, with its samples. Never blocks the stage before it, and
//! never holds more than its bytes.

mod backoff;
mod queue;
mod sender;
mod stats;

pub use sender::{SendError, Sender, SenderOptions, SenderWatch};
pub use stats::{DropReason, Dropped, SenderStats};
