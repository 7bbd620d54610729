//! Lines of `/proc/PID/maps`.
//!
//! Format: proc(5), `start-end perms offset major:minor inode path`. The path may
//! hold any byte but a newline, which the kernel writes as `\012`.

/// One line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapsEntry<'a> {
    /// First address.
    pub start: u64,
    /// First address behind it.
    pub end: u64,
    /// Whether it may be executed.
    pub executable: bool,
    /// Offset in the file.
    pub offset: u64,
    /// Device number, as in `stat`.
    pub device: u64,
    /// Inode number, 0 if there is no file.
    pub inode: u64,
    /// Path, empty if there is none.
    pub path: &'a [u8],
}

/// Parses one line, without its newline; `None` if it has another form.
pub fn parse_maps_line(line: &[u8]) -> Option<MapsEntry<'_>> {
    let (range, rest) = split_word(line)?;
    let (permissions, rest) = split_word(rest)?;
    let (offset, rest) = split_word(rest)?;
    let (device, rest) = split_word(rest)?;
    let (inode, rest) = split_word(rest)?;
    let dash = range.iter().position(|byte| *byte == b'-')?;
    let colon = device.iter().position(|byte| *byte == b':')?;
    Some(MapsEntry {
        start: parse_number(&range[..dash], 16)?,
        end: parse_number(&range[dash + 1..], 16)?,
        executable: *permissions.get(2)? == b'x',
        offset: parse_number(offset, 16)?,
        device: rustix::fs::makedev(
            parse_number(&device[..colon], 16)?.try_into().ok()?,
            parse_number(&device[colon + 1..], 16)?.try_into().ok()?,
        ),
        inode: parse_number(inode, 10)?,
        path: rest.trim_ascii_start(),
    })
}

/// Splits at the first space; a line may end after its last word.
fn split_word(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = line
        .iter()
        .position(|byte| *byte == b' ')
        .unwrap_or(line.len());
    if end == 0 {
        return None;
    }
    Some((&line[..end], line.get(end + 1..).unwrap_or_default()))
}

fn parse_number(text: &[u8], radix: u32) -> Option<u64> {
    if text.first() == Some(&b'+') {
        return None;
    }
    u64::from_str_radix(str::from_utf8(text).ok()?, radix).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check a line of each form that the kernel writes.
    #[test]
    fn lines() {
        let line = b"7f01a000-7f02b000 r-xp 00026000 fd:01 1234                       /usr/lib/x y.so (deleted)";
        let expected = MapsEntry {
            start: 0x7f01_a000,
            end: 0x7f02_b000,
            executable: true,
            offset: 0x26000,
            device: rustix::fs::makedev(0xfd, 1),
            inode: 1234,
            path: b"/usr/lib/x y.so (deleted)",
        };
        assert_eq!(parse_maps_line(line), Some(expected));
        let stack = parse_maps_line(b"7ffc0000-7ffd0000 rw-p 00000000 00:00 0          [stack]");
        assert_eq!(
            stack.map(|entry| (entry.executable, entry.path)),
            Some((false, &b"[stack]"[..]))
        );
        let anonymous = parse_maps_line(b"10000-20000 rwxp 00000000 00:00 0 ");
        assert_eq!(
            anonymous.map(|entry| (entry.executable, entry.path)),
            Some((true, &b""[..]))
        );
    }

    /// Check that a line cut anywhere in its numbers, or nonsense, is refused.
    #[test]
    fn no_lines() {
        let line = b"10000-20000 r-xp 00000000 fd:01 5";
        for len in 0..line.len() - 1 {
            assert_eq!(parse_maps_line(&line[..len]), None, "{len}");
        }
        for line in [
            &b"x-y r-xp 0 0:0 0"[..],
            b"1-2  r-xp 0 0:0 0",
            b"\xff\xff",
            b"1-2 r 0 0:0 0",
        ] {
            assert_eq!(parse_maps_line(line), None);
        }
    }
}
