//! What V8 does in its own way: names of functions of scripts, and where their lines are.

/// What V8's names of functions of scripts begin with, of Node 20 and of older ones.
const KINDS: [&str; 5] = ["JS:", "LazyCompile:", "Function:", "Script:", "Eval:"];

/// V8 adds the size of an ELF header to the addresses of lines, since `perf inject` once put the code right behind one
/// (`LinuxPerfJitLogger::LogWriteDebugInfo`, from 2016 on). Nobody else does.
const LINES_BEHIND: u64 = 64;

/// How far behind its place V8 puts each line of the code at `start` with this name.
pub(super) fn lines_behind(name: &[u8], start: u64, lines: &[(u64, u32, u32)]) -> u64 {
    let is_script = KINDS.iter().any(|kind| name.starts_with(kind.as_bytes()));
    // The first line is the function's own, at its start. Should a V8 come that adds nothing, it says so.
    let is_moved = lines
        .iter()
        .all(|(address, ..)| address.wrapping_sub(start) >= LINES_BEHIND);
    if is_script && is_moved {
        LINES_BEHIND
    } else {
        0
    }
}

/// Splits the names that V8 gives to functions of scripts, `JS:*name file:///a/b.js:12:34`, into function, file and line.
/// `None` where it is not certain which part is which.
pub(super) fn split_script_name(name: &str) -> Option<(&str, &str, u32)> {
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
    // With a slash before it, the path may have a space in it.
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

    /// Check the names that Node 20 and older ones write, and such as could be read in two ways.
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

    /// Check that lines of V8 are moved, and those of others, or such as are in their place, are not.
    #[test]
    fn lines_of_scripts_are_moved() {
        let lines = [(0x1040, 1, 0), (0x1050, 2, 0)];
        for (name, start, expected) in [
            ("JS:*f /a.js:1:2", 0x1000, 64),
            ("f", 0x1000, 0),
            ("JS:*f /a.js:1:2", 0x1001, 0),
            ("JS:*f /a.js:1:2", 0x1040, 0),
        ] {
            assert_eq!(
                lines_behind(name.as_bytes(), start, &lines),
                expected,
                "{name}"
            );
        }
    }
}
