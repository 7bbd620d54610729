//! The sections of a segment.

use std::fmt;

/// Declares the sections with their numbers in the file and their names.
macro_rules! sections {
    ($($(#[$doc:meta])* $name:ident = $number:literal $text:literal;)*) => {
        /// A part of a segment with entries of one kind.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Section {
            $($(#[$doc])* $name = $number,)*
        }

        impl Section {
            /// All sections, in the order of their numbers.
            pub const ALL: [Self; [$($number),*].len()] = [$(Self::$name),*];

            /// The name.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

sections! {
    /// Locations, each with its lines.
    Locations = 0 "locations";
    /// Functions.
    Functions = 1 "functions";
    /// Files.
    Mappings = 2 "mappings";
    /// Labels of samples.
    TagSets = 3 "tag sets";
    /// Texts.
    Strings = 4 "strings";
    /// The tree of stacks.
    Tree = 5 "tree";
    /// Rows by (series, stack, tag set, window).
    Detail = 6 "detail";
    /// Sums by (series, stack, tag set) over all windows.
    Totals = 7 "totals";
    /// Sums by (series, window).
    Cells = 8 "cells";
    /// Identity of windows.
    Windows = 9 "windows";
    /// Accounts of windows.
    Accounts = 10 "accounts";
    /// The kernel's accounts of containers, by (container, window).
    Usage = 11 "usage";
    /// Label sets of containers.
    Containers = 12 "containers";
    /// Label sets of series.
    Series = 13 "series";
    /// The locations that follow each location in stacks.
    Callees = 14 "callees";
    /// Digests of messages.
    Digests = 15 "digests";
}

impl Section {
    /// The section with a number.
    pub(crate) fn from_number(number: usize) -> Option<Self> {
        Self::ALL.get(number).copied()
    }
}

impl fmt::Display for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
