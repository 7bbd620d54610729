//! The index of one build id: a file that names addresses, made once and mapped into memory.
//!
//! A head of 4 KiB says what it is and has a checksum; after it come a symcache (symbolic-symcache) and the paths of source
//! files, whose checksum is in the head. The symcache's addresses are 32 bits wide and count from the file's first load segment.
//! Its function names are `readable NUL mangled`, or only one name where both are the same; its files are numbers of paths.
//!
//! Both checksums are right before anything is looked up, and what is looked up is bounded nevertheless: the index was
//! made from a file that somebody has sent.

use std::fs::File;
use std::io::{self, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use hashbrown::HashMap;
use symbolic_common::ByteView;
use symbolic_symcache::SymCache;

use super::build_id::{BUILD_ID_BYTES_MAX, BuildId};
use super::bytes::Reader;
use super::layout::Layout;
use super::paths::decode_paths;
use super::source::SourceFrame;

/// Bytes of the head: a page, so that what follows is aligned as the symcache wants it. 64 segments take 1.5 KiB, the
/// origin 1 KiB, and the rest less than 200 bytes.
pub const HEAD_BYTES: usize = 4096;

/// Longest text in a head that says where a file came from.
pub const ORIGIN_BYTES_MAX: usize = 1024;

/// The last byte is the format's version: an index of another one is dropped, and made again from the next upload.
const MAGIC: [u8; 8] = *b"PLINDEX\x01";

/// Calls that are inlined into each other at one address. Compilers stop at some 20 to 100; a circle in a damaged index ends
/// here.
const INLINED_MAX: usize = 256;

/// How much there is known of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rank {
    /// Names of functions.
    SymbolTable,
    /// Names, inlined calls, files and lines.
    DebugInfo,
}

impl Rank {
    /// As answers and metrics call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::SymbolTable => "symbol_table",
            Self::DebugInfo => "debug_info",
        }
    }

    fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::SymbolTable),
            2 => Some(Self::DebugInfo),
            _ => None,
        }
    }
}

/// What an index says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexHead {
    /// The build it is of.
    pub build_id: BuildId,
    /// How much is known.
    pub rank: Rank,
    /// Where the file came from.
    pub origin: String,
    /// When the index was made, in milliseconds since the Unix epoch.
    pub created_ms: u64,
    /// Bytes of the file that it was made from.
    pub source_bytes: u64,
    /// Functions whose debug information could not be read.
    pub unreadable: u64,
    /// The address as linked that the symcache's addresses count from.
    pub load_address: u64,
    /// Where the file is loaded, if the file itself says so.
    pub layout: Option<Layout>,
    /// Bytes of the symcache.
    pub cache_bytes: u64,
    /// Bytes of the symcache and the paths after it.
    pub body_bytes: u64,
    /// CRC32C of both.
    pub body_crc: u32,
}

/// Why a file is not an index.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// It cannot be read.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// It is something else, or of another version.
    #[error("it is not an index of this version")]
    Format,
    /// A checksum is wrong.
    #[error("its {0} does not have the checksum that it was written with")]
    Checksum(&'static str),
    /// It is shorter or longer than its head says.
    #[error("it has {has} bytes, and its head says {wanted}")]
    Length {
        /// What there is.
        has: u64,
        /// What there should be.
        wanted: u64,
    },
}

impl IndexHead {
    /// Writes the head.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEAD_BYTES);
        out.extend(MAGIC);
        // 1 and 2: 0 is what a file has that was never written.
        out.push(self.rank as u8 + 1);
        put_text(&mut out, self.build_id.as_str());
        put_text(&mut out, shorten(&self.origin));
        for number in [
            self.created_ms,
            self.source_bytes,
            self.unreadable,
            self.load_address,
            self.cache_bytes,
            self.body_bytes,
        ] {
            out.extend(number.to_le_bytes());
        }
        out.extend(self.body_crc.to_le_bytes());
        match &self.layout {
            Some(layout) => layout.encode(&mut out),
            None => out.extend(0u32.to_le_bytes()),
        }
        out.resize(HEAD_BYTES - 4, 0);
        let crc = crc32c::crc32c(&out);
        out.extend(crc.to_le_bytes());
        out
    }

    /// Reads a head from a file's beginning.
    ///
    /// # Errors
    /// It is not one, or damaged.
    pub fn decode(bytes: &[u8]) -> Result<Self, IndexError> {
        let head = bytes.get(..HEAD_BYTES).ok_or(IndexError::Format)?;
        if !head.starts_with(&MAGIC) {
            return Err(IndexError::Format);
        }
        let (checked, crc) = head.split_at(HEAD_BYTES - 4);
        if crc32c::crc32c(checked).to_le_bytes() != crc {
            return Err(IndexError::Checksum("head"));
        }
        Self::decode_fields(&checked[MAGIC.len()..]).ok_or(IndexError::Format)
    }

    fn decode_fields(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let rank = Rank::from_byte(reader.u8()?)?;
        let build_id = take_text(&mut reader, 2 * BUILD_ID_BYTES_MAX)?
            .parse()
            .ok()?;
        let origin = take_text(&mut reader, ORIGIN_BYTES_MAX)?;
        Some(Self {
            build_id,
            rank,
            origin,
            created_ms: reader.u64()?,
            source_bytes: reader.u64()?,
            unreadable: reader.u64()?,
            load_address: reader.u64()?,
            cache_bytes: reader.u64()?,
            body_bytes: reader.u64()?,
            body_crc: reader.u32()?,
            layout: Layout::decode(&mut reader)?,
        })
    }
}

fn shorten(text: &str) -> &str {
    let mut end = text.len().min(ORIGIN_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u32).to_le_bytes());
    out.extend(text.as_bytes());
}

fn take_text(reader: &mut Reader<'_>, bytes_max: usize) -> Option<String> {
    let length = reader.u32()? as usize;
    if length > bytes_max {
        return None;
    }
    Some(std::str::from_utf8(reader.take(length)?).ok()?.to_owned())
}

/// An index that is mapped, and whose checksums are right.
#[derive(Debug)]
pub struct Index {
    head: IndexHead,
    bytes: ByteView<'static>,
}

impl Index {
    /// Reads only the head of a file, and checks the file's length against it.
    ///
    /// # Errors
    /// It is not an index, or damaged.
    pub fn read_head(path: &Path) -> Result<IndexHead, IndexError> {
        let mut file = File::open(path)?;
        let mut bytes = Vec::with_capacity(HEAD_BYTES);
        file.by_ref()
            .take(HEAD_BYTES as u64)
            .read_to_end(&mut bytes)?;
        let head = IndexHead::decode(&bytes)?;
        check_length(&head, file.metadata()?.len())?;
        Ok(head)
    }

    /// Maps a file, and reads all of it once for its checksum.
    ///
    /// # Errors
    /// It is not an index, or damaged.
    pub fn open(path: &Path) -> Result<Self, IndexError> {
        Self::new(ByteView::open(path)?)
    }

    /// An index in memory.
    ///
    /// # Errors
    /// It is not an index, or damaged.
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self, IndexError> {
        Self::new(ByteView::from_vec(bytes))
    }

    fn new(bytes: ByteView<'static>) -> Result<Self, IndexError> {
        let head = IndexHead::decode(&bytes)?;
        check_length(&head, bytes.len() as u64)?;
        let body = &bytes[HEAD_BYTES..];
        if crc32c::crc32c(body) != head.body_crc {
            return Err(IndexError::Checksum("body"));
        }
        let index = Self { head, bytes };
        index.parts()?;
        Ok(index)
    }

    /// The symcache, and the paths by number.
    fn parts(&self) -> Result<(SymCache<'_>, Vec<&str>), IndexError> {
        let body = &self.bytes[HEAD_BYTES..];
        let parts = usize::try_from(self.head.cache_bytes)
            .ok()
            .and_then(|length| body.split_at_checked(length));
        let (cache, paths) = parts.ok_or(IndexError::Format)?;
        Ok((
            SymCache::parse(cache).map_err(|_| IndexError::Format)?,
            decode_paths(paths).ok_or(IndexError::Format)?,
        ))
    }

    /// What it says about itself.
    pub fn head(&self) -> &IndexHead {
        &self.head
    }

    /// Names offsets of the file: `name` gets the position in `offsets` and the frames there.
    ///
    /// # Errors
    /// The index is damaged in a way that its checksums do not show.
    pub fn name(
        &self,
        layout: &Layout,
        offsets: &[u64],
        name: &mut dyn FnMut(usize, &[SourceFrame<'_>]),
    ) -> Result<(), IndexError> {
        let (cache, paths) = self.parts()?;
        let mut lookup = Lookup {
            cache: &cache,
            paths: &paths,
            start_lines: HashMap::new(),
        };
        let mut found = Vec::new();
        for (position, offset) in offsets.iter().enumerate() {
            let address = layout
                .address(*offset)
                .and_then(|address| address.checked_sub(self.head.load_address));
            let Some(address) = address.filter(|address| *address < u64::from(u32::MAX)) else {
                continue;
            };
            found.clear();
            // The symcache's reader indexes into its tables by numbers in them.
            catch_unwind(AssertUnwindSafe(|| lookup.find(address, &mut found)))
                .map_err(|_| IndexError::Format)?;
            if !found.is_empty() {
                name(position, &found);
            }
        }
        Ok(())
    }
}

fn check_length(head: &IndexHead, has: u64) -> Result<(), IndexError> {
    let wanted = head.body_bytes.saturating_add(HEAD_BYTES as u64);
    if has == wanted {
        Ok(())
    } else {
        Err(IndexError::Length { has, wanted })
    }
}

struct Lookup<'a, 'c> {
    cache: &'c SymCache<'a>,
    paths: &'c [&'a str],
    /// Lines of the functions that were met, by their first address.
    start_lines: HashMap<u32, u32>,
}

impl<'a> Lookup<'a, '_> {
    /// The frames at an address, the innermost first.
    fn find(&mut self, address: u64, found: &mut Vec<SourceFrame<'a>>) {
        let cache = self.cache;
        for location in cache.lookup(address).take(INLINED_MAX) {
            let name = location.function();
            let (function, system_name) = name.name().split_once('\0').unwrap_or((name.name(), ""));
            let line = location.line();
            let number = location
                .file()
                .and_then(|file| file.full_path().parse::<usize>().ok());
            let file = number.and_then(|number| self.paths.get(number)).copied();
            found.push(SourceFrame {
                function,
                system_name,
                file: file.unwrap_or_default(),
                line,
                start_line: if line == 0 {
                    0
                } else {
                    self.start_line(name.entry_pc())
                },
            });
        }
    }

    /// The line of a function's first instruction, which is where its body opens; inlined ones have none.
    fn start_line(&mut self, entry: u32) -> u32 {
        if entry == u32::MAX {
            return 0;
        }
        let cache = self.cache;
        *self.start_lines.entry(entry).or_insert_with(|| {
            let outermost = cache.lookup(u64::from(entry)).take(INLINED_MAX).last();
            outermost
                .filter(|location| location.function().entry_pc() == entry)
                .map_or(0, |location| location.line())
        })
    }
}
