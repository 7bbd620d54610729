//! Counts of comparisons, and their table.

use std::collections::BTreeMap;
use std::ops::AddAssign;

use codeflow::{Reason, Row};

use super::Verdict;

/// Counts of one part.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) agree: u64,
    pub(crate) wrong: u64,
    pub(crate) incomparable: u64,
    pub(crate) wrong_rbp: u64,
    pub(crate) unknown_rbp: u64,
    pub(crate) undecided: BTreeMap<Reason, u64>,
}

/// A part of the points.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Part {
    pub(crate) is_call: bool,
    /// Of functions without exception tables.
    pub(crate) is_plain: bool,
}

/// Counts of all parts.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) parts: BTreeMap<Part, Counts>,
    pub(crate) bytes: u64,
    pub(crate) closures: u64,
    pub(crate) analysis_seconds: f64,
    pub(crate) decode_seconds: f64,
}

impl Counts {
    pub(crate) fn add(&mut self, verdict: &Verdict, found: &Result<Row, Reason>) {
        match verdict {
            Verdict::Agrees => self.agree += 1,
            Verdict::AgreesWithoutRbp => {
                self.agree += 1;
                self.unknown_rbp += 1;
            }
            Verdict::WrongRbp => {
                self.agree += 1;
                self.wrong_rbp += 1;
            }
            Verdict::Wrong => self.wrong += 1,
            Verdict::Incomparable => self.incomparable += 1,
            Verdict::Undecided => {
                if let Err(reason) = found {
                    *self.undecided.entry(*reason).or_default() += 1;
                }
            }
        }
    }

    pub(crate) fn all(&self) -> u64 {
        let undecided: u64 = self.undecided.values().sum();
        self.agree + self.wrong + self.incomparable + undecided
    }

    fn print(&self, name: &str) {
        let undecided: u64 = self.undecided.values().sum();
        print!(
            "{name:<34} {:>9} {:>8.3} {:>8.4} {:>8.3} {:>9.3} {:>9.4} {:>8.4} {:>8.3} ",
            self.all(),
            self.percent(self.agree),
            self.percent(self.wrong),
            self.percent(self.incomparable),
            self.percent(undecided),
            self.right_percent(),
            self.percent(self.wrong_rbp),
            self.percent(self.unknown_rbp),
        );
        for (reason, count) in &self.undecided {
            print!(" {} {:.3}", reason.name(), self.percent(*count));
        }
        println!();
    }

    /// Percent of all.
    pub(crate) fn percent(&self, count: u64) -> f64 {
        100.0 * count as f64 / self.all().max(1) as f64
    }

    /// Percent that agree of those that were decided and could be compared.
    pub(crate) fn right_percent(&self) -> f64 {
        100.0 * self.agree as f64 / (self.agree + self.wrong).max(1) as f64
    }
}

impl AddAssign<&Self> for Counts {
    fn add_assign(&mut self, other: &Self) {
        let Self {
            agree,
            wrong,
            incomparable,
            wrong_rbp,
            unknown_rbp,
            undecided,
        } = other;
        self.agree += agree;
        self.wrong += wrong;
        self.incomparable += incomparable;
        self.wrong_rbp += wrong_rbp;
        self.unknown_rbp += unknown_rbp;
        for (reason, count) in undecided {
            *self.undecided.entry(*reason).or_default() += count;
        }
    }
}

impl AddAssign<&Self> for Tally {
    fn add_assign(&mut self, other: &Self) {
        for (part, counts) in &other.parts {
            *self.parts.entry(*part).or_default() += counts;
        }
        self.bytes += other.bytes;
        self.closures += other.closures;
        self.analysis_seconds += other.analysis_seconds;
        self.decode_seconds += other.decode_seconds;
    }
}

impl Tally {
    pub(crate) fn count(&mut self, part: Part, verdict: &Verdict, found: &Result<Row, Reason>) {
        self.parts.entry(part).or_default().add(verdict, found);
    }

    /// The counts of return addresses or instructions, of all functions or of those without
    /// exception tables.
    pub(crate) fn sum(&self, is_call: bool, only_plain: bool) -> Counts {
        let mut sum = Counts::default();
        for (part, counts) in &self.parts {
            if part.is_call == is_call && (part.is_plain || !only_plain) {
                sum += counts;
            }
        }
        sum
    }

    /// Prints one line a part, and the time.
    pub(crate) fn print(&self) {
        println!(
            "{:<34} {:>9} {:>8} {:>8} {:>8} {:>9} {:>9} {:>8} {:>8}  undecided by reason",
            "in percent",
            "points",
            "agree",
            "wrong",
            "incomp",
            "undecided",
            "right",
            "rbp !",
            "rbp ?"
        );
        for (name, is_call, only_plain) in [
            ("return addresses", true, false),
            ("  of functions without exceptions", true, true),
            ("instructions", false, false),
            ("  of functions without exceptions", false, true),
        ] {
            self.sum(is_call, only_plain).print(name);
        }
        let megabytes = self.bytes as f64 / f64::from(1 << 20);
        if self.closures > 0 {
            let each = self.analysis_seconds * 1e6 / self.closures as f64;
            println!("{} closures, {each:.1} us of CPU time each", self.closures);
        } else {
            let each = |seconds: f64| seconds * 1e3 / megabytes.max(1e-9);
            println!(
                "{megabytes:.1} MB of code, {:.1} ms of CPU time a MB; decoding alone takes {:.1}",
                each(self.analysis_seconds),
                each(self.decode_seconds)
            );
        }
    }
}
