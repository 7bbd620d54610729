//! Where in an ELF file Go's table lies, and which address is which place.
//!
//! Format: the gABI's headers. The sections' names are a help and no more: a file may have been stripped of
//! them, and the system's linker puts the table of a position-independent program among other data.

use super::blocks::Blocks;
use super::module::Module;
use super::table::Table;

/// Program headers looked at: linkers write about a dozen.
const PROGRAM_HEADERS_MAX: u64 = 64;
/// Sections looked at: linkers write 20 to 50.
const SECTIONS_MAX: u64 = 1024;
/// Entries of the dynamic section looked at: linkers write 20 to 40.
const DYNAMIC_MAX: u64 = 256;
/// Bytes in which the table is looked for by its first bytes, where no section says where it is: about 0.1 s, once for
/// a file. The largest Go programs (Kubernetes, Prometheus) have 50 to 150 MB.
const SCAN_BYTES_MAX: u64 = 256 << 20;
/// Places that begin as a table does and are none, in one file.
const CANDIDATES_MAX: usize = 16;

const PT_LOAD: u32 = 1;
const PT_DYNAMIC: u32 = 2;
const PT_NOTE: u32 = 4;
const PF_X: u32 = 1;
const PF_W: u32 = 2;

/// A part of the file and the addresses it is mapped at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Segment {
    pub(super) address: u64,
    pub(super) offset: u64,
    pub(super) bytes: u64,
    pub(super) flags: u32,
}

impl Segment {
    pub(super) fn is_writable(&self) -> bool {
        self.flags & PF_W != 0
    }

    pub(super) fn is_code(&self) -> bool {
        self.flags & PF_X != 0
    }

    fn address_of(&self, offset: u64) -> Option<u64> {
        let into = offset.checked_sub(self.offset)?;
        (into < self.bytes).then(|| self.address.checked_add(into))?
    }
}

/// A part of the file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Range {
    pub(super) offset: u64,
    pub(super) bytes: u64,
}

/// What the headers tell.
#[derive(Debug, Default)]
pub(super) struct Headers {
    pub(super) segments: Vec<Segment>,
    /// Section that has the module's record and nothing else (since Go 1.26).
    pub(super) module: Option<Range>,
    /// Relocations with addends.
    pub(super) relocations: Option<Range>,
    table: Option<Range>,
    has_sections: bool,
    is_go: bool,
}

impl Headers {
    /// Reads the headers of a 64-bit little-endian file.
    pub(super) fn read<R: Fn(u64, &mut [u8]) -> usize>(blocks: &mut Blocks<R>) -> Option<Self> {
        let header: [u8; 64] = blocks.array(0)?;
        if header[..6] != *b"\x7fELF\x02\x01" {
            return None;
        }
        let mut headers = Self::default();
        headers.read_segments(blocks, &header)?;
        // A damaged table of sections is as good as none.
        let _ = headers.read_sections(blocks, &header);
        Some(headers)
    }

    fn read_segments<R: Fn(u64, &mut [u8]) -> usize>(
        &mut self,
        blocks: &mut Blocks<R>,
        header: &[u8; 64],
    ) -> Option<()> {
        let count = u64::from(u16_at(header, 56)).min(PROGRAM_HEADERS_MAX);
        let mut dynamic = None;
        for index in 0..count {
            let at = u64_at(header, 32).checked_add(index * u64::from(u16_at(header, 54)))?;
            let entry: [u8; 56] = blocks.array(at)?;
            let segment = Segment {
                address: u64_at(&entry, 16),
                offset: u64_at(&entry, 8),
                bytes: u64_at(&entry, 32),
                flags: u32_at(&entry, 4),
            };
            match u32_at(&entry, 0) {
                PT_LOAD => self.segments.push(segment),
                PT_DYNAMIC => dynamic = Some(segment),
                PT_NOTE => self.is_go |= is_go_note(blocks, segment.offset),
                _ => {}
            }
        }
        self.relocations = dynamic.and_then(|it| self.find_relocations(blocks, &it));
        Some(())
    }

    fn find_relocations<R: Fn(u64, &mut [u8]) -> usize>(
        &self,
        blocks: &mut Blocks<R>,
        dynamic: &Segment,
    ) -> Option<Range> {
        const DT_NULL: u64 = 0;
        const DT_RELA: u64 = 7;
        const DT_RELASZ: u64 = 8;
        let (mut address, mut bytes) = (None, None);
        for index in 0..(dynamic.bytes / 16).min(DYNAMIC_MAX) {
            let at = dynamic.offset.checked_add(index * 16)?;
            let value = blocks.u64(at.checked_add(8)?)?;
            match blocks.u64(at)? {
                DT_NULL => break,
                DT_RELA => address = Some(value),
                DT_RELASZ => bytes = Some(value),
                _ => {}
            }
        }
        Some(Range {
            offset: self.offset_of(address?)?,
            bytes: bytes?,
        })
    }

    fn read_sections<R: Fn(u64, &mut [u8]) -> usize>(
        &mut self,
        blocks: &mut Blocks<R>,
        header: &[u8; 64],
    ) -> Option<()> {
        const SHT_NOBITS: u32 = 8;
        let table = u64_at(header, 40);
        let entry_bytes = u64::from(u16_at(header, 58));
        let count = u64::from(u16_at(header, 60)).min(SECTIONS_MAX);
        let names_at = table.checked_add(u64::from(u16_at(header, 62)) * entry_bytes)?;
        let names: [u8; 64] = blocks.array(names_at)?;
        let names = u64_at(&names, 24);
        for index in 0..count {
            let entry: [u8; 64] = blocks.array(table.checked_add(index * entry_bytes)?)?;
            let range = Range {
                offset: u64_at(&entry, 24),
                bytes: u64_at(&entry, 32),
            };
            let mut name = [0; 32];
            let name_at = names.checked_add(u64::from(u32_at(&entry, 0)))?;
            // The last name of the file may be shorter.
            for (place, byte) in name.iter_mut().enumerate() {
                *byte = blocks.u8(name_at.checked_add(place as u64)?).unwrap_or(0);
                if *byte == 0 {
                    break;
                }
            }
            let len = name
                .iter()
                .position(|byte| *byte == 0)
                .unwrap_or(name.len());
            if u32_at(&entry, 4) == SHT_NOBITS {
                continue;
            }
            self.has_sections |= len > 0;
            match &name[..len] {
                b".gopclntab" | b".data.rel.ro.gopclntab" => self.table = Some(range),
                b".go.module" => self.module = Some(range),
                b".go.buildinfo" | b".note.go.buildid" => self.is_go = true,
                _ => {}
            }
        }
        Some(())
    }

    /// The table, and what it is relative to.
    pub(super) fn find_table<R: Fn(u64, &mut [u8]) -> usize>(
        &self,
        blocks: &mut Blocks<R>,
    ) -> Option<(Table, Module)> {
        if let Some(range) = self.table {
            return self.read_table(blocks, range);
        }
        // A file with sections that Go did not make has none.
        if self.has_sections && !self.is_go {
            return None;
        }
        let mut bytes_left = SCAN_BYTES_MAX;
        let (code, data): (Vec<Segment>, Vec<Segment>) =
            self.segments.iter().partition(|segment| segment.is_code());
        for segment in data.iter().chain(&code) {
            let bytes = segment.bytes.min(bytes_left);
            bytes_left -= bytes;
            let end = segment.offset.saturating_add(bytes);
            for offset in find_candidates(blocks, segment.offset, end) {
                let bytes = segment.offset.saturating_add(segment.bytes) - offset;
                let found = self.read_table(blocks, Range { offset, bytes });
                if found.is_some() {
                    return found;
                }
            }
        }
        None
    }

    fn read_table<R: Fn(u64, &mut [u8]) -> usize>(
        &self,
        blocks: &mut Blocks<R>,
        range: Range,
    ) -> Option<(Table, Module)> {
        let table = Table::read(blocks, range)?;
        let module = Module::find(blocks, self, &table)?;
        Some((table, module))
    }

    /// The place in the file of what is mapped at an address.
    pub(super) fn offset_of(&self, address: u64) -> Option<u64> {
        self.segments.iter().find_map(|segment| {
            let into = address.checked_sub(segment.address)?;
            (into < segment.bytes).then(|| segment.offset.checked_add(into))?
        })
    }

    /// The address of an offset in the file that holds code; a page may be mapped twice, as code and as data.
    pub(super) fn address_of_code(&self, offset: u64) -> Option<u64> {
        let mut segments = self.segments.iter().filter(|it| it.is_code());
        segments.find_map(|segment| segment.address_of(offset))
    }

    /// The address of an offset in the file that holds data, preferably not among code.
    pub(super) fn address_of_data(&self, offset: u64) -> Option<u64> {
        let mut segments = self.segments.iter().filter(|it| !it.is_code());
        let found = segments.find_map(|segment| segment.address_of(offset));
        found.or_else(|| self.address_of_code(offset))
    }
}

/// Whether a table may begin with these 8 bytes: one of the magic numbers, two zeros, the size of an instruction, and
/// that of a pointer.
fn is_head(word: &[u8]) -> bool {
    matches!(
        word,
        [
            0xfb | 0xfa | 0xf0 | 0xf1,
            0xff,
            0xff,
            0xff,
            0,
            0,
            1 | 2 | 4,
            8
        ]
    )
}

/// Places at which a table may begin.
fn find_candidates<R: Fn(u64, &mut [u8]) -> usize>(
    blocks: &Blocks<R>,
    at: u64,
    end: u64,
) -> Vec<u64> {
    let mut found = Vec::new();
    blocks.scan(at, end, |at, piece| {
        let words = piece.chunks_exact(8).enumerate();
        let heads = words.filter(|(_, word)| is_head(word));
        found.extend(heads.map(|(index, _)| at + 8 * index as u64));
        found.len() < CANDIDATES_MAX
    });
    found.truncate(CANDIDATES_MAX);
    found
}

/// Whether the notes begin with Go's build id.
fn is_go_note<R: Fn(u64, &mut [u8]) -> usize>(blocks: &mut Blocks<R>, at: u64) -> bool {
    let note: Option<[u8; 16]> = blocks.array(at);
    note.is_some_and(|note| {
        u32_at(&note, 0) == 4 && u32_at(&note, 8) == 4 && note[12..] == *b"Go\0\0"
    })
}

fn u16_at<const N: usize>(bytes: &[u8; N], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at<const N: usize>(bytes: &[u8; N], at: usize) -> u32 {
    u32::from(u16_at(bytes, at)) | u32::from(u16_at(bytes, at + 2)) << 16
}

fn u64_at<const N: usize>(bytes: &[u8; N], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}
