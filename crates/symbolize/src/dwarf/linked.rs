//! The files with parts of one file's debug information, and the reader of them.

use std::fs::File;
use std::rc::Rc;

use elf::{AlternativeLink, BlockCache};
use rustc_hash::FxHashSet;

use super::image::Image;
use super::reader::{Lookup, Reader, is_split};

/// Split files that are known not to be there. Above it, they are looked for again.
const ABSENT_MAX: usize = 1 << 16;

/// Files that came with a request, open for reading.
#[derive(Default)]
pub struct Linking {
    /// The one that several files share, by `.gnu_debugaltlink`.
    pub alternative: Option<File>,
    /// The package of split units.
    pub package: Option<File>,
    /// Split files by id; `None` for those that could not be found.
    pub split: Vec<(u64, Option<File>)>,
}

/// Open split files of one program, with a descriptor each of the child's 2048. With more, the reader is dropped, and the files that
/// are needed come again.
const SPLIT_OPEN_MAX: usize = 256;

/// Bytes of `.debug_info`, decompressed, from which on a file is read here. blazesym maps it and keeps what it parsed of all units: up
/// to 26 MB for libc's debug file, and 41 MB for a program with 9 MB of `.debug_info`.
const LARGE_BYTES: u64 = if cfg!(fuzzing) { 1 << 9 } else { 1 << 20 };

/// The files that belong to one.
pub struct LinkedFiles {
    cache: Rc<BlockCache>,
    /// Read by [`Self::look`].
    kind: Option<Kind>,
    alternative: Option<File>,
    package: Option<File>,
    absent: FxHashSet<u64>,
    split_open: usize,
    reader: Parsed,
}

/// Properties of the debug information.
#[derive(Clone, Copy, Default)]
struct Kind {
    is_split: bool,
    is_large: bool,
}

#[derive(Default)]
enum Parsed {
    #[default]
    NotYet,
    /// It cannot be read in this way.
    Not,
    Read(Box<Reader>),
}

impl LinkedFiles {
    /// None so far.
    pub fn new(cache: Rc<BlockCache>) -> Self {
        Self {
            cache,
            kind: None,
            alternative: None,
            package: None,
            absent: FxHashSet::default(),
            split_open: 0,
            reader: Parsed::NotYet,
        }
    }

    /// Whether split units were seen.
    pub fn is_split(&self) -> bool {
        self.kind.is_some_and(|kind| kind.is_split)
    }

    /// Reads the properties of `main`, once. It has `debug_info_bytes` of `.debug_info`, decompressed.
    pub fn look(&mut self, main: &File, debug_info_bytes: u64) {
        if self.kind.is_none() {
            self.kind = Some(Kind {
                is_split: self.open(main).is_some_and(|image| is_split(&image)),
                is_large: debug_info_bytes >= LARGE_BYTES,
            });
        }
    }

    /// Whether this reads the debug information, and not blazesym.
    pub fn is_needed(&self) -> bool {
        let kind = self.kind.unwrap_or_default();
        kind.is_split || kind.is_large || self.alternative.is_some()
    }

    /// Takes further files. Returns whether all of them belong to `main`.
    pub fn take(&mut self, files: Linking, main: &File, link: Option<&AlternativeLink>) -> bool {
        let mut is_right = true;
        if let (None, Some(file)) = (&self.alternative, files.alternative) {
            let build_id = self.open(&file).and_then(|image| image.build_id());
            if build_id.is_some() && build_id == link.map(|link| link.build_id) {
                self.alternative = Some(file);
                self.reader = Parsed::NotYet;
            } else {
                is_right = false;
            }
        }
        if let (None, Some(file)) = (&self.package, files.package) {
            self.package = Some(file);
            // Units that it has may have been given up.
            self.forget();
        }
        if self.absent.len() > ABSENT_MAX {
            self.absent.clear();
        }
        if self.split_open + files.split.len() > SPLIT_OPEN_MAX {
            self.forget();
        }
        for (id, file) in files.split {
            self.absent.insert(id);
            let Some(file) = file else { continue };
            let image = self.open(&file);
            if let (Some(image), Some(reader)) = (image, self.read(main)) {
                is_right &= reader.take_split(id, &image);
                self.split_open += 1;
            } else {
                is_right = false;
            }
        }
        is_right
    }

    /// The functions at an address as linked in `main`.
    pub fn find(&mut self, main: &File, address: u64) -> Lookup {
        self.parse_once(main);
        match &self.reader {
            Parsed::Read(reader) => reader.find(address, &self.absent),
            Parsed::NotYet | Parsed::Not => Lookup::Damaged,
        }
    }

    /// Frees what was read of units.
    pub fn close_units(&mut self) {
        if let Parsed::Read(reader) = &self.reader {
            reader.close_units();
        }
    }

    /// Drops the reader. Split files must come again.
    pub fn forget(&mut self) {
        let has_others = self.is_split() || self.alternative.is_some();
        self.absent.clear();
        self.split_open = 0;
        match &self.reader {
            // Compressed sections take more memory than units.
            Parsed::Read(reader) if !has_others && !reader.is_resident() => reader.close_units(),
            Parsed::Read(_) => self.reader = Parsed::NotYet,
            Parsed::NotYet | Parsed::Not => {}
        }
    }

    fn read(&mut self, main: &File) -> Option<&mut Reader> {
        self.parse_once(main);
        match &mut self.reader {
            Parsed::Read(reader) => Some(reader),
            Parsed::NotYet | Parsed::Not => None,
        }
    }

    fn parse_once(&mut self, main: &File) {
        if matches!(self.reader, Parsed::NotYet) {
            self.reader = self.parse(main).unwrap_or(Parsed::Not);
        }
    }

    fn parse(&self, main: &File) -> Option<Parsed> {
        let image = self.open(main)?;
        let alternative = match &self.alternative {
            Some(file) => Some(self.open(file)?),
            None => None,
        };
        let mut reader = Reader::open(&image, alternative.as_ref()).ok()?;
        if let Some(package) = self.package.as_ref().and_then(|package| self.open(package)) {
            reader.take_package(&package);
        }
        Some(Parsed::Read(Box::new(reader)))
    }

    fn open(&self, file: &File) -> Option<Image> {
        Image::open(file, &self.cache)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that a large file which was cut since its headers were read is never left to blazesym, which would map it.
    #[test]
    fn large_file_that_was_cut_stays_here() {
        let cut = tempfile::tempfile().unwrap();
        let mut linked = LinkedFiles::new(Rc::default());
        linked.look(&cut, LARGE_BYTES);
        assert!(linked.is_needed());
        assert!(matches!(linked.find(&cut, 0), Lookup::Damaged));
        assert!(linked.is_needed());
    }
}
