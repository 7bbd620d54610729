//! Flat tables of everything that stacks refer to.
//!
//! A window has one set of tables, and so has each part of the store's cache. Entries refer to each other by
//! number; a number is valid within its own tables only. [`Tables::new`] puts the empty string, the empty
//! stack and the empty tag set at number 0 of their tables.

use std::ops::Range;

use profile::UnnamedReason;

/// Declares a number of an entry in a table.
macro_rules! entry_number {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub u32);

        impl $name {
            /// The number as a position in its table.
            pub fn position(self) -> usize {
                self.0 as usize
            }
        }
    )*};
}

entry_number! {
    /// A string; 0 is `""`.
    StringId;
    /// A file that is mapped.
    MappingId;
    /// A function.
    FunctionId;
    /// A location: an offset in a file.
    LocationId;
    /// A node of the tree of stacks; 0 is the empty stack.
    StackId;
    /// A set of labels that belong to samples and not to series; 0 is the empty set.
    TagSetId;
}

/// A mapped file, as pprof describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Mapping {
    /// Path of the file; `[kernel]` for the kernel.
    pub file: StringId,
    /// The file's build id, in hexadecimal.
    pub build_id: StringId,
    /// pprof's `memory_start`: 0, since addresses are offsets in the file.
    pub start: u64,
    /// pprof's `memory_limit`.
    pub limit: u64,
    /// pprof's `file_offset`: 0.
    pub offset: u64,
    /// Kinds of names, as stated by the sender.
    pub flags: MappingFlags,
    /// The collector's id of the file, empty if it does not offer it: see `FileLayout.file_id` on the wire.
    pub file_id: StringId,
}

/// pprof's four statements about the names of a mapping.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct MappingFlags(pub u8);

impl MappingFlags {
    /// The names contain functions.
    pub const FUNCTIONS: u8 = 1;
    /// The names contain source files.
    pub const FILES: u8 = 2;
    /// The names contain line numbers.
    pub const LINES: u8 = 4;
    /// The names contain inlined calls.
    pub const INLINES: u8 = 8;
    /// All statements; other bits are not valid.
    pub const ALL: u8 = 15;

    /// Whether a statement is made.
    pub fn has(self, flag: u8) -> bool {
        self.0 & flag != 0
    }
}

/// Which names of functions are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FunctionNames {
    /// Those that are shown. The name in the file's symbol table is read only where there is no other, and else may be empty in the tables.
    Shown,
    /// All. That takes twice as long.
    All,
}

/// A function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Function {
    /// Name for people, demangled.
    pub name: StringId,
    /// Name as in the file.
    pub system_name: StringId,
    /// Source file.
    pub file: StringId,
    /// First line, 0 if not known.
    pub start_line: i64,
}

/// One function at a location, with the line in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Line {
    /// The function.
    pub function: FunctionId,
    /// Line, 0 if not known.
    pub line: i64,
}

/// The reason for which a location has no name, and its distance from the function's start, if known.
///
/// The reason in the low 8 bits, as a number of the wire; above them bytes from the function's start, plus one. The
/// distance has 24 bits: it is dropped above 16 MiB, and a location takes no more memory for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Unnamed(u32);

impl Unnamed {
    /// A reason, and the distance from the function's start plus one, or 0.
    pub fn new(reason: u8, function_distance: u32) -> Self {
        let distance = match function_distance >> 24 {
            0 => function_distance,
            _ => 0,
        };
        Self(distance << 8 | u32::from(reason))
    }

    /// The reverse of [`Unnamed::bits`].
    pub fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    /// As one number, for the store.
    pub fn bits(self) -> u32 {
        self.0
    }

    /// The number of the reason, 0 for none.
    pub fn code(self) -> u8 {
        self.0 as u8
    }

    /// Bytes from the start of the function, plus one; 0 if unknown.
    pub fn function_distance(self) -> u32 {
        self.0 >> 8
    }

    /// The collector's reason, if it is one that this server knows.
    pub fn reason(self) -> Option<UnnamedReason> {
        UnnamedReason::from_code(self.code())
    }

    /// The reason in words, for a frame without a file.
    pub fn words(self) -> &'static str {
        match self.reason() {
            Some(UnnamedReason::NoMapping) => "no mapping",
            Some(UnnamedReason::Anonymous) => "anonymous memory",
            Some(UnnamedReason::FileGone) => "file gone",
            Some(UnnamedReason::NoSymbol) => "no symbol",
            Some(UnnamedReason::Permission) => "no permission",
            Some(UnnamedReason::Corrupt) => "corrupt file",
            Some(UnnamedReason::Limit) => "limit reached",
            Some(UnnamedReason::ProcessUnknown) => "process unknown",
            Some(UnnamedReason::NotAnswering) => "file system hangs",
            Some(UnnamedReason::Replaced) => "code replaced",
            None => "unknown",
        }
    }
}

/// A place in a file, or a bare address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Location {
    /// The file, if it is known.
    pub mapping: Option<MappingId>,
    /// Offset in the file; for the kernel relative to `_text`.
    pub address: u64,
    /// Its lines, as positions in the table of lines: the innermost inlined call first.
    pub lines_start: u32,
    /// End of its lines.
    pub lines_end: u32,
    /// pprof's `is_folded`: other functions may have this address too.
    pub is_folded: bool,
    /// Why there are no lines.
    pub unnamed: Unnamed,
}

impl Location {
    /// The start of its function if it has no name, or its own address if that is unknown.
    pub fn function_start(&self) -> u64 {
        let distance = self.unnamed.function_distance().saturating_sub(1);
        self.address.saturating_sub(u64::from(distance))
    }

    /// The positions of its lines.
    pub fn lines(&self) -> Range<usize> {
        self.lines_start as usize..self.lines_end as usize
    }
}

/// One frame of a stack and the stack that called it. A node's parent has a smaller number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StackNode {
    /// The caller's stack.
    pub parent: StackId,
    /// This frame.
    pub location: LocationId,
}

/// A label of samples: `thread`, `outcome`, `check`, or one of a newer collector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tag {
    /// Its name.
    pub key: StringId,
    /// Its value.
    pub value: TagValue,
}

/// The value of a tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TagValue {
    /// A string.
    Text(StringId),
    /// A number and its unit.
    Number(i64, StringId),
}

/// The tables.
#[derive(Clone, Debug, PartialEq, Hash)]
pub struct Tables {
    text: String,
    text_ends: Vec<u32>,
    /// Files.
    pub mappings: Vec<Mapping>,
    /// Functions.
    pub functions: Vec<Function>,
    /// Lines of all locations, one location after the other.
    pub lines: Vec<Line>,
    /// Locations.
    pub locations: Vec<Location>,
    /// The tree of stacks; number 0 stands for the empty stack and has no meaningful fields.
    pub stacks: Vec<StackNode>,
    tags: Vec<Tag>,
    tags_ends: Vec<u32>,
}

impl Default for Tables {
    fn default() -> Self {
        Self::new()
    }
}

impl Tables {
    /// Empty tables with the empty string, stack and tag set.
    pub fn new() -> Self {
        Self {
            text: String::new(),
            text_ends: vec![0],
            mappings: Vec::new(),
            functions: Vec::new(),
            lines: Vec::new(),
            locations: Vec::new(),
            stacks: vec![StackNode {
                parent: StackId(0),
                location: LocationId(0),
            }],
            tags: Vec::new(),
            tags_ends: vec![0],
        }
    }

    /// Number of strings.
    pub fn string_count(&self) -> usize {
        self.text_ends.len()
    }

    /// A string's text.
    pub fn string(&self, id: StringId) -> &str {
        let end = self.text_ends[id.position()] as usize;
        let start = match id.0 {
            0 => 0,
            n => self.text_ends[n as usize - 1] as usize,
        };
        &self.text[start..end]
    }

    /// Adds a string without a look-up.
    pub fn push_string(&mut self, text: &str) -> StringId {
        self.text.push_str(text);
        self.text_ends.push(self.text.len() as u32);
        StringId(self.text_ends.len() as u32 - 1)
    }

    /// Number of tag sets.
    pub fn tag_set_count(&self) -> usize {
        self.tags_ends.len()
    }

    /// The tags of a set.
    pub fn tag_set(&self, id: TagSetId) -> &[Tag] {
        let end = self.tags_ends[id.position()] as usize;
        let start = match id.0 {
            0 => 0,
            n => self.tags_ends[n as usize - 1] as usize,
        };
        &self.tags[start..end]
    }

    /// Adds a tag set without a look-up.
    pub fn push_tag_set(&mut self, tags: &[Tag]) -> TagSetId {
        self.tags.extend_from_slice(tags);
        self.tags_ends.push(self.tags.len() as u32);
        TagSetId(self.tags_ends.len() as u32 - 1)
    }

    /// The text of a set's tag with this key, `""` if there is none.
    pub fn tag_text(&self, id: TagSetId, key: &str) -> &str {
        let found = self
            .tag_set(id)
            .iter()
            .find(|tag| self.string(tag.key) == key);
        match found.map(|tag| tag.value) {
            Some(TagValue::Text(text)) => self.string(text),
            _ => "",
        }
    }

    /// The lines that a location's node found, innermost inlined call first. Lines that were found later:
    /// [`NamedTables::lines_of`](crate::NamedTables::lines_of).
    pub fn own_lines_of(&self, id: LocationId) -> &[Line] {
        &self.lines[self.locations[id.position()].lines()]
    }

    /// Whether lines name a source file, so that a look-up could not improve them.
    pub fn have_source(&self, lines: &[Line]) -> bool {
        let file = |line: &Line| self.functions[line.function.position()].file;
        lines.last().is_some_and(|line| file(line).0 != 0)
    }

    /// The locations of a stack, the innermost first.
    pub fn walk_stack(&self, mut id: StackId) -> impl Iterator<Item = LocationId> {
        std::iter::from_fn(move || {
            let node = (id.0 != 0).then(|| self.stacks[id.position()])?;
            id = node.parent;
            Some(node.location)
        })
    }

    /// For each location, whether it is in the kernel. A location without a file is not.
    pub fn kernel_locations(&self) -> Vec<bool> {
        let is_kernel = |mapping: &Mapping| self.string(mapping.file).starts_with("[kernel");
        let mappings: Vec<bool> = self.mappings.iter().map(is_kernel).collect();
        let is_kernel = |location: &Location| {
            location
                .mapping
                .is_some_and(|mapping| mappings[mapping.position()])
        };
        self.locations.iter().map(is_kernel).collect()
    }

    /// For each stack, the user frame nearest to the root, if it has one.
    pub fn outermost_user_frames(&self) -> Vec<Option<LocationId>> {
        let in_kernel = self.kernel_locations();
        let mut outermost: Vec<Option<LocationId>> = vec![None; self.stacks.len()];
        for (number, node) in self.stacks.iter().enumerate().skip(1) {
            let own = (!in_kernel[node.location.position()]).then_some(node.location);
            outermost[number] = outermost[node.parent.position()].or(own);
        }
        outermost
    }

    /// Bytes on the heap, for bounded caches.
    pub fn heap_bytes(&self) -> usize {
        self.text.capacity()
            + 4 * (self.text_ends.capacity() + self.tags_ends.capacity())
            + size_of::<Mapping>() * self.mappings.capacity()
            + size_of::<Function>() * self.functions.capacity()
            + size_of::<Line>() * self.lines.capacity()
            + size_of::<Location>() * self.locations.capacity()
            + size_of::<StackNode>() * self.stacks.capacity()
            + size_of::<Tag>() * self.tags.capacity()
    }
}
