//! Interns strings: function names and paths repeat in many addresses.

use std::collections::hash_map::Entry;
use std::sync::Arc;

use rustc_hash::FxHashMap;

/// Bytes of a string in addition to its text: two counts in its allocation (16), a slot of 25 in a
/// table that is between 7/16 and 7/8 full, and the allocator's rounding.
const OVERHEAD_BYTES: usize = 16 + 25 * 3 / 2 + 8;

/// The strings in use by the cache, with the number of uses. Strings that are only in use elsewhere
/// are not counted.
#[derive(Debug, Default)]
pub(super) struct Strings {
    uses: FxHashMap<Arc<str>, usize>,
    bytes: usize,
}

impl Strings {
    /// The one copy of `string`, with one more use.
    pub(super) fn intern(&mut self, string: &str) -> Arc<str> {
        if let Some((known, _)) = self.uses.get_key_value(string) {
            let known = Arc::clone(known);
            *self.uses.entry(Arc::clone(&known)).or_default() += 1;
            return known;
        }
        let new: Arc<str> = string.into();
        self.bytes += cost(&new);
        self.uses.insert(Arc::clone(&new), 1);
        new
    }

    /// Ends one use.
    pub(super) fn release(&mut self, string: &Arc<str>) {
        let Entry::Occupied(mut uses) = self.uses.entry(Arc::clone(string)) else {
            return;
        };
        *uses.get_mut() -= 1;
        if *uses.get() == 0 {
            uses.remove();
            self.bytes -= cost(string);
        }
    }

    /// Bytes that the strings take.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

fn cost(string: &str) -> usize {
    string.len() + OVERHEAD_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that a string is stored once while the cache uses it, also if others still hold it.
    #[test]
    fn strings_live_as_long_as_they_are_used() {
        let mut strings = Strings::default();
        let first = strings.intern("name");
        let second = strings.intern("name");
        assert!(Arc::ptr_eq(&first, &second));
        let bytes = strings.bytes();
        let other = strings.intern("other");
        assert!(strings.bytes() > bytes);
        strings.release(&other);
        strings.release(&first);
        assert_eq!(strings.bytes(), bytes);
        strings.release(&second);
        assert_eq!(strings.bytes(), 0);
    }
}
