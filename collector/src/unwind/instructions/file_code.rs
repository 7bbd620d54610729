//! The code of a file, of which only the parts that are looked at are read.

use std::cell::{Cell, OnceCell};

use codeflow::Code;
use elf::{FileRange, Headers, ReadAt, Segment};
use object::elf::{EM_X86_64, PT_DYNAMIC, PT_INTERP};
use rustc_hash::FxHashMap;

use super::super::parts::read_headers;

/// Bytes that are read at once.
const CHUNK_BYTES: u64 = 64 << 10;

/// Bytes behind a chunk that are read with it, so that nothing ends at a chunk's end: longer than code without a jump is.
const LOOKAHEAD_BYTES: u64 = 64 << 10;

/// Chunks that are read for a few addresses: 128 × 128 KiB are 16 MiB of memory. Beyond them nothing is readable, and what leads
/// there is undecided. Most closures lie in two chunks, and the functions that they call in a few more.
const CHUNKS_MAX: u32 = 128;

/// Bytes of all segments that can be read: 1 GiB, as much code of a file as has rows. 16,384 chunks take 400 KB while none is read.
const FILE_BYTES_MAX: u64 = 1 << 30;

/// Bytes of each table of symbols and imported functions, which take 0.1 ms then. musl's have 40 KB, those of most files are below 100;
/// with a larger one a call to `abort` counts as one that returns, and no function's start is known.
const TABLE_BYTES_MAX: u64 = 256 << 10;

/// Size of an entry of a table of relocations with addends, and of a table of symbols (System V ABI, chapter 4).
const RELOCATION_BYTES: usize = 24;
const SYMBOL_BYTES: usize = 24;

/// Bytes of a dynamic section, which has some thirty entries of 16 bytes.
const DYNAMIC_BYTES_MAX: u64 = 4 << 10;

/// Tag of a shared object's name.
const DT_SONAME: u64 = 14;

/// Type of a function's symbol.
const STT_FUNC: u8 = 2;

/// Types of relocations of words with a function's address (System V ABI for AMD64, table 4.9).
const GLOB_DAT: u32 = 6;
const JUMP_SLOT: u32 = 7;

/// A file's segments and imports.
pub(super) struct FileCode<'a, R: ?Sized> {
    file: &'a R,
    headers: Headers,
    segments: Vec<Chunks>,
    entry: u64,
    /// Whether functions' starts are told.
    tells_starts: Cell<bool>,
    chunks_left: Cell<u32>,
    imports: OnceCell<FxHashMap<u64, Box<str>>>,
    /// Tables of symbols.
    symbols: OnceCell<[Vec<u8>; 2]>,
}

/// A segment, and the parts of it that were read.
struct Chunks {
    segment: Segment,
    is_code: bool,
    chunks: Box<[OnceCell<Box<[u8]>>]>,
}

impl<'a, R: ReadAt + ?Sized> FileCode<'a, R> {
    /// Reads the headers; `None` if it is no file for this processor.
    pub(super) fn open(file: &'a R) -> Option<Self> {
        let headers = read_headers(file).ok()?;
        if headers.machine() != EM_X86_64 {
            return None;
        }
        let mut bytes_left = FILE_BYTES_MAX;
        let segments = headers
            .loads()
            .filter(|header| header.segment().is_possible())
            .map(|header| Chunks::new(header.segment(), header.is_code(), &mut bytes_left))
            .collect();
        // `e_entry`
        let entry = file.read_u64(24)?;
        Some(Self {
            segments,
            file,
            headers,
            entry,
            tells_starts: Cell::new(false),
            chunks_left: Cell::new(CHUNKS_MAX),
            imports: OnceCell::new(),
            symbols: OnceCell::new(),
        })
    }

    /// The address at which the kernel or the dynamic linker begins the file.
    pub(super) fn entry(&self) -> u64 {
        self.entry
    }

    /// The address as linked of code at an offset in the file.
    pub(super) fn address_of(&self, offset: u64) -> Option<u64> {
        let mut code = self.segments.iter().filter(|segment| segment.is_code);
        code.find_map(|code| code.segment.address_of(offset))
    }

    /// The offset in the file of code at an address as linked.
    pub(super) fn offset_of(&self, address: u64) -> Option<u64> {
        let mut code = self.segments.iter().filter(|segment| segment.is_code);
        code.find_map(|code| code.segment.offset_of(address))
    }

    /// Whether the file is a dynamic linker, which the kernel begins in a program's place: it has a name and asks for no other.
    pub(super) fn is_dynamic_linker(&self) -> bool {
        let mut headers = self.headers.program_headers().iter();
        let dynamic = headers.clone().find(|header| header.kind == PT_DYNAMIC);
        let asks_for_other = headers.any(|header| header.kind == PT_INTERP);
        let bytes = dynamic.and_then(|header| {
            let bytes = header.range.bytes.min(DYNAMIC_BYTES_MAX);
            self.file.read_range(FileRange {
                bytes,
                ..header.range
            })
        });
        let bytes = bytes.unwrap_or_default();
        let mut entries = bytes.as_chunks::<16>().0.iter();
        let has_name = entries.any(|entry| entry.first_chunk() == Some(&DT_SONAME.to_le_bytes()));
        has_name && !asks_for_other
    }

    /// Calls a function while the starts of functions that have symbols are told.
    pub(super) fn telling_starts<T>(&self, call: impl FnOnce() -> T) -> T {
        self.tells_starts.set(true);
        let result = call();
        self.tells_starts.set(false);
        result
    }

    /// The start of the function whose symbol covers an address.
    pub(super) fn find_function(&self, address: u64) -> Option<u64> {
        let tables = self.symbols.get_or_init(|| {
            [&b".symtab"[..], b".dynsym"].map(|name| self.section(name).unwrap_or_default())
        });
        tables.iter().find_map(|symbols| {
            let mut symbols = symbols.as_chunks::<SYMBOL_BYTES>().0.iter();
            symbols.find_map(|symbol| {
                let (head, rest) = symbol.split_first_chunk::<8>()?;
                let (start, bytes) = rest.split_first_chunk::<8>()?;
                let start = u64::from_le_bytes(*start);
                let bytes = u64::from_le_bytes(*bytes.first_chunk()?);
                let is_function = head[4] & 0xf == STT_FUNC;
                let is_inside = address.wrapping_sub(start) < bytes;
                (is_function && is_inside).then_some(start)
            })
        })
    }

    /// The bytes of a segment from a place in it on.
    fn bytes_at<'b>(&'b self, chunks: &'b Chunks, into: u64) -> Option<&'b [u8]> {
        let chunk = chunks.chunks.get((into / CHUNK_BYTES) as usize)?;
        if chunk.get().is_none() {
            self.chunks_left.set(self.chunks_left.get().checked_sub(1)?);
        }
        let bytes = chunk.get_or_init(|| {
            let start = into - into % CHUNK_BYTES;
            let left = chunks.segment.bytes - start;
            let mut bytes = vec![0; left.min(CHUNK_BYTES + LOOKAHEAD_BYTES) as usize];
            let read = self
                .file
                .pread(chunks.segment.file_offset + start, &mut bytes);
            bytes.truncate(read);
            bytes.into()
        });
        bytes.get((into % CHUNK_BYTES) as usize..)
    }

    /// Names of imported functions by the words that their addresses are written to.
    fn read_imports(&self) -> Option<FxHashMap<u64, Box<str>>> {
        let symbols = self.section(b".dynsym")?;
        let names = self.section(b".dynstr")?;
        let tables = [&b".rela.plt"[..], b".rela.dyn"].map(|name| self.section(name));
        let mut imports = FxHashMap::default();
        let entries = tables.iter().flatten();
        for entry in entries.flat_map(|table| table.as_chunks::<RELOCATION_BYTES>().0) {
            let (slot, rest) = entry.split_first_chunk::<8>()?;
            let (kind, rest) = rest.split_first_chunk::<4>()?;
            let symbol = u32::from_le_bytes(*rest.first_chunk()?) as usize;
            if ![GLOB_DAT, JUMP_SLOT].contains(&u32::from_le_bytes(*kind)) {
                continue;
            }
            let symbol = symbols.as_chunks::<SYMBOL_BYTES>().0.get(symbol);
            let name = symbol.and_then(|symbol| {
                let from = names.get(u32::from_le_bytes(*symbol.first_chunk()?) as usize..)?;
                let end = from.iter().position(|byte| *byte == 0)?;
                str::from_utf8(&from[..end]).ok()
            });
            if let Some(name) = name {
                imports.insert(u64::from_le_bytes(*slot), name.into());
            }
        }
        Some(imports)
    }

    fn section(&self, name: &[u8]) -> Option<Vec<u8>> {
        let range: FileRange = self.headers.section(name)?.file_range()?;
        (range.bytes <= TABLE_BYTES_MAX)
            .then(|| self.file.read_range(range))
            .flatten()
    }
}

impl Chunks {
    fn new(segment: Segment, is_code: bool, bytes_left: &mut u64) -> Self {
        let bytes = segment.bytes.min(*bytes_left);
        *bytes_left -= bytes;
        let count = bytes.div_ceil(CHUNK_BYTES) as usize;
        Self {
            segment: Segment { bytes, ..segment },
            is_code,
            chunks: vec![OnceCell::new(); count].into(),
        }
    }
}

impl<R: ReadAt + ?Sized> Code for FileCode<'_, R> {
    fn bytes(&self, address: u64) -> &[u8] {
        let mut segments = self.segments.iter();
        let found = segments.find_map(|chunks| {
            let into = address.checked_sub(chunks.segment.address)?;
            (into < chunks.segment.bytes).then_some((chunks, into))
        });
        let bytes = found.and_then(|(chunks, into)| self.bytes_at(chunks, into));
        bytes.unwrap_or_default()
    }

    fn function_start(&self, address: u64) -> Option<u64> {
        self.tells_starts
            .get()
            .then(|| self.find_function(address))?
    }

    fn import(&self, slot: u64) -> Option<&str> {
        let imports = self
            .imports
            .get_or_init(|| self.read_imports().unwrap_or_default());
        imports.get(&slot).map(|name| &**name)
    }
}
