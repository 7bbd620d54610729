//! Frames of functions, each once, with their names.

use std::cmp::Ordering;
use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable};
use model::tables::StringId;
use model::{Dictionary, WhyNot};

/// Kind of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FrameKind {
    /// Compiled user code.
    Native = 0,
    /// The kernel.
    Kernel = 1,
    /// User code that was inlined into its caller.
    Inlined = 2,
    /// Code without a name.
    Unnamed = 3,
}

/// Identity of a frame. The line is no part of it: calls from two lines of a function are one frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Frame {
    /// Name of the function.
    pub name: StringId,
    /// The file that it is in.
    pub binary: StringId,
    /// Its source file.
    pub file: StringId,
    /// Its kind.
    pub kind: FrameKind,
}

/// Number of a frame in its table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FrameId(pub u32);

impl FrameId {
    /// The number as a position in the table.
    pub fn position(self) -> usize {
        self.0 as usize
    }
}

/// The reason for which a frame has no name, and the build id to look for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unknown {
    /// The reason.
    pub reason: WhyNot,
    /// The file's build id, empty if it has none.
    pub build_id: StringId,
}

/// The frames.
#[derive(Default)]
pub struct FrameTable {
    strings: Dictionary,
    frames: Vec<Frame>,
    start_lines: Vec<i64>,
    why_not: Vec<Option<Unknown>>,
    index: HashTable<u32>,
    hasher: DefaultHashBuilder,
}

impl FrameTable {
    /// The frames, by number.
    pub fn frames(&self) -> &[Frame] {
        &self.frames
    }

    /// A frame.
    pub fn frame(&self, id: FrameId) -> Frame {
        self.frames[id.position()]
    }

    /// The text of a string's number.
    pub fn string(&self, id: StringId) -> &str {
        self.strings.tables().string(id)
    }

    /// The name of a frame.
    pub fn name(&self, id: FrameId) -> &str {
        self.string(self.frame(id).name)
    }

    /// The first line of a frame's function, 0 if it is not known.
    pub fn start_line(&self, id: FrameId) -> i64 {
        self.start_lines[id.position()]
    }

    /// The reason for which a frame has no name; `None` for a named frame.
    pub fn why_not(&self, id: FrameId) -> Option<Unknown> {
        self.why_not[id.position()]
    }

    /// The order of frames by their texts, which does not depend on their numbers.
    pub fn compare(&self, a: FrameId, b: FrameId) -> Ordering {
        let said = |id: FrameId| {
            let Frame {
                name,
                binary,
                file,
                kind,
            } = self.frame(id);
            let texts = [name, binary, file].map(|text| self.string(text));
            (texts, kind)
        };
        said(a).cmp(&said(b))
    }

    /// Bytes on the heap.
    pub fn heap_bytes(&self) -> usize {
        // An entry of an index has four bytes and one of control.
        self.strings.heap_bytes()
            + (size_of::<Frame>() + size_of::<i64>() + size_of::<Option<Unknown>>())
                * self.frames.capacity()
            + 5 * self.index.capacity()
    }

    pub(super) fn intern_string(&mut self, text: &str) -> StringId {
        self.strings.intern_string(text)
    }

    /// Finds or adds a frame, whose function begins at a line; 0 if that is not known.
    pub(super) fn intern(&mut self, frame: Frame, start_line: i64) -> FrameId {
        let Self {
            frames,
            index,
            hasher,
            start_lines,
            why_not,
            ..
        } = self;
        let hash = hasher.hash_one(frame);
        if let Some(found) = index.find(hash, |&n| frames[n as usize] == frame) {
            let known = &mut start_lines[*found as usize];
            // Two functions of one name in one file: the smaller line, whatever the order.
            if *known == 0 || start_line != 0 && start_line < *known {
                *known = start_line;
            }
            return FrameId(*found);
        }
        frames.push(frame);
        start_lines.push(start_line);
        why_not.push(None);
        let number = frames.len() as u32 - 1;
        index.insert_unique(hash, number, |&n| hasher.hash_one(frames[n as usize]));
        FrameId(number)
    }

    /// Keeps the reason for which a frame has no name. Files of one path can have several build ids: the kept one does not depend on
    /// the order of the windows.
    pub(super) fn note_why_not(&mut self, id: FrameId, reason: WhyNot, build_id: &str) {
        let known = self
            .why_not(id)
            .map(|known| (self.string(known.build_id), known.reason));
        if known.is_none_or(|known| (build_id, reason) < known) {
            let build_id = self.strings.intern_string(build_id);
            self.why_not[id.position()] = Some(Unknown { reason, build_id });
        }
    }
}
