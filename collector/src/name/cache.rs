//! The names of each file that are known so far, or the reasons why there are none.
//!
//! In: names as the child gives them. Out: the same at the next question.
//! Never holds more than its bytes; the least recently used file goes first.

use rustc_hash::FxHashMap;
use symbolize::{FileFacts, UseDebugInfo};

use super::backoff::Backoff;
use super::naming::{Frame, Naming};
use super::object::Object;
use super::protocol::Response;
use super::strings::Strings;
use crate::file::{FileKey, UnnamedReason};

/// A slot of the table of a file: offset (8), naming (24), due (8) and a
/// byte of hash, in a table that is between 7/16 and 7/8 full.
const SLOT_BYTES: usize = 41 * 3 / 2;
/// The allocation of an address's frames: two counts, and what the allocator adds.
const FRAMES_BYTES: usize = 16 + 8;
/// A file's own entry, without what it says about itself.
const FILE_BYTES: usize = size_of::<FileNames>() + size_of::<ObjectKey>();

/// The key of the names of one object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum ObjectKey {
    /// By the time since when a reading of its symbols is good.
    Kernel(u64),
    Vdso,
    File(FileKey),
}

impl From<&Object> for ObjectKey {
    fn from(object: &Object) -> Self {
        match object {
            Object::Kernel(readings) => Self::Kernel(readings.since_ns),
            Object::Vdso => Self::Vdso,
            Object::Elf(file) => Self::File(file.key),
        }
    }
}

/// The names and the state of one file.
#[derive(Debug)]
pub(super) struct FileNames {
    /// Its number in requests to the child.
    pub(super) number: u64,
    /// Whether its debug information may still be used.
    pub(super) debug: UseDebugInfo,
    /// The failures of the whole file.
    pub(super) backoff: Backoff,
    /// Whether some of its debug information was refused since the child opened it.
    pub(super) debug_refused: bool,
    /// Its own facts, once it was read.
    pub(super) facts: Option<FileFacts>,
    names: FxHashMap<u64, Known>,
    used: u64,
    bytes: usize,
}

#[derive(Debug)]
struct Known {
    naming: Naming,
    /// The window from which on it is asked for again.
    due: u64,
}

/// Whether an answer is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extent {
    Whole,
    /// There was no time to ask on.
    Cut,
}

impl FileNames {
    /// Whether names come from its debug information, should it have any.
    pub(super) fn uses_debug_info(&self) -> bool {
        self.debug == UseDebugInfo::Yes && !self.debug_refused
    }

    /// Name of the file with its debug information, if it says one.
    pub(super) fn debug_link(&self) -> Option<&str> {
        self.facts.as_ref()?.debug_link.as_deref()
    }

    /// Its links to other files, as far as they were read.
    pub(super) fn links(&self) -> Links {
        let facts = self.facts.as_ref();
        Links {
            debug_file: self.debug_link().is_some(),
            alternative: facts.is_some_and(|facts| facts.alternative.is_some()),
            split: facts.is_some_and(|facts| facts.is_split),
        }
    }
}

/// The kinds of files that one names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Links {
    /// The one with its debug information.
    pub(super) debug_file: bool,
    /// The one that this is shared in with others.
    pub(super) alternative: bool,
    /// Those that it is split into.
    pub(super) split: bool,
}

/// The names of all files.
#[derive(Debug)]
pub(super) struct NameCache {
    files: FxHashMap<ObjectKey, FileNames>,
    strings: Strings,
    bytes_max: usize,
    /// Windows after which an answer that may change is asked for again.
    retry_windows: u64,
    /// Of all files, without the strings.
    bytes: usize,
    clock: u64,
    evictions: u64,
}

impl NameCache {
    /// An empty cache of at most `bytes_max` bytes. What may change is asked for again after `retry_windows`.
    pub(super) fn new(bytes_max: usize, retry_windows: u64) -> Self {
        Self {
            files: FxHashMap::default(),
            strings: Strings::default(),
            bytes_max,
            retry_windows,
            bytes: 0,
            clock: 0,
            evictions: 0,
        }
    }

    /// The entry of a file, which becomes the most recently used one.
    pub(super) fn file(&mut self, key: ObjectKey) -> &mut FileNames {
        self.clock += 1;
        let clock = self.clock;
        let file = self.files.entry(key).or_insert_with(|| {
            self.bytes += FILE_BYTES;
            FileNames {
                // Unique, since the clock only goes forward.
                number: clock,
                debug: UseDebugInfo::Yes,
                backoff: Backoff::default(),
                debug_refused: false,
                facts: None,
                names: FxHashMap::default(),
                used: clock,
                bytes: FILE_BYTES,
            }
        });
        file.used = clock;
        file
    }

    /// Keeps what the file says about itself.
    pub(super) fn keep_facts(&mut self, key: ObjectKey, facts: FileFacts) {
        let file = self.file(key);
        let before = file.bytes;
        file.bytes += facts.heap_bytes();
        let replaced = file.facts.replace(facts);
        file.bytes -= replaced.map_or(0, |facts| facts.heap_bytes());
        let after = file.bytes;
        self.bytes = self.bytes + after - before;
    }

    /// Keeps an answer about `addresses`, which was given in a window.
    pub(super) fn keep(
        &mut self,
        key: ObjectKey,
        addresses: &[u64],
        response: &Response,
        (window, extent): (u64, Extent),
    ) {
        let soon = window.saturating_add(self.retry_windows);
        let namings: Vec<Naming> = response
            .answers
            .iter()
            .map(|answer| answer.to_naming(&response.strings, |string| self.strings.intern(string)))
            .collect();
        let mut replaced = Vec::new();
        let file = self.file(key);
        let before = file.bytes;
        for (address, naming) in addresses.iter().zip(namings) {
            file.bytes += cost(&naming);
            let may_change = match naming.unnamed() {
                None => extent == Extent::Cut,
                // Modules and BPF programs come and go.
                Some(reason) => {
                    extent == Extent::Cut || may_pass(reason) || matches!(key, ObjectKey::Kernel(_))
                }
            };
            let due = if may_change { soon } else { u64::MAX };
            let known = Known { naming, due };
            if let Some(known) = file.names.insert(*address, known) {
                file.bytes -= cost(&known.naming);
                replaced.push(known.naming);
            }
        }
        let after = file.bytes;
        self.bytes = self.bytes + after - before;
        for naming in &replaced {
            release(&mut self.strings, naming);
        }
    }

    /// Drops the least recently used files until what is left fits.
    pub(super) fn shrink(&mut self) {
        while self.bytes() > self.bytes_max {
            let oldest = self.files.iter().min_by_key(|(_, file)| file.used);
            let Some(key) = oldest.map(|(key, _)| *key) else {
                return;
            };
            if let Some(file) = self.files.remove(&key) {
                self.bytes -= file.bytes;
                self.evictions += 1;
                for known in file.names.values() {
                    release(&mut self.strings, &known.naming);
                }
            }
        }
    }

    /// Bytes held.
    pub(super) fn bytes(&self) -> usize {
        self.bytes + self.strings.bytes()
    }

    /// Files known.
    pub(super) fn files(&self) -> usize {
        self.files.len()
    }

    /// Files dropped for lack of room.
    pub(super) fn evictions(&self) -> u64 {
        self.evictions
    }
}

impl FileNames {
    /// The naming of `address`, unless it is not known or, at `window`, due for
    /// another try.
    pub(super) fn get(&self, address: u64, window: u64) -> Option<&Naming> {
        let known = self.names.get(&address)?;
        (window < known.due).then_some(&known.naming)
    }

    /// The last naming of `address`, due or not.
    pub(super) fn last(&self, address: u64) -> Option<&Naming> {
        self.names.get(&address).map(|known| &known.naming)
    }
}

/// Whether a later request may give a name: another process may map the file, a permission may be granted, a limit may no longer
/// be reached, a file system may answer again.
fn may_pass(reason: UnnamedReason) -> bool {
    use UnnamedReason::{FileGone, Limit, NotAnswering, Permission};
    matches!(reason, FileGone | Permission | Limit | NotAnswering)
}

fn release(strings: &mut Strings, naming: &Naming) {
    let Naming::Named(frames) = naming else {
        return;
    };
    for frame in frames.iter() {
        for string in [&frame.function, &frame.system_name, &frame.file] {
            strings.release(string);
        }
    }
}

fn cost(naming: &Naming) -> usize {
    SLOT_BYTES
        + match naming {
            Naming::Named(frames) => FRAMES_BYTES + size_of_val::<[Frame]>(frames),
            Naming::Unnamed(_) | Naming::InFunction(_) => 0,
        }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::protocol::{Answer, Function};
    use elf::{AlternativeLink, BuildId};

    fn key(byte: u8) -> ObjectKey {
        ObjectKey::File(FileKey::Place(byte.into()))
    }

    fn response(name: &str) -> Response {
        let function = Function {
            function: 0,
            system_name: 1,
            file: 1,
            line: 0,
            column: 0,
            start_line: 0,
        };
        Response {
            strings: vec![name.to_owned(), String::new()],
            answers: vec![Answer::Named(vec![function])],
            ..Response::default()
        }
    }

    /// Check that the file used longest ago goes first, and that the bytes of
    /// what went are given back.
    #[test]
    fn least_recently_used_file_goes() {
        let mut cache = NameCache::new(usize::MAX, 6);
        cache.keep(key(1), &[1], &response("first"), (0, Extent::Whole));
        let one = cache.bytes();
        cache.keep(key(2), &[1], &response("second"), (0, Extent::Whole));
        cache.file(key(1));
        cache.bytes_max = cache.bytes() - 1;
        cache.shrink();
        assert_eq!((cache.files(), cache.evictions()), (1, 1));
        assert_eq!(cache.bytes(), one);
        assert!(cache.file(key(1)).get(1, 0).is_some());
        cache.bytes_max = 0;
        cache.shrink();
        assert_eq!((cache.files(), cache.bytes()), (0, 0));
    }

    /// Check that what a file says about itself counts, the last time that it says so.
    #[test]
    fn facts_take_their_bytes() {
        let mut cache = NameCache::new(usize::MAX, 6);
        cache.file(key(1));
        let without = cache.bytes();
        let path = "x".repeat(4096);
        let build_id = BuildId::new(&[1]).expect("a byte is a build id");
        let large = FileFacts {
            debug_link: Some("y".repeat(255)),
            alternative: Some(AlternativeLink { path, build_id }),
            ..FileFacts::default()
        };
        cache.keep_facts(key(1), large.clone());
        assert_eq!(cache.bytes(), without + 4096 + 255);
        cache.keep_facts(key(1), large);
        assert_eq!(cache.bytes(), without + 4096 + 255);
        cache.keep_facts(key(1), FileFacts::default());
        assert_eq!(cache.bytes(), without);
        cache.bytes_max = 0;
        cache.shrink();
        assert_eq!(cache.bytes(), 0);
    }

    /// Check that only a reason that may pass, and an answer that was cut, is asked about again, and when.
    #[test]
    fn reasons_that_may_pass_are_tried_again() {
        let mut cache = NameCache::new(usize::MAX, 6);
        let unnamed = |reason| Response {
            answers: vec![Answer::Unnamed(reason)],
            ..response("")
        };
        let whole = (10, Extent::Whole);
        cache.keep(key(1), &[1], &unnamed(UnnamedReason::Limit), whole);
        cache.keep(key(1), &[2], &unnamed(UnnamedReason::NoSymbol), whole);
        cache.keep(key(1), &[3], &response("whole"), whole);
        cache.keep(key(1), &[4], &response("cut"), (10, Extent::Cut));
        let no_symbol = unnamed(UnnamedReason::NoSymbol);
        cache.keep(ObjectKey::Kernel(0), &[2], &no_symbol, whole);
        let file = cache.file(key(1));
        for (address, is_due) in [(1, true), (2, false), (3, false), (4, true)] {
            assert!(file.get(address, 15).is_some());
            assert_eq!(file.get(address, 16).is_none(), is_due, "{address}");
            assert!(file.last(address).is_some());
        }
        assert!(cache.file(ObjectKey::Kernel(0)).get(2, 16).is_none());
    }
}
