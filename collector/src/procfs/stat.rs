//! `/proc/PID/stat`.
//!
//! Format: proc(5). The process's name is in parentheses and may hold any byte, so that fields are counted from its end.

/// The fields that come after the name.
fn skip_name(stat: &[u8]) -> Option<&[u8]> {
    let end = stat.iter().rposition(|byte| *byte == b')')?;
    stat.get(end + 1..)
}

/// Fields of `/proc/PID/stat`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stat {
    /// Field 4.
    pub(crate) parent: u32,
    /// Field 22, in clock ticks since the machine started.
    pub(crate) start_ticks: u64,
}

impl Stat {
    /// Parses the file's text; `None` if it has another form.
    pub(crate) fn parse(stat: &[u8]) -> Option<Self> {
        let rest = str::from_utf8(skip_name(stat)?).ok()?;
        let mut fields = rest.split_ascii_whitespace();
        Some(Self {
            parent: fields.nth(1)?.parse().ok()?,
            start_ticks: fields.nth(17)?.parse().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that a name with spaces and parentheses does not move the fields of `stat`, and that a short one is refused.
    #[test]
    fn fields_of_stat() {
        let stat = b"7 (a) b 3) S 41 7 7 0 -1 4194560 100 0 0 0 12 3 0 0 20 0 1 0 5678 0 0";
        let expected = Stat {
            parent: 41,
            start_ticks: 5678,
        };
        assert_eq!(Stat::parse(stat), Some(expected));
        assert_eq!(Stat::parse(b"7 (a) S 41 7 7"), None);
        assert_eq!(Stat::parse(b"7 a S 41"), None);
    }
}
