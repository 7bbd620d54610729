//! Runs the parsers of untrusted files in a confined child process of the same program.
//!
//! A parser that meets a hostile file may crash, hang, take all memory, or run the file author's code. In a child process
//! none of this reaches the program: the parent gets an error that names the cause, and starts another child.
//!
//! # Parts
//!
//! - **Start.** A [`ChildProgram`] is the caller's own executable with a hidden first argument, an empty environment and a
//!   process group of its own, so that Ctrl-C in a terminal does not reach it.
//! - **Confinement.** [`Confinement::enter`], called by the child, gives up capabilities, the view of the file system,
//!   memory, descriptors, processor time, core dumps, and the right to gain privileges.
//! - **Frames.** A [`Channel`] carries messages of a bounded size, with descriptors beside them. Neither side trusts the
//!   other: [`decode_message`] decodes a message in postcard's form, whose lists are bounded by [`at_most`].
//! - **Deadline.** [`ChildProcess::ask`] returns when its deadline passes, whatever the child does, and tells a child that
//!   works from one that sleeps on a file system.
//! - **Restart.** A [`RestartingChild`] starts the next child when one failed, at a bounded rate.
//! - **Memory.** [`allocator::limit`] bounds what the allocator of a program or child keeps of free memory.
//! - **One task.** [`OneShot::run`] starts a child for one file and waits until it ends.
//!
//! # The caller must
//!
//! - look at the first argument in `main`, before anything else starts a thread, and become the child there. Capabilities
//!   and `no_new_privs` belong to a thread: a thread that runs already keeps its own;
//! - in the child, open files that need privileges or a path, then enter the confinement, and only then read untrusted bytes;
//! - ask from one thread, which lives as long as the child: the kernel kills the child when the thread that started it ends;
//! - check the contents of decoded messages. Only their size is within limits.
//!
//! # Limits of the crate
//!
//! - It filters no system calls. A child that runs an attacker's code can still open sockets, and fork unless
//!   `RLIMIT_NPROC` binds its user, which it does not for user 0. Its own children are not killed with it.
//! - It does not replace the limit of a control group. Mapped files and the page cache are not counted by the limit on
//!   private memory.
//! - It cannot end a child that waits in the kernel for a dead disk or a dead server. Such a child counts as stuck; with too many
//!   stuck children, no new one is started.
//! - Without `CAP_SYS_CHROOT` the child keeps its view of the file system. [`Confinement::enter`] then returns
//!   [`FileRoot::Everything`], and the caller decides what may still be parsed.
//! - A child that keeps `CAP_DAC_READ_SEARCH` can open other files of a file system of which it has a descriptor
//!   (`open_by_handle_at`).

pub mod allocator;
mod channel;
mod confinement;
mod end;
mod memory;
mod message;
mod one_shot;
mod process;
mod program;
mod restart;

pub use channel::{Channel, FrameError, FrameLimits, Received};
pub use confinement::{Confinement, ConfinementError, FileRoot};
pub use end::EndCause;
pub use memory::ResidentMemory;
pub use message::{MessageError, at_most, decode_message, encode_message, fixed};
pub use one_shot::{Finished, OneShot};
pub use process::{ChildFailure, ChildProcess};
pub use program::ChildProgram;
pub use restart::{RestartLimits, RestartingChild, StartError};
pub use rustix::thread::CapabilitySet;
