//! Settings of glibc's allocator, which it reads at the start of a program and not later.

use std::env;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Environment variables and their values.
pub type Limits = [(&'static str, &'static str); 3];

/// For a program that must be small: it gives memory back to the kernel when it is free again.
///
/// Without these its limits grow to 32 MB with the largest block that was ever freed, and it keeps, for each thread, what large files
/// and full windows took: on a machine that compiles 117 MB of the collector were resident after two minutes, and with them 57 (peak
/// 123 and 69).
pub const SMALL: Limits = [
    ("MALLOC_MMAP_THRESHOLD_", "65536"),
    ("MALLOC_TRIM_THRESHOLD_", "131072"),
    ("MALLOC_ARENA_MAX", "2"),
];

/// For a program that works all the time: it uses free blocks of up to 1 MiB again, and keeps at most 4 MiB of free memory at the end of
/// each of its two arenas.
///
/// With [`SMALL`] most tables of a window are new from the kernel, which clears their pages: that was a third of the CPU time of a server
/// that takes generated windows (3.9 us a row, 2.6 with these; peak 123 MiB, and 167). After pprof of everything six times, three of
/// them at once, 49 MB are resident (21 with [`SMALL`]; 182 with 32 and 64 MiB in the place of 1 and 4).
pub const BUSY: Limits = [
    ("MALLOC_MMAP_THRESHOLD_", "1048576"),
    ("MALLOC_TRIM_THRESHOLD_", "4194304"),
    ("MALLOC_ARENA_MAX", "2"),
];

/// Runs this program in the place of itself with some limits, unless it has any: the same process, from its beginning. Returns only if
/// nothing is to be done, or if it fails; then the program only takes more memory.
///
/// # Errors
/// The program cannot be run again.
pub fn limit(limits: Limits) -> io::Result<()> {
    if env::var_os(limits[0].0).is_some() {
        return Ok(());
    }
    let mut arguments = env::args_os();
    let name = arguments.next().unwrap_or_default();
    let mut again = Command::new(env::current_exe()?);
    Err(again.arg0(name).args(arguments).envs(limits).exec())
}
