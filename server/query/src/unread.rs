//! Windows that an answer lacks, in words.

use jiff::Timestamp;
use model::Unread;

/// One line, for answers that are no JSON.
pub fn describe(unread: &Unread) -> String {
    let time = |ms: i64| Timestamp::from_millisecond(ms).map_or(ms.to_string(), |t| t.to_string());
    let Unread {
        range,
        windows,
        samples,
        reason,
        ..
    } = unread;
    let (from, to) = (time(range.from_ms), time(range.to_ms));
    format!(
        "incomplete: {windows} windows between {from} and {to} could not be read, with {samples} known samples: {reason}"
    )
}

#[cfg(test)]
mod tests {
    use model::TimeRange;

    use super::*;

    #[test]
    fn a_line_tells_when_and_why() {
        let unread = Unread {
            range: TimeRange {
                from_ms: 1_795_312_800_000,
                to_ms: i64::MAX,
            },
            windows: 3,
            samples: 7,
            ns: 70,
            reason: "the record is cut".into(),
        };
        assert_eq!(
            describe(&unread),
            "incomplete: 3 windows between 2026-11-22T02:00:00Z and 9223372036854775807 could not be read, with 7 known samples: the record is cut"
        );
    }
}
