//! Windows -> server, and files with symbols that it asks for.
//!
//! In: one message a window. Out: each either acknowledged by the server or
//! counted as dropped, with its samples. Never blocks the stage before it, and
//! never holds more than its bytes. Files go beside that, from a thread of their own.

mod backoff;
mod link;
mod queue;
mod sender;
mod stats;
mod uploader;

pub use link::SendError;
pub use sender::{Sender, SenderOptions, SenderWatch};
pub use stats::{DropReason, Dropped, SenderStats};
pub use uploader::{UploadEnd, UploadStats, Uploader, UploaderOptions, WantedFiles};
