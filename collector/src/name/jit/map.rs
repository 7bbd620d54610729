//! Perf maps: lines of `START SIZE NAME`, the numbers hexadecimal, which a compiler adds as it goes.
//!
//! Format: the kernel's `tools/perf/Documentation/jit-interface.txt`.

use super::code::Code;

/// Bytes of a line; longer ones are none. Names of 4 KiB are cut anyway.
const LINE_BYTES_MAX: usize = 16 << 10;

/// A perf map as far as it was read.
#[derive(Debug, Default)]
pub struct PerfMap {
    /// What it told of.
    pub code: Code,
    is_in_long_line: bool,
}

impl PerfMap {
    /// Reads the lines that are whole in `bytes`, the file's next ones, and gives how many bytes they take.
    pub fn read(&mut self, bytes: &[u8]) -> usize {
        let mut done = 0;
        while let Some(len) = bytes[done..].iter().position(|byte| *byte == b'\n') {
            let line = &bytes[done..done + len];
            done += len + 1;
            if std::mem::take(&mut self.is_in_long_line) || len > LINE_BYTES_MAX {
                continue;
            }
            if let Some((start, size, name)) = parse_line(line) {
                self.code.add(start, size, name);
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

/// A hexadecimal number, with or without `0x`, and what stands behind the space after it.
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

    fn read(map: &mut PerfMap, text: &[u8]) -> usize {
        map.read(text)
    }

    /// Check that lines are read when they are whole, and others left out.
    #[test]
    fn lines_are_read_when_they_are_whole() {
        let mut map = PerfMap::default();
        let text = b"1000 20 first name\n0x2000 0x10 second\n3000 10 thi";
        assert_eq!(read(&mut map, text), text.len() - 11);
        assert_eq!(map.code.find(0x101f).unwrap().name, b"first name");
        assert_eq!(map.code.find(0x2000).unwrap().name, b"second");
        assert!(map.code.find(0x3000).is_none());
        assert_eq!(read(&mut map, b"3000 10 third\r\n"), 15);
        assert_eq!(map.code.find(0x3000).unwrap().name, b"third");
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
            read(&mut map, format!("{garbage}\n").as_bytes());
        }
        assert_eq!(map.code.len(), 3);
    }

    /// Check that a line without an end is not kept, and that the one behind it is read.
    #[test]
    fn endless_lines_are_left_out() {
        let mut map = PerfMap::default();
        let long = vec![b'1'; LINE_BYTES_MAX + 1];
        assert_eq!(read(&mut map, &long), long.len());
        assert_eq!(read(&mut map, &long), long.len());
        assert_eq!(read(&mut map, b" 1 x\n1000 10 a\n"), 15);
        assert_eq!(map.code.len(), 1);
    }
}
