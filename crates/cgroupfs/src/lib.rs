//! The cgroup file system, v1 and v2, as a process sees it: the path of a process's cgroup, and the memory limit of the
//! own one.
//!
//! - [`find_path`] reads `/proc/PID/cgroup`. It is pure.
//! - [`MemoryLimit::read`] finds the directory of this process's cgroup and reads the limits of it and of all above.
//!
//! A program that starts a child needs the limit: with cgroup v2, kubelet sets `memory.oom.group`, so that the kernel ends all
//! processes of a container when one of them is out of memory. So the program gives its child a smaller limit of its own
//! (RLIMIT_DATA), at which the child ends alone.
//!
//! # What it does not do
//!
//! It does not follow changes: a limit that is raised later counts from the next start on.

mod memory_limit;
mod process_path;

pub use memory_limit::MemoryLimit;
pub use process_path::find_path;
