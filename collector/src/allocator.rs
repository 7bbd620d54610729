//! What glibc's allocator is told, which it reads at the start of a program and not later.

/// Environment variables with which it gives memory back to the kernel when it is free again.
///
/// Without these its limits grow to 32 MB with the largest block that was ever freed, and it keeps, for
/// each thread, what large files and full windows took: on a machine that compiles 117 MB of the
/// collector were resident after two minutes, and with them 57 (peak 123 and 69).
pub const LIMITS: [(&str, &str); 3] = [
    ("MALLOC_MMAP_THRESHOLD_", "65536"),
    ("MALLOC_TRIM_THRESHOLD_", "131072"),
    ("MALLOC_ARENA_MAX", "2"),
];
