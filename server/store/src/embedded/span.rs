//! The store's partition of time, and the names of segments.
//!
//! A segment has windows that start in one *span*: an hour, a day or a week. Its file's name says which:
//! `2026-11-30T12.hour.01JXQ….0.seg`. `part` is an hour that may get more segments; several files of one merge have the numbers from 0.

use std::fmt;
use std::str::FromStr;

use model::TimeRange;
use ulid::Ulid;

/// Milliseconds of an hour.
pub const HOUR_MS: i64 = 3_600_000;

/// Milliseconds of a day.
pub const DAY_MS: i64 = 24 * HOUR_MS;

/// Milliseconds of a week.
pub const WEEK_MS: i64 = 7 * DAY_MS;

/// The Unix epoch was a Thursday; weeks begin on Mondays.
const FIRST_MONDAY_MS: i64 = 4 * DAY_MS;

/// How far segments were merged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Level {
    /// Written from a block's log: a part of an hour.
    Part,
    /// An hour.
    Hour,
    /// A day, in UTC.
    Day,
    /// A week from Monday, in UTC.
    Week,
}

impl Level {
    /// All levels.
    pub const ALL: [Self; 4] = [Self::Part, Self::Hour, Self::Day, Self::Week];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Part => "part",
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Week => "week",
        }
    }

    /// The level whose segments are merged to this one.
    pub fn below(self) -> Option<Self> {
        let levels = Self::ALL.into_iter().zip(Self::ALL.into_iter().skip(1));
        let mut found = levels.filter(|(_, above)| *above == self);
        found.next().map(|(below, _)| below)
    }

    /// Length of its spans in milliseconds.
    pub fn span_ms(self) -> i64 {
        match self {
            Self::Part | Self::Hour => HOUR_MS,
            Self::Day => DAY_MS,
            Self::Week => WEEK_MS,
        }
    }

    /// The span that a moment is in.
    pub fn span_of(self, ms: i64) -> Span {
        let first_ms = if self == Self::Week {
            FIRST_MONDAY_MS
        } else {
            0
        };
        let since = ms.saturating_sub(first_ms).rem_euclid(self.span_ms());
        Span {
            level: self,
            start_ms: ms.saturating_sub(since),
        }
    }
}

impl FromStr for Level {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        let found = Self::ALL.into_iter().find(|level| level.name() == name);
        found.ok_or(())
    }
}

/// A span of time. Ordered by level, then by time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Span {
    /// Its level.
    pub level: Level,
    /// Its first millisecond since the Unix epoch.
    pub start_ms: i64,
}

impl Span {
    /// The first millisecond after it.
    pub fn end_ms(self) -> i64 {
        self.start_ms.saturating_add(self.level.span_ms())
    }

    /// Its time.
    pub fn range(self) -> TimeRange {
        TimeRange {
            from_ms: self.start_ms,
            to_ms: self.end_ms(),
        }
    }

    /// Whether it overlaps a range.
    pub fn touches(self, range: TimeRange) -> bool {
        self.start_ms < range.to_ms && range.from_ms < self.end_ms()
    }
}

/// As in a file's name: `2026-11-30T12`, in UTC.
impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_millisecond(self.start_ms) {
            Ok(start) => write!(f, "{}", start.strftime(START_FORMAT)),
            // Checked windows start between 2020 and now.
            Err(_) => write!(f, "{}", self.start_ms),
        }
    }
}

const START_FORMAT: &str = "%Y-%m-%dT%H";

/// Name of a segment's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SegmentName {
    /// The time of its windows.
    pub span: Span,
    /// The merge that wrote it, or the log that it was written from.
    pub id: Ulid,
    /// Its number among the files of that.
    pub number: u32,
}

impl fmt::Display for SegmentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { span, id, number } = self;
        write!(f, "{span}.{}.{id}.{number}.seg", span.level.name())
    }
}

impl SegmentName {
    /// Reads a file's name; `None` if it is another file's.
    pub fn parse(name: &str) -> Option<Self> {
        let mut fields = name.strip_suffix(".seg")?.split('.');
        let (start, level) = (fields.next()?, fields.next()?.parse::<Level>().ok()?);
        let id = Ulid::from_string(fields.next()?).ok()?;
        let number = fields.next()?.parse().ok()?;
        if fields.next().is_some() {
            return None;
        }
        let start_ms = parse_start(start)?;
        let span = level.span_of(start_ms);
        (span.start_ms == start_ms).then_some(Self { span, id, number })
    }
}

/// Reads the time in a file's name.
pub fn parse_start(text: &str) -> Option<i64> {
    let start = jiff::civil::DateTime::strptime(START_FORMAT, text).ok()?;
    let start = start.to_zoned(jiff::tz::TimeZone::UTC).ok()?;
    Some(start.timestamp().as_millisecond())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MONDAY_MS: i64 = 1_795_996_800_000;

    #[test]
    fn spans_contain_their_moments() {
        let moment_ms = MONDAY_MS + 2 * DAY_MS + 5 * HOUR_MS + 7;
        let starts = Level::ALL.map(|level| {
            let span = level.span_of(moment_ms);
            assert!(span.range().contains(moment_ms) && !span.range().contains(span.end_ms()));
            assert_eq!(level.span_of(span.end_ms() - 1), span);
            assert_ne!(level.span_of(span.end_ms()), span);
            span.to_string()
        });
        assert_eq!(
            starts,
            [
                "2026-12-02T05",
                "2026-12-02T05",
                "2026-12-02T00",
                "2026-11-30T00"
            ]
        );
        assert_eq!(Level::Hour.span_of(-1).start_ms, -HOUR_MS);
        let hour = Level::Hour.span_of(MONDAY_MS);
        let range = |from_ms, to_ms| TimeRange { from_ms, to_ms };
        assert!(hour.touches(range(hour.end_ms() - 1, i64::MAX)));
        assert!(!hour.touches(range(hour.end_ms(), i64::MAX)));
        assert!(!hour.touches(range(0, hour.start_ms)));
    }

    #[test]
    fn names_are_read_back() {
        for level in Level::ALL {
            let name = SegmentName {
                span: level.span_of(MONDAY_MS + 3 * HOUR_MS),
                id: Ulid::new(),
                number: 12,
            };
            assert_eq!(SegmentName::parse(&name.to_string()), Some(name));
        }
        for other in [
            "",
            "lock",
            "2026-11-30T01.day.01ARZ3NDEKTSV4RRFFQ69G5FAV.0.seg",
            "2026-11-30T01.hour.01ARZ3NDEKTSV4RRFFQ69G5FAV.0.seg.tmp",
            "2026-11-30T01.hour.01ARZ3NDEKTSV4RRFFQ69G5FAV.0.1.seg",
            "2026-11-31T01.hour.01ARZ3NDEKTSV4RRFFQ69G5FAV.0.seg",
            "2026-11-30T01.month.01ARZ3NDEKTSV4RRFFQ69G5FAV.0.seg",
        ] {
            assert_eq!(SegmentName::parse(other), None, "{other}");
        }
    }
}
