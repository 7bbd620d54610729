//! What belongs to one file's debug information: the files that came so far, and what was parsed of them.

use std::fs::File;
use std::rc::Rc;

use rustc_hash::FxHashSet;

use super::bytes::BlockCache;
use super::image::Image;
use super::reader::{Lookup, Reader, is_split, load_main};
use super::unitwise::UnitwiseReader;
use crate::name::facts::AlternativeLink;

/// Split files that are known not to be there. Above it, they are looked for again.
const ABSENT_MAX: usize = 1 << 16;

/// Files that came with a request, open for reading.
#[derive(Default)]
pub struct Linking {
    /// The one that several files share, by `.gnu_debugaltlink`.
    pub alternative: Option<File>,
    /// The package of split units.
    pub package: Option<File>,
    /// Split files by their numbers; those without one are not to be had.
    pub split: Vec<(u64, Option<File>)>,
}

/// Split files of one program that are open; when there are more, what was parsed is forgotten, and those that are needed
/// come again. A descriptor each, of the child's 2048.
const SPLIT_OPEN_MAX: usize = 256;

/// Bytes of debug information without lines and names, above which it is read unit by unit. What is kept of all units
/// otherwise is as much again, so this is what the child may take. (What is compressed is in memory as a whole.)
const LARGE_BYTES: usize = if cfg!(fuzzing) { 1 << 9 } else { 48 << 20 };

/// The files that belong to one.
pub struct LinkedFiles {
    cache: Rc<BlockCache>,
    /// Not known before it is looked at.
    kind: Option<Kind>,
    alternative: Option<File>,
    package: Option<File>,
    absent: FxHashSet<u64>,
    split_open: usize,
    reader: Parsed,
}

/// What was seen of the debug information.
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
    /// It is too large for that.
    Unitwise(Box<UnitwiseReader>),
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
        self.kind.is_some_and(|it| it.is_split)
    }

    /// Looks what `main` is like, if that is not known.
    pub fn look(&mut self, main: &File) {
        if self.kind.is_none() {
            let image = self.open(main);
            self.kind = Some(image.map_or_else(Kind::default, |it| Kind {
                is_split: is_split(&it),
                is_large: it.plain_bytes(".debug_info") >= LARGE_BYTES,
            }));
        }
    }

    /// Whether this is to be asked for names, and not blazesym.
    pub fn is_needed(&self) -> bool {
        let kind = self.kind.unwrap_or_default();
        (kind.is_split || kind.is_large || self.alternative.is_some())
            && !matches!(self.reader, Parsed::Not)
    }

    /// Takes what came. Gives `false` if some of it is not what it should be.
    pub fn take(&mut self, files: Linking, main: &File, link: Option<&AlternativeLink>) -> bool {
        let mut is_right = true;
        if let (None, Some(file)) = (&self.alternative, files.alternative) {
            let build_id = self.open(&file).and_then(|it| it.build_id());
            if build_id.is_some() && build_id == link.map(|it| it.build_id) {
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
        // The end of the last address; addr2line adds one to it.
        if address == u64::MAX {
            return Lookup::Nothing;
        }
        self.parse_once(main);
        match &mut self.reader {
            Parsed::Read(reader) => reader.find(address, &self.absent),
            Parsed::Unitwise(reader) => reader.find(address),
            Parsed::NotYet | Parsed::Not => Lookup::Nothing,
        }
    }

    /// Forgets what was parsed. Split files must come again.
    pub fn forget(&mut self) {
        self.absent.clear();
        self.split_open = 0;
        match &mut self.reader {
            Parsed::Read(_) => self.reader = Parsed::NotYet,
            Parsed::Unitwise(reader) => reader.forget(),
            Parsed::NotYet | Parsed::Not => {}
        }
    }

    fn read(&mut self, main: &File) -> Option<&mut Reader> {
        self.parse_once(main);
        match &mut self.reader {
            Parsed::Read(reader) => Some(reader),
            _ => None,
        }
    }

    fn parse_once(&mut self, main: &File) {
        if matches!(self.reader, Parsed::NotYet) {
            self.reader = self.parse(main).unwrap_or(Parsed::Not);
        }
    }

    fn parse(&self, main: &File) -> Option<Parsed> {
        let image = self.open(main)?;
        if !self.is_split() && self.alternative.is_none() {
            let reader = UnitwiseReader::open(load_main(&image).ok()?).ok()?;
            return Some(Parsed::Unitwise(Box::new(reader)));
        }
        let alternative = match &self.alternative {
            Some(file) => Some(self.open(file)?),
            None => None,
        };
        let mut reader = Reader::open(&image, alternative.as_ref()).ok()?;
        if let Some(package) = self.package.as_ref().and_then(|it| self.open(it)) {
            reader.take_package(&package);
        }
        Some(Parsed::Read(Box::new(reader)))
    }

    fn open(&self, file: &File) -> Option<Image> {
        Image::open(file, &self.cache)
    }
}
