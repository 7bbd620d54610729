//! Paths and names, as mappings and processes have them.
//!
//! In: bytes from events and from `/proc`. Out: which kind of file a path stands for, and how it is shown; pure.

use std::sync::Arc;

use super::FileKind;

/// The kind of file behind a mapping's path.
pub(super) fn file_kind(path: &[u8]) -> FileKind {
    match path {
        b"[vdso]" | b"[vdso32]" => FileKind::Vdso,
        // `//anon` in perf's records and nothing in /proc are memory without a
        // file; so are code in the heap or on a stack, and `[anon:NAME]`.
        b"//anon" | b"" => FileKind::Anonymous,
        [b'[', ..] => FileKind::Anonymous,
        // Huge-page text (`/anon_hugepage (deleted)`) and shared anonymous memory.
        _ if path.starts_with(b"/anon_hugepage") || path.starts_with(b"/dev/zero") => {
            FileKind::Anonymous
        }
        // Memory files, too: their contents decide, not their names (see `FileFormat`).
        _ => FileKind::File,
    }
}

/// The path under which a mapping is shown.
pub(super) fn shown_path(kind: FileKind, path: &[u8]) -> &[u8] {
    match kind {
        FileKind::Vdso => b"[vdso]",
        FileKind::Anonymous => b"[anonymous]",
        _ => path.strip_suffix(b" (deleted)").unwrap_or(path),
    }
}

/// A process's name, up to its first zero byte.
pub(super) fn lossy_name(name: &[u8]) -> Arc<str> {
    let end = name
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(name.len());
    String::from_utf8_lossy(&name[..end]).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check what a mapping's name is taken for.
    #[test]
    fn kinds() {
        for (path, kind) in [
            ("/bin/sh", FileKind::File),
            ("/memfd:jit (deleted)", FileKind::File),
            ("/SYSV00000000 (deleted)", FileKind::File),
            ("/dev/zero (deleted)", FileKind::Anonymous),
            ("[vdso]", FileKind::Vdso),
            ("[heap]", FileKind::Anonymous),
            ("", FileKind::Anonymous),
            ("//anon", FileKind::Anonymous),
            ("/anon_hugepage (deleted)", FileKind::Anonymous),
        ] {
            assert_eq!(file_kind(path.as_bytes()), kind, "{path}");
        }
    }
}
