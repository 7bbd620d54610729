//! Rows of ranges of code.

use profiler_bpf::arch::x86_64::rule::Rule;

/// Code with one rule, by file offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CodeRange {
    /// Its first byte.
    pub start: u64,
    /// The byte behind its last one.
    pub end: u64,
    /// The rule.
    pub rule: Rule,
}

/// Ranges in the order of their offsets, which do not overlap.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CodeRows {
    ranges: Vec<CodeRange>,
}

impl CodeRows {
    /// The rule at an offset.
    pub fn find(&self, offset: u64) -> Option<Rule> {
        let range = self.ranges.get(self.place_of(offset))?;
        (range.start <= offset).then_some(range.rule)
    }

    /// All ranges.
    pub fn ranges(&self) -> &[CodeRange] {
        &self.ranges
    }

    /// The ranges that reach behind an offset.
    pub fn ranges_from(&self, offset: u64) -> &[CodeRange] {
        &self.ranges[self.place_of(offset)..]
    }

    /// Adds a rule for `bytes` bytes from `start` on, where there is none yet.
    pub fn insert(&mut self, start: u64, bytes: u64, rule: Rule) {
        let end = start.saturating_add(bytes);
        self.extend(vec![CodeRange { start, end, rule }]);
    }

    /// Adds all ranges of others where there are none yet.
    pub fn merge(&mut self, others: &Self) {
        self.extend(others.ranges.clone());
    }

    /// Adds ranges where there are none yet; of those that overlap, the one that begins first holds.
    pub fn extend(&mut self, mut ranges: Vec<CodeRange>) {
        ranges.sort_by_key(|range| range.start);
        let mut gaps = Vec::new();
        let mut done = 0;
        for range in ranges {
            let rest = CodeRange {
                start: range.start.max(done),
                ..range
            };
            self.list_gaps(rest, &mut gaps);
            done = done.max(range.end);
        }
        // Two ascending runs, which this sort merges.
        self.ranges.extend(gaps);
        self.ranges.sort_by_key(|range| range.start);
        self.ranges.dedup_by(|next, before| {
            let is_same = before.end == next.start && before.rule == next.rule;
            if is_same {
                before.end = next.end;
            }
            is_same
        });
    }

    /// The parts of a range that have no rule.
    fn list_gaps(&self, range: CodeRange, gaps: &mut Vec<CodeRange>) {
        let mut start = range.start;
        let taken = self.ranges_from(start).iter();
        let behind = (range.end, range.end);
        let taken = taken.map(|taken| (taken.start, taken.end));
        for (taken_start, taken_end) in taken.chain([behind]) {
            let end = taken_start.min(range.end);
            if start < end {
                gaps.push(CodeRange {
                    start,
                    end,
                    ..range
                });
            }
            start = start.max(taken_end);
            if start >= range.end {
                return;
            }
        }
    }

    /// The place of the first range that ends behind an offset.
    fn place_of(&self, offset: u64) -> usize {
        self.ranges.partition_point(|range| range.end <= offset)
    }
}

#[cfg(test)]
mod tests {
    use fastrand::Rng;

    use super::*;

    fn rule(number: i32) -> Rule {
        Rule::at_register(7, number)
    }

    /// Check, against a rule for each byte, that the first rule of a byte stays, and that neighbours are one range.
    #[test]
    fn first_rule_stays() {
        const BYTES: usize = 100;
        let mut random = Rng::with_seed(5);
        for _ in 0..200 {
            let mut rows = CodeRows::default();
            let mut expected = [None; BYTES];
            for _ in 0..30 {
                let start = random.usize(..BYTES);
                let end = start + random.usize(..=(BYTES - start).min(20));
                let rule = rule(random.i32(..3));
                rows.insert(start as u64, (end - start) as u64, rule);
                for byte in &mut expected[start..end] {
                    byte.get_or_insert(rule);
                }
            }
            for (offset, rule) in expected.iter().enumerate() {
                assert_eq!(rows.find(offset as u64), *rule, "{offset} {rows:?}");
            }
            let ranges = rows.ranges();
            assert!(ranges.is_sorted_by(|a, b| a.end <= b.start));
            assert!(ranges.iter().all(|range| range.start < range.end));
        }
    }

    /// Check that the last byte of the address space is no overflow.
    #[test]
    fn last_byte() {
        let mut rows = CodeRows::default();
        rows.insert(u64::MAX - 1, 10, rule(1));
        assert_eq!(rows.find(u64::MAX - 1), Some(rule(1)));
        assert_eq!(rows.find(u64::MAX), None);
    }
}
