//! What unwinding needs of an ELF file.

use std::borrow::Cow;

use object::elf::{EM_X86_64, PF_X, PT_GNU_EH_FRAME, PT_LOAD, ProgramHeader64};
use object::read::elf::{ElfFile64, ProgramHeader as _};
use object::{LittleEndian, Object as _, ObjectSection as _, ReadRef};

/// What one file may take. The largest that are known are browsers and compilers with 100 to
/// 200 MB of code.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of a section of call frame information, uncompressed. Chromium's 190 MB of code have
    /// 27 MB of it.
    pub section_bytes_max: u64,
    /// Functions. Chromium has 700,000; with 32 bytes each while they are sorted, two million take
    /// 64 MB.
    pub functions_max: usize,
    /// Rows, 4 bytes each: 64 MB.
    pub rows_max: usize,
    /// Bytes of instructions followed: those of a function, and again those that it shares with
    /// others. Honest files follow each byte about twice.
    pub work_bytes_max: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            section_bytes_max: 256 << 20,
            functions_max: 2 << 20,
            rows_max: 16 << 20,
            work_bytes_max: 512 << 20,
        }
    }
}

/// A part of the file that is mapped as code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CodeRange {
    /// Its address as linked.
    pub address: u64,
    /// Where it lies in the file.
    pub offset: u64,
    /// Its length, in bytes.
    pub bytes: u64,
}

impl CodeRange {
    /// The end in the file.
    pub fn offset_end(&self) -> u64 {
        self.offset.saturating_add(self.bytes)
    }

    /// The file offset of an address within.
    pub fn offset_of(&self, address: u64) -> Option<u64> {
        let into = address.checked_sub(self.address)?;
        (into < self.bytes).then(|| self.offset.saturating_add(into))
    }
}

/// Files have up to three.
const LINKAGES_MAX: usize = 8;

/// A section with its address as linked.
#[derive(Debug)]
pub(super) struct Section<'data> {
    pub(super) address: u64,
    pub(super) bytes: Cow<'data, [u8]>,
}

/// The parts of a file.
#[derive(Debug, Default)]
pub(super) struct Parts<'data> {
    pub(super) code: Vec<CodeRange>,
    pub(super) eh_frame: Option<Section<'data>>,
    pub(super) debug_frame: Option<Section<'data>>,
    /// Procedure linkage tables, as mapped; at most [`LINKAGES_MAX`].
    pub(super) linkages: Vec<CodeRange>,
    /// Address of `.text`, which some pointers in the sections are relative to.
    pub(super) text: Option<u64>,
    /// Address of `.got`, likewise.
    pub(super) got: Option<u64>,
}

/// Why a file has no parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PartsError {
    NotElf,
    OtherMachine,
    TooLarge,
}

impl<'data> Parts<'data> {
    /// Reads the headers of an x86-64 file and the sections with call frame information.
    pub(super) fn read<R: ReadRef<'data>>(data: R, limits: &Limits) -> Result<Self, PartsError> {
        let file: ElfFile64<'data, LittleEndian, R> =
            ElfFile64::parse(data).map_err(|_| PartsError::NotElf)?;
        let endian = file.endian();
        if file.elf_header().e_machine.get(endian) != EM_X86_64 {
            return Err(PartsError::OtherMachine);
        }
        let mut parts = Self::default();
        let headers = file.elf_program_headers();
        let is_code = |it: &&ProgramHeader64<LittleEndian>| {
            it.p_type(endian) == PT_LOAD && it.p_flags(endian).contains(PF_X)
        };
        parts.code = headers
            .iter()
            .filter(is_code)
            .map(|it| CodeRange {
                address: it.p_vaddr(endian),
                offset: it.p_offset(endian),
                bytes: it.p_filesz(endian),
            })
            .collect();
        for section in file.sections() {
            let address = section.address();
            match section.name_bytes() {
                Ok(b".plt" | b".plt.sec" | b".plt.got" | b".iplt") => {
                    if let Some((offset, bytes)) = section.file_range()
                        && parts.linkages.len() < LINKAGES_MAX
                    {
                        parts.linkages.push(CodeRange {
                            address,
                            offset,
                            bytes,
                        });
                    }
                }
                Ok(b".text") => parts.text = Some(address),
                Ok(b".got") => parts.got = Some(address),
                Ok(b".eh_frame") => parts.eh_frame = read_section(&section, limits)?,
                Ok(b".debug_frame" | b".zdebug_frame") => {
                    parts.debug_frame = read_section(&section, limits)?;
                }
                _ => {}
            }
        }
        parts.linkages.sort_by_key(|it| it.offset);
        if parts.eh_frame.is_none() {
            parts.eh_frame = find_eh_frame(headers, data, limits);
        }
        Ok(parts)
    }
}

/// The contents of a section; `None` when it cannot be read.
fn read_section<'data>(
    section: &impl object::ObjectSection<'data>,
    limits: &Limits,
) -> Result<Option<Section<'data>>, PartsError> {
    let Ok(compressed) = section.compressed_data() else {
        return Ok(None);
    };
    if compressed.uncompressed_size > limits.section_bytes_max {
        return Err(PartsError::TooLarge);
    }
    Ok(compressed.decompress().ok().map(|bytes| Section {
        address: section.address(),
        bytes,
    }))
}

/// The call frame information of a file whose section headers were taken off: the program
/// headers lead to `.eh_frame_hdr`, and that to `.eh_frame`, which has its own end.
fn find_eh_frame<'data, R: ReadRef<'data>>(
    headers: &[ProgramHeader64<LittleEndian>],
    data: R,
    limits: &Limits,
) -> Option<Section<'data>> {
    let endian = LittleEndian;
    let index = headers
        .iter()
        .find(|it| it.p_type(endian) == PT_GNU_EH_FRAME)?;
    let index_bytes = index.data(endian, data).ok()?;
    let bases = gimli::BaseAddresses::default().set_eh_frame_hdr(index.p_vaddr(endian));
    let parsed = gimli::EhFrameHdr::new(index_bytes, gimli::LittleEndian)
        .parse(&bases, 8)
        .ok()?;
    let gimli::Pointer::Direct(address) = parsed.eh_frame_ptr() else {
        return None;
    };
    let segment = headers.iter().find(|it| {
        let into = address.checked_sub(it.p_vaddr(endian));
        it.p_type(endian) == PT_LOAD && into.is_some_and(|into| into < it.p_filesz(endian))
    })?;
    let bytes = segment.data(endian, data).ok()?;
    let bytes = bytes.get((address - segment.p_vaddr(endian)) as usize..)?;
    (bytes.len() as u64 <= limits.section_bytes_max).then_some(Section {
        address,
        bytes: Cow::Borrowed(bytes),
    })
}
