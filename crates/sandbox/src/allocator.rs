//! Settings of glibc's allocator, which it reads at the start of a program and not later.

use std::env;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Environment variables with which it gives memory back to the kernel when it is free again.
///
/// Without these its limits grow to 32 MB with the largest block that was ever freed, and it keeps, for
/// each thread, what large files and full windows took: on a machine that compiles 117 MB of the
/// collector were resident after two minutes, and with them 57 (peak 123 and 69); of a server that was asked
/// for pprof of everything three times 1,080 MB, and with them 555.
pub const LIMITS: [(&str, &str); 3] = [
    ("MALLOC_MMAP_THRESHOLD_", "65536"),
    ("MALLOC_TRIM_THRESHOLD_", "131072"),
    ("MALLOC_ARENA_MAX", "2"),
];

/// Runs this program in the place of itself with [`LIMITS`], unless it has them: the same process, from its beginning. Returns only if
/// nothing is to be done, or if it fails; then the program only takes more memory.
///
/// # Errors
/// The program cannot be run again.
pub fn limit() -> io::Result<()> {
    if env::var_os(LIMITS[0].0).is_some() {
        return Ok(());
    }
    let mut arguments = env::args_os();
    let name = arguments.next().unwrap_or_default();
    let mut again = Command::new(env::current_exe()?);
    Err(again.arg0(name).args(arguments).envs(LIMITS).exec())
}
