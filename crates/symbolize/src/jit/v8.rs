//! V8's own conventions: names of functions of scripts, and addresses of their lines.

use super::code::Line;

/// Prefixes of names of functions of scripts, in Node 20 and older.
const KINDS: [&str; 5] = ["JS:", "LazyCompile:", "Function:", "Script:", "Eval:"];

/// V8 adds the size of an ELF header to the addresses of lines, since `perf inject` once put the code right after one
/// (`LinuxPerfJitLogger::LogWriteDebugInfo`, since 2016). No other compiler does.
const LINE_OFFSET: u64 = 64;

/// The offset that the compiler added to the addresses of lines of the code at `start`.
pub(super) fn line_offset(name: &[u8], start: u64, lines: &[Line]) -> u64 {
    let is_script = KINDS.iter().any(|kind| name.starts_with(kind.as_bytes()));
    // The first line is that of the function's start, so a V8 that adds nothing is recognized.
    let is_moved = |line: &Line| line.address.wrapping_sub(start) >= LINE_OFFSET;
    if is_script && lines.iter().all(is_moved) {
        LINE_OFFSET
    } else {
        0
    }
}

/// Splits a name of V8, `JS:*name file:///a/b.js:12:34`, into function, file and line. `None` if the parts are ambiguous.
pub fn split_script_name(name: &str) -> Option<(&str, &str, u32)> {
    if !KINDS.iter().any(|kind| name.starts_with(kind)) {
        return None;
    }
    let (function, place) = name.rsplit_once(' ')?;
    let (place, number) = split_number(place)?;
    let (file, line) = match split_number(place) {
        Some((file, line)) => (file, line),
        None => (place, number),
    };
    let is_whole = ["/", "file:", "node:"]
        .iter()
        .any(|start| file.starts_with(start));
    // After a slash, the space may be part of the path.
    (is_whole && !function.contains('/')).then_some((function, file, line))
}

fn split_number(text: &str) -> Option<(&str, u32)> {
    let (before, number) = text.rsplit_once(':')?;
    let is_number = number.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then_some((before, number.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check names of Node 20 and older, and ambiguous ones.
    #[test]
    fn script_names_are_split_where_that_is_certain() {
        for (name, expected) in [
            (
                "JS:*work file:///a/b.mjs:12:34",
                Some(("JS:*work", "file:///a/b.mjs", 12)),
            ),
            (
                "LazyCompile:~f /a/b.js:7",
                Some(("LazyCompile:~f", "/a/b.js", 7)),
            ),
            (
                "JS:~ node:internal/x:3:5",
                Some(("JS:~", "node:internal/x", 3)),
            ),
            ("JS:*get size /a.js:1:2", Some(("JS:*get size", "/a.js", 1))),
            ("JS:*f /a b/c.js:1:2", None),
            ("JS:*f /a /c.js:1:2", None),
            ("JS:*f", None),
            ("JS:*f /a.js", None),
            ("JS:*f /a.js:99999999999", None),
            ("Builtin:X /a.js:1", None),
            ("void f(int) /a.c:1", None),
        ] {
            assert_eq!(split_script_name(name), expected, "{name}");
        }
    }

    /// Check that lines of V8 are moved, but not those of other compilers, or that are in place.
    #[test]
    fn lines_of_scripts_are_moved() {
        let lines = [(0x1040, 1), (0x1050, 2)].map(|(address, line)| Line {
            address,
            line,
            file: 0,
        });
        for (name, start, expected) in [
            ("JS:*f /a.js:1:2", 0x1000, 64),
            ("f", 0x1000, 0),
            ("JS:*f /a.js:1:2", 0x1001, 0),
            ("JS:*f /a.js:1:2", 0x1040, 0),
        ] {
            let offset = line_offset(name.as_bytes(), start, &lines);
            assert_eq!(offset, expected, "{name}");
        }
    }
}
