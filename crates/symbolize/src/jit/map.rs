//! Perf maps: lines of `START SIZE NAME` with hexadecimal numbers, which a compiler appends as it works.
//!
//! Format: the kernel's `tools/perf/Documentation/jit-interface.txt`.

use super::code::Code;

/// Bytes of a line; longer lines are ignored. Names are cut at 4 KiB anyway.
const LINE_BYTES_MAX: usize = 16 << 10;

/// The state between two pieces of a perf map.
#[derive(Debug, Default)]
pub(super) struct PerfMap {
    is_in_long_line: bool,
}

impl PerfMap {
    /// Adds the whole lines in `bytes`, the next ones of the file, to `code`, and returns their number of bytes.
    pub(super) fn read(&mut self, bytes: &[u8], code: &mut Code) -> usize {
        let mut done = 0;
        while let Some(len) = bytes[done..].iter().position(|byte| *byte == b'\n') {
            let line = &bytes[done..done + len];
            done += len + 1;
            if std::mem::take(&mut self.is_in_long_line) || len > LINE_BYTES_MAX {
                continue;
            }
            if let Some((start, size, name)) = parse_line(line) {
                code.add(start, size, name);
            }
        }
        if bytes.len() - done > LINE_BYTES_MAX {
            self.is_in_long_line = true;
            done = bytes.len();
        }
        done
    }
}

fn parse_line(line: &[u8]) -> Option<(u64, u64, &[u8])> {
    let (start, rest) = parse_number(line)?;
    let (size, name) = parse_number(rest)?;
    let name = name.strip_suffix(b"\r").unwrap_or(name);
    (!name.is_empty()).then_some((start, size, name))
}

/// Splits a hexadecimal number, with or without `0x`, and a space from the rest.
fn parse_number(text: &[u8]) -> Option<(u64, &[u8])> {
    let end = text.iter().position(|byte| *byte == b' ')?;
    let digits = &text[..end];
    let digits = digits.strip_prefix(b"0x").unwrap_or(digits);
    let is_number = digits.iter().all(u8::is_ascii_hexdigit);
    let number = u64::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()?;
    is_number.then_some((number, &text[end + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that whole lines are read, and malformed ones ignored.
    #[test]
    fn lines_are_read_when_they_are_whole() {
        let (mut map, mut code) = (PerfMap::default(), Code::default());
        let text = b"1000 20 first name\n0x2000 0x10 second\n3000 10 thi";
        assert_eq!(map.read(text, &mut code), text.len() - 11);
        assert_eq!(code.find(0x101f).unwrap().name, b"first name");
        assert_eq!(code.find(0x2000).unwrap().name, b"second");
        assert!(code.find(0x3000).is_none());
        assert_eq!(map.read(b"3000 10 third\r\n", &mut code), 15);
        assert_eq!(code.find(0x3000).unwrap().name, b"third");
        for garbage in [
            "",
            "x",
            "4000",
            "4000 ",
            "4000 10",
            "4000 10 ",
            "+4000 10 a",
            "g 1 a",
            " 4000 10 a",
            "4000 10000000000000000 a",
            "\u{0}\u{0}",
        ] {
            map.read(format!("{garbage}\n").as_bytes(), &mut code);
        }
        assert_eq!(code.len(), 3);
    }

    /// Check that a line over the limit is ignored, and that the next one is read.
    #[test]
    fn endless_lines_are_left_out() {
        let (mut map, mut code) = (PerfMap::default(), Code::default());
        let long = vec![b'1'; LINE_BYTES_MAX + 1];
        assert_eq!(map.read(&long, &mut code), long.len());
        assert_eq!(map.read(&long, &mut code), long.len());
        assert_eq!(map.read(b" 1 x\n1000 10 a\n", &mut code), 15);
        assert_eq!(code.len(), 1);
    }
}
