//! Windows -> server, the node's reports, and files with symbols that the server asks for.
//!
//! In: one message a window. Out: each either acknowledged by the server or
//! counted as dropped, with its samples. Never blocks the stage before it, and
//! never holds more than its bytes. Reports and files go beside that, each from a thread of its own.

mod backoff;
mod encoded;
mod instance;
mod link;
mod pending_uploads;
mod queue;
mod reporter;
mod sender;
mod stats;
mod uploader;

pub use instance::draw_instance;
pub use link::SendError;
pub use pending_uploads::PendingUploads;
pub use reporter::{Reporter, ReporterStats, ReporterTimes};
pub use sender::{Sender, SenderOptions, SenderWatch};
pub use stats::{DropReason, Dropped, SenderStats};
pub use uploader::{UploadEnd, UploadStats, Uploader, UploaderOptions};
