//! Which segments are merged, rolled up and evicted, and when. Pure.
//!
//! The cost of a question is the number of its segments times their nodes, so segments are merged from parts to hours, days and weeks.
//! A merge takes all segments of a span. Segments that come later (of collectors that were cut off) are merged into it again.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use segment::Addresses;

use super::span::{HOUR_MS, Level, SegmentName, Span};
use crate::{RollUp, RollUpAddresses};

/// Parts of an hour that has not ended, or hours of a day, that are merged at once: a question about now reads at most so many of
/// each. An hour's parts are written 24 times in place of 12. That costs as much CPU time as to merge them once: 0.1 us a row of a
/// cluster, and 3 us a row of machines that build.
const EARLY_INPUTS: usize = 4;

/// Milliseconds that a span is left alone after its end, for late windows: a tenth of the span, at least this.
const SETTLE_MS_MIN: i64 = 10 * 60 * 1000;

/// A day or a week may have so much of `retention_bytes`: eviction takes whole segments.
const SPAN_SHARE: u64 = 16;

/// Facts of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentFacts {
    /// Its name.
    pub name: SegmentName,
    /// Length of its file.
    pub bytes: u64,
    /// End of its last window.
    pub end_ms: i64,
    /// To what length its windows were rolled up, in milliseconds; 0 if they were not.
    pub resolution_ms: u64,
    /// Whether its locations have their addresses.
    pub addresses: Addresses,
}

/// Limits of the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Milliseconds that windows are kept after their end; `None` if age does not matter.
    pub age_ms: Option<i64>,
    /// Bytes of all files; `None` if there is no limit.
    pub bytes_max: Option<u64>,
    /// By age, the youngest first.
    pub roll_ups: Vec<RollUp>,
    /// Of windows that are rolled up.
    pub roll_up_addresses: RollUpAddresses,
}

/// Segments to be replaced by their merge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Merge {
    /// The time of the new ones.
    pub span: Span,
    /// The old ones, sorted.
    pub inputs: Vec<SegmentName>,
    /// Length of the new windows, in milliseconds; 0 if they are not rolled up.
    pub resolution_ms: u64,
}

impl Retention {
    /// The length of windows of a span, in milliseconds.
    fn resolution_ms(&self, span: Span, now_ms: i64) -> u64 {
        let age_ms = now_ms.saturating_sub(span.end_ms());
        let due = self.roll_ups.iter().filter(|rule| age_ms >= rule.after_ms);
        due.map(|rule| rule.resolution_ms).max().unwrap_or(0)
    }
}

/// The merge that is due, the one of the shortest span first. `is_open` says whether windows of a span are in a block that is not
/// written yet.
pub fn plan_merge(
    segments: &[SegmentFacts],
    is_open: impl Fn(Span) -> bool,
    retention: &Retention,
    now_ms: i64,
) -> Option<Merge> {
    [Level::Hour, Level::Day, Level::Week]
        .into_iter()
        .find_map(|level| plan_level(level, segments, &is_open, retention, now_ms))
}

fn plan_level(
    level: Level,
    segments: &[SegmentFacts],
    is_open: &impl Fn(Span) -> bool,
    retention: &Retention,
    now_ms: i64,
) -> Option<Merge> {
    let mut spans: BTreeMap<Span, Vec<&SegmentFacts>> = BTreeMap::new();
    for segment in segments {
        if segment.name.span.level <= level {
            let span = level.span_of(segment.name.span.start_ms);
            spans.entry(span).or_default().push(segment);
        }
    }
    spans.into_iter().find_map(|(span, segments)| {
        let lower = segments
            .iter()
            .filter(|segment| segment.name.span.level < level);
        let lower = lower.count();
        let below = count_merges(&segments, level.below());
        let settle_ms = (level.span_ms() / 10).max(SETTLE_MS_MIN);
        let has_settled = now_ms >= span.end_ms().saturating_add(settle_ms) && !is_open(span);
        let is_early = level != Level::Week && below >= EARLY_INPUTS;
        let bytes: u64 = segments.iter().map(|segment| segment.bytes).sum();
        let bytes_max = retention.bytes_max.map_or(u64::MAX, |max| max / SPAN_SHARE);
        let may_grow = level == Level::Hour || bytes <= bytes_max;
        let is_merged = lower > 0 && may_grow && (has_settled || is_early);

        // Only whole spans are rolled up: a window that comes later must find its place.
        let due_ms = if has_settled {
            retention.resolution_ms(span, now_ms)
        } else {
            0
        };
        let resolution = segments.iter().map(|segment| segment.resolution_ms);
        let is_rolled_up = lower == 0 && resolution.clone().any(|own_ms| own_ms < due_ms);
        (is_merged || is_rolled_up).then(|| {
            let names = segments.iter().map(|found| found.name);
            // Parts of an hour that goes on are merged to it first.
            let is_input = |name: &SegmentName| {
                has_settled || level.below().is_none_or(|below| name.span.level >= below)
            };
            let mut inputs: Vec<SegmentName> = names.filter(is_input).collect();
            inputs.sort_unstable();
            Merge {
                span,
                inputs,
                // Rolled-up windows stay so, and later ones get the same length.
                resolution_ms: due_ms.max(resolution.max().unwrap_or(0)),
            }
        })
    })
}

/// Merges that wrote the segments of a level. Segments of one merge count once: they are of different programs, so that a question
/// reads no less after another merge.
fn count_merges(segments: &[&SegmentFacts], level: Option<Level>) -> usize {
    let names = segments.iter().map(|segment| segment.name);
    let names = names.filter(|name| Some(name.span.level) == level);
    let merges: BTreeSet<_> = names.map(|name| (name.span, name.id)).collect();
    merges.len()
}

/// Rolled-up segments of which addresses are to be dropped: all of one merge, sorted. Each is rewritten alone.
pub fn plan_address_drop(
    segments: &[SegmentFacts],
    retention: &Retention,
) -> Option<Vec<SegmentName>> {
    if retention.roll_up_addresses == RollUpAddresses::Keep {
        return None;
    }
    let is_due = |segment: &&SegmentFacts| {
        segment.resolution_ms > 0 && segment.addresses != Addresses::Dropped
    };
    let due = segments.iter().find(is_due)?.name;
    let names = segments.iter().map(|segment| segment.name);
    let same = names.filter(|name| (name.span, name.id) == (due.span, due.id));
    let mut same: Vec<SegmentName> = same.collect();
    same.sort_unstable();
    Some(same)
}

/// Files that are evicted together.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Evictable {
    /// End of their last window, milliseconds since the Unix epoch.
    pub end_ms: i64,
    /// Their bytes.
    pub bytes: u64,
    /// Their paths, relative to the folder of profiles.
    pub paths: Vec<PathBuf>,
}

/// The files that are evicted: those that are too old, and the oldest if all take too many bytes. `log_bytes` is what the logs take.
pub fn plan_eviction(
    mut files: Vec<Evictable>,
    log_bytes: u64,
    retention: &Retention,
    now_ms: i64,
) -> BTreeSet<PathBuf> {
    files.sort_unstable();
    let mut bytes = log_bytes;
    for file in &files {
        bytes = bytes.saturating_add(file.bytes);
    }
    let mut evicted = BTreeSet::new();
    for file in files {
        let age_ms = now_ms.saturating_sub(file.end_ms);
        let is_old = retention.age_ms.is_some_and(|max_ms| age_ms > max_ms);
        if is_old || retention.bytes_max.is_some_and(|max| bytes > max) {
            bytes = bytes.saturating_sub(file.bytes);
            evicted.extend(file.paths);
        }
    }
    evicted
}

/// The start of the hour in which a window starts.
pub fn hour_of(start_ms: i64) -> i64 {
    start_ms.div_euclid(HOUR_MS).saturating_mul(HOUR_MS)
}

#[cfg(test)]
mod tests {
    use ulid::Ulid;

    use super::*;
    use crate::embedded::span::{DAY_MS, WEEK_MS};

    const MONDAY_MS: i64 = 1_795_996_800_000;

    fn keep_all() -> Retention {
        Retention {
            age_ms: None,
            bytes_max: None,
            roll_ups: vec![
                RollUp {
                    after_ms: DAY_MS,
                    resolution_ms: 60_000,
                },
                RollUp {
                    after_ms: WEEK_MS,
                    resolution_ms: 600_000,
                },
            ],
            roll_up_addresses: RollUpAddresses::Keep,
        }
    }

    fn segment(level: Level, start_ms: i64) -> SegmentFacts {
        let span = level.span_of(start_ms);
        SegmentFacts {
            name: SegmentName {
                span,
                id: Ulid::new(),
                number: 0,
            },
            bytes: 100,
            end_ms: span.end_ms(),
            resolution_ms: 0,
            addresses: Addresses::Kept,
        }
    }

    /// Runs merges as they fall due, of windows that are written every five minutes for some days. Returns the most segments that there
    /// were at once, and the last ones.
    fn run(days: i64, retention: &Retention) -> (usize, Vec<SegmentFacts>) {
        let (mut segments, mut most) = (Vec::new(), 0);
        for minute in 0..days * 24 * 60 {
            let now_ms = MONDAY_MS + minute * 60_000;
            if minute % 5 == 4 {
                segments.push(segment(Level::Part, now_ms));
            }
            let open = |span: Span| span.range().contains(now_ms);
            let merge = plan_merge(&segments, open, retention, now_ms);
            if let Some(merge) = merge {
                let is_input = |segment: &SegmentFacts| merge.inputs.contains(&segment.name);
                let bytes = segments.iter().filter(|segment| is_input(segment));
                let bytes = bytes.map(|segment| segment.bytes).sum();
                segments.retain(|segment| !is_input(segment));
                segments.push(SegmentFacts {
                    bytes,
                    resolution_ms: merge.resolution_ms,
                    addresses: Addresses::Kept,
                    ..segment(merge.span.level, merge.span.start_ms)
                });
            }
            let path = |segment: &SegmentFacts| PathBuf::from(segment.name.to_string());
            let files = segments.iter().map(|segment| Evictable {
                end_ms: segment.end_ms,
                bytes: segment.bytes,
                paths: vec![path(segment)],
            });
            let evicted = plan_eviction(files.collect(), 0, retention, now_ms);
            segments.retain(|segment| !evicted.contains(&path(segment)));
            most = most.max(segments.len());
        }
        (most, segments)
    }

    /// Check that a month is in few segments, that nothing is left out, and that old windows are rolled up.
    #[test]
    fn a_month_is_in_few_segments() {
        let (most, segments) = run(31, &keep_all());
        assert!(most < 30, "{most}");
        let bytes: u64 = segments.iter().map(|segment| segment.bytes).sum();
        assert_eq!(bytes, 31 * 24 * 12 * 100);
        let now_ms = MONDAY_MS + 31 * DAY_MS;
        for segment in &segments {
            let age_ms = now_ms - segment.name.span.end_ms();
            let least_ms = match age_ms {
                0..=DAY_MS => 0,
                ..=WEEK_MS => 60_000,
                _ => 600_000,
            };
            assert!(segment.resolution_ms >= least_ms, "{segment:?}");
        }
        let weeks = segments
            .iter()
            .filter(|found| found.name.span.level == Level::Week);
        assert_eq!(weeks.count(), 4);
    }

    /// Check that eviction keeps to the limits, takes the oldest first, and that a merged span is a small part of the limit.
    #[test]
    fn old_segments_are_evicted() {
        let by_age = Retention {
            age_ms: Some(3 * DAY_MS),
            ..keep_all()
        };
        let (_, segments) = run(9, &by_age);
        let now_ms = MONDAY_MS + 9 * DAY_MS;
        let oldest = segments.iter().map(|segment| segment.end_ms).min();
        assert!(oldest.is_some_and(|end_ms| now_ms - end_ms <= 3 * DAY_MS));

        let bytes_max = 100 * 12 * 24 * 3;
        let by_bytes = Retention {
            bytes_max: Some(bytes_max),
            ..keep_all()
        };
        let (_, segments) = run(9, &by_bytes);
        let bytes: u64 = segments.iter().map(|segment| segment.bytes).sum();
        assert!((bytes_max * 7 / 8..=bytes_max).contains(&bytes), "{bytes}");
    }

    /// Check that addresses are dropped of rolled-up segments, of all that one merge wrote together, once, and only if that is asked for.
    #[test]
    fn addresses_are_dropped_after_a_roll_up() {
        let fresh = segment(Level::Day, MONDAY_MS);
        let rolled = SegmentFacts {
            resolution_ms: 60_000,
            addresses: Addresses::PartlyDropped,
            ..segment(Level::Day, MONDAY_MS + DAY_MS)
        };
        let other_part = SegmentFacts {
            name: SegmentName {
                number: 1,
                ..rolled.name
            },
            addresses: Addresses::Dropped,
            ..rolled
        };
        let done = SegmentFacts {
            addresses: Addresses::Dropped,
            resolution_ms: 60_000,
            ..segment(Level::Day, MONDAY_MS + 2 * DAY_MS)
        };
        let drop = Retention {
            roll_up_addresses: RollUpAddresses::Drop,
            ..keep_all()
        };
        let all = [done, other_part, fresh, rolled];
        assert_eq!(plan_address_drop(&all, &keep_all()), None);
        let due = vec![rolled.name, other_part.name];
        assert_eq!(plan_address_drop(&all, &drop), Some(due));
        assert_eq!(plan_address_drop(&all[..3], &drop), None);
    }

    /// Check that the hours of a day are merged before it ends when there are several merges of them, not several segments of one merge;
    /// and that parts are left to their hour.
    #[test]
    fn segments_of_one_merge_count_once() {
        let hour = |number: i64| segment(Level::Hour, MONDAY_MS + number * HOUR_MS);
        let first = hour(0);
        let of_one_merge = (0..5).map(|number| SegmentFacts {
            name: SegmentName {
                number,
                ..first.name
            },
            ..first
        });
        let now_ms = MONDAY_MS + 5 * HOUR_MS;
        let is_open = |span: Span| span.range().contains(now_ms);
        let plan = |segments: &[SegmentFacts]| plan_merge(segments, is_open, &keep_all(), now_ms);
        let mut segments: Vec<SegmentFacts> = of_one_merge.collect();
        segments.push(segment(Level::Part, now_ms));
        segments.extend([hour(1), hour(2)]);
        assert_eq!(plan(&segments), None);
        segments.push(hour(3));
        let merge = plan(&segments).unwrap();
        assert_eq!(merge.span, Level::Day.span_of(MONDAY_MS));
        assert_eq!(merge.inputs.len(), 8);
        let is_part = |name: &SegmentName| name.span.level == Level::Part;
        assert!(!merge.inputs.iter().any(is_part));
    }

    /// Check that segments that come later are merged again, at the length that the span has.
    #[test]
    fn late_segments_are_merged_again() {
        let now_ms = MONDAY_MS + 3 * DAY_MS;
        let day = SegmentFacts {
            resolution_ms: 60_000,
            ..segment(Level::Day, MONDAY_MS)
        };
        let plan = |segments: &[SegmentFacts], is_open: bool| {
            plan_merge(segments, |_| is_open, &keep_all(), now_ms)
        };
        assert_eq!(plan(&[day], false), None);
        let late = segment(Level::Part, MONDAY_MS + 5);
        let first = plan(&[day, late], false).unwrap();
        assert_eq!(first.span, Level::Hour.span_of(MONDAY_MS));
        let hour = SegmentFacts {
            name: SegmentName {
                span: first.span,
                ..late.name
            },
            resolution_ms: first.resolution_ms,
            ..late
        };
        let second = plan(&[day, hour], false).unwrap();
        assert_eq!((second.span, second.resolution_ms), (day.name.span, 60_000));
        assert_eq!(second.inputs.len(), 2);
        // Not while more of it is being received.
        assert_eq!(plan(&[day, hour], true), None);
    }
}
