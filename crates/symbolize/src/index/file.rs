//! The index of one build id: a file that names addresses, made once and mapped into memory.
//!
//! It is a head of 4 KiB with a checksum of its own, a symcache (symbolic-symcache), and the paths of source files. The head has the
//! checksum of the other two. The symcache's addresses are 32 bits wide and count from the file's first load segment. Its function
//! names are `readable NUL mangled`, or one name where both are the same; its files are numbers of paths.
//!
//! Both checksums are checked before the first look-up. Look-ups have limits all the same: the index was made from an untrusted
//! file.
//!
//! Names are demangled when the index is made, so that a look-up only borrows. A million random addresses take 0.28 s in the index
//! of a Rust program of 29 MB (1.78 functions each; the index has 5.9 MB, is made in 0.24 s and opened in 0.3 ms), and 0.47 s in
//! one of C++ (3.82 functions each): `cargo bench -p pilotlight-server --bench symbols`.

use std::fs::File;
use std::io::{self, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use bytes::BufMut as _;
use elf::{BuildId, Layout};
use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};
use symbolic_common::ByteView;
use symbolic_symcache::SymCache;

use super::paths::decode_paths;

/// Bytes of the head: a page, so that the symcache is aligned. 64 segments take 1.9 KiB, the origin 1 KiB, the other fields less
/// than 200 bytes.
pub const HEAD_BYTES: usize = 4096;

/// Bytes of [`IndexHead::origin`].
pub const ORIGIN_BYTES_MAX: usize = 1024;

/// The last byte is the format's version. An index of another version is dropped, and made again from the next upload.
const MAGIC: [u8; 8] = *b"PLINDEX\x03";

/// Frames at one address. Compilers stop inlining at some 20 to 100; a cycle in a damaged index ends here.
const INLINED_MAX: usize = 256;

/// One function at an address, the innermost inlined one first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceFrame<'a> {
    /// Demangled name.
    pub function: &'a str,
    /// Mangled name; empty if it is the same.
    pub system_name: &'a str,
    /// Source file with its directory, or empty.
    pub file: &'a str,
    /// Line in `file` that the address belongs to, or 0.
    pub line: u32,
    /// Line where the function starts, or 0.
    pub start_line: u32,
}

/// Quality of a file's names; better is greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Rank {
    /// Names of functions.
    SymbolTable,
    /// Names, inlined calls, files and lines.
    DebugInfo,
}

impl Rank {
    /// Its name in metrics and answers.
    pub fn name(self) -> &'static str {
        match self {
            Self::SymbolTable => "symbol_table",
            Self::DebugInfo => "debug_info",
        }
    }
}

/// The head of an index.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexHead {
    /// Build id of the ELF file.
    pub build_id: BuildId,
    /// Quality of its names.
    pub rank: Rank,
    /// Origin of the ELF file.
    pub origin: String,
    /// When the index was made, in milliseconds since the Unix epoch.
    pub created_ms: u64,
    /// Bytes of the ELF file.
    pub source_bytes: u64,
    /// Functions whose debug information could not be read.
    pub unreadable: u64,
    /// The address as linked that the symcache's addresses count from.
    pub load_address: u64,
    /// Load segments, if those of the ELF file are those of the program.
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
    /// It is no index, or of another version.
    #[error("it is not an index of this version")]
    Format,
    /// A checksum is wrong.
    #[error("its {0} does not have the checksum that it was written with")]
    Checksum(&'static str),
    /// It is shorter or longer than its head says.
    #[error("it has {has} bytes, and its head says {wanted}")]
    Length {
        /// Bytes that it has.
        has: u64,
        /// Bytes that it should have.
        wanted: u64,
    },
}

impl IndexHead {
    /// Encodes the head in [`HEAD_BYTES`]: the version, the fields in postcard's form, zeros, and a checksum.
    pub fn encode(&self) -> Vec<u8> {
        let origin_end = self.origin.floor_char_boundary(ORIGIN_BYTES_MAX);
        let head = Self {
            origin: self.origin[..origin_end].to_owned(),
            ..self.clone()
        };
        // SANITY: only types with an encoding of their own can fail.
        let mut out = postcard::to_extend(&head, MAGIC.to_vec()).expect("fields have a form");
        out.resize(HEAD_BYTES - 4, 0);
        out.put_u32_le(crc32c::crc32c(&out));
        out
    }

    /// Reads a head from the start of a file.
    ///
    /// # Errors
    /// It is no head, or damaged.
    pub fn decode(bytes: &[u8]) -> Result<Self, IndexError> {
        let head = bytes.get(..HEAD_BYTES).ok_or(IndexError::Format)?;
        if !head.starts_with(&MAGIC) {
            return Err(IndexError::Format);
        }
        let (checked, crc) = head.split_at(HEAD_BYTES - 4);
        if crc32c::crc32c(checked).to_le_bytes() != crc {
            return Err(IndexError::Checksum("head"));
        }
        let decoded = postcard::take_from_bytes(&checked[MAGIC.len()..]);
        let (head, _) = decoded.map_err(|_| IndexError::Format)?;
        Ok(head)
    }
}

/// A mapped index with correct checksums.
#[derive(Debug)]
pub struct Index {
    head: IndexHead,
    bytes: ByteView<'static>,
}

impl Index {
    /// Reads the head of a file, and checks the file's length.
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

    /// Maps a file, and reads it once for its checksum.
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

    /// Its head.
    pub fn head(&self) -> &IndexHead {
        &self.head
    }

    /// Names file offsets: calls `name` with the position in `offsets` and its frames, for each offset that has any.
    ///
    /// # Errors
    /// The index is damaged although its checksums are correct.
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
            start_lines: FxHashMap::default(),
        };
        let mut found = Vec::new();
        for (position, offset) in offsets.iter().enumerate() {
            let address = layout
                .address_of(*offset)
                .and_then(|address| address.checked_sub(self.head.load_address));
            let Some(address) = address.filter(|address| *address < u64::from(u32::MAX)) else {
                continue;
            };
            found.clear();
            // The symcache's reader indexes its tables by numbers from the file, unchecked.
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
    /// Lines of functions by their first address.
    start_lines: FxHashMap<u32, u32>,
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

    /// The line of a function's first instruction; inlined functions have none.
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
