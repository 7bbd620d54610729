//! What unwinding needs of an ELF file.

use std::borrow::Cow;

use object::elf::{
    ELFCOMPRESS_ZLIB, ELFCOMPRESS_ZSTD, EM_X86_64, FileHeader64, Machine, PF_X, PT_GNU_EH_FRAME,
    PT_LOAD, ProgramHeader64, SectionHeader64,
};
use object::read::elf::{FileHeader as _, ProgramHeader as _, SectionHeader as _};
use object::{CompressedFileRange, CompressionFormat, LittleEndian, ReadRef};

use crate::process::{NAMES_BYTES_MAX, SECTIONS_MAX, SEGMENTS_MAX};

/// What one file may take. The largest that are known are browsers and compilers with 100 to
/// 200 MB of code.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of call frame information, of all sections together, and of one that is compressed in both
    /// forms: that is what is held at once. Chromium's 190 MB of code have 27 MB of it.
    pub section_bytes_max: u64,
    /// Functions. Chromium has 700,000; with 32 bytes each while they are sorted, two million take
    /// 64 MB.
    pub functions_max: usize,
    /// Rows, 4 bytes each: 64 MB.
    pub rows_max: usize,
    /// Bytes of entries gone through: those of a function, and again those that it shares with
    /// others, once to list and once to follow them. Honest files go through each byte about four
    /// times.
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

/// The headers of a file: 64 segments, 4,096 sections and 64 KiB of names at most, in all 330 KB. Its symbols, and whatever
/// else may be large, are not read.
pub(super) struct Headers<'data> {
    pub(super) machine: Machine,
    pub(super) programs: &'data [ProgramHeader64<LittleEndian>],
    sections: &'data [SectionHeader64<LittleEndian>],
    names: &'data [u8],
}

impl<'data> Headers<'data> {
    pub(super) fn read<R: ReadRef<'data>>(data: R) -> Result<Self, PartsError> {
        let not_elf = |_| PartsError::NotElf;
        let header = FileHeader64::<LittleEndian>::parse(data).map_err(not_elf)?;
        let endian = header.endian().map_err(not_elf)?;
        let programs = header.phnum(endian, data).map_err(not_elf)?;
        let sections = header.shnum(endian, data).map_err(not_elf)?;
        if programs as usize > SEGMENTS_MAX || sections as usize > SECTIONS_MAX {
            return Err(PartsError::TooLarge);
        }
        let sections = header.section_headers(endian, data).map_err(not_elf)?;
        let names_in = match sections {
            [] => None,
            _ => sections.get(header.shstrndx(endian, data).map_err(not_elf)? as usize),
        };
        // Read at once: one at a time, each would be kept, with up to 4 KB.
        let names = match names_in.and_then(|it| it.file_range(endian)) {
            Some((_, bytes)) if bytes > NAMES_BYTES_MAX => return Err(PartsError::TooLarge),
            Some((offset, bytes)) => data
                .read_bytes_at(offset, bytes)
                .map_err(|()| PartsError::NotElf)?,
            None => &[],
        };
        Ok(Self {
            machine: header.e_machine(endian),
            programs: header.program_headers(endian, data).map_err(not_elf)?,
            sections,
            names,
        })
    }

    /// The sections with their names.
    pub(super) fn named_sections(
        &self,
    ) -> impl Iterator<Item = (&'data [u8], &'data SectionHeader64<LittleEndian>)> {
        self.sections.iter().filter_map(|section| {
            let name = self.names.get(section.sh_name(LittleEndian) as usize..)?;
            Some((name.split(|byte| *byte == 0).next()?, section))
        })
    }
}

impl<'data> Parts<'data> {
    /// Reads the headers of an x86-64 file and the sections with call frame information, of each name the first.
    pub(super) fn read<R: ReadRef<'data>>(data: R, limits: &Limits) -> Result<Self, PartsError> {
        let file = Headers::read(data)?;
        let endian = LittleEndian;
        if file.machine != EM_X86_64 {
            return Err(PartsError::OtherMachine);
        }
        let mut parts = Self::default();
        let headers = file.programs;
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
        let mut bytes_left = limits.section_bytes_max;
        let (mut has_eh_frame, mut has_debug_frame) = (false, false);
        for (name, section) in file.named_sections() {
            let address = section.sh_addr(endian);
            match name {
                b".plt" | b".plt.sec" | b".plt.got" | b".iplt" => {
                    if let Some((offset, bytes)) = section.file_range(endian)
                        && parts.linkages.len() < LINKAGES_MAX
                    {
                        parts.linkages.push(CodeRange {
                            address,
                            offset,
                            bytes,
                        });
                    }
                }
                b".text" => parts.text = Some(address),
                b".got" => parts.got = Some(address),
                b".eh_frame" if !has_eh_frame => {
                    has_eh_frame = true;
                    parts.eh_frame = read_section(section, data, &mut bytes_left)?;
                }
                b".debug_frame" | b".zdebug_frame" if !has_debug_frame => {
                    has_debug_frame = true;
                    parts.debug_frame = read_section(section, data, &mut bytes_left)?;
                }
                _ => {}
            }
        }
        parts.linkages.sort_by_key(|it| it.offset);
        if parts.eh_frame.is_none() {
            parts.eh_frame = find_eh_frame(headers, data, bytes_left);
        }
        Ok(parts)
    }
}

/// The contents of a section, which are taken from the bytes that are left; `None` when it cannot be read.
fn read_section<'data, R: ReadRef<'data>>(
    section: &SectionHeader64<LittleEndian>,
    data: R,
    bytes_left: &mut u64,
) -> Result<Option<Section<'data>>, PartsError> {
    let Some(range) = compressed_range(section, data) else {
        return Ok(None);
    };
    let bytes = match range.format {
        CompressionFormat::None => range.uncompressed_size,
        _ => range
            .compressed_size
            .saturating_add(range.uncompressed_size),
    };
    *bytes_left = bytes_left.checked_sub(bytes).ok_or(PartsError::TooLarge)?;
    let bytes = range.data(data).and_then(|it| it.decompress());
    Ok(bytes.ok().map(|bytes| Section {
        address: section.sh_addr(LittleEndian),
        bytes,
    }))
}

/// Where a section lies, and how large it is in the file and in truth.
fn compressed_range<'data, R: ReadRef<'data>>(
    section: &SectionHeader64<LittleEndian>,
    data: R,
) -> Option<CompressedFileRange> {
    let endian = LittleEndian;
    let Some((header, offset, compressed_size)) = section.compression(endian, data).ok()? else {
        let range = section.file_range(endian);
        let old = range.and_then(|(offset, bytes)| old_compressed_range(offset, bytes, data));
        return Some(old.unwrap_or_else(|| CompressedFileRange::none(range)));
    };
    let format = match header.ch_type.get(endian) {
        ELFCOMPRESS_ZLIB => CompressionFormat::Zlib,
        ELFCOMPRESS_ZSTD => CompressionFormat::Zstandard,
        _ => return None,
    };
    Some(CompressedFileRange {
        format,
        offset,
        compressed_size,
        uncompressed_size: header.ch_size.get(endian),
    })
}

/// As linkers compressed a `.zdebug_frame` before there was a flag for it: `ZLIB`, and the length in truth in eight bytes,
/// the highest first. Nothing else begins so: as a length, it would be one of 1.1 GB.
fn old_compressed_range<'data, R: ReadRef<'data>>(
    offset: u64,
    bytes: u64,
    data: R,
) -> Option<CompressedFileRange> {
    let (name, length) = data.read_bytes_at(offset, 12).ok()?.split_at(4);
    let uncompressed_size = u64::from_be_bytes(*length.first_chunk()?);
    (name == b"ZLIB").then_some(CompressedFileRange {
        format: CompressionFormat::Zlib,
        offset: offset.checked_add(12)?,
        compressed_size: bytes.checked_sub(12)?,
        uncompressed_size,
    })
}

/// The call frame information of a file whose section headers were taken off: the program
/// headers lead to `.eh_frame_hdr`, and that to `.eh_frame`, which has its own end.
fn find_eh_frame<'data, R: ReadRef<'data>>(
    headers: &[ProgramHeader64<LittleEndian>],
    data: R,
    bytes_max: u64,
) -> Option<Section<'data>> {
    let endian = LittleEndian;
    let index = headers
        .iter()
        .find(|it| it.p_type(endian) == PT_GNU_EH_FRAME)?;
    let bytes_left = bytes_max.checked_sub(index.p_filesz(endian))?;
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
    let into = address - segment.p_vaddr(endian);
    let length = segment.p_filesz(endian) - into;
    if length > bytes_left {
        return None;
    }
    let offset = segment.p_offset(endian).checked_add(into)?;
    Some(Section {
        address,
        bytes: Cow::Borrowed(data.read_bytes_at(offset, length).ok()?),
    })
}

#[cfg(test)]
mod tests {
    use std::fs::{File, OpenOptions};
    use std::os::unix::fs::FileExt as _;

    use object::ReadCache;

    use super::*;

    /// A copy of a program as long as the largest that is opened, with a hole behind it, and some words of it changed.
    fn huge(change: impl Fn(&File, u64)) -> Result<(), PartsError> {
        const BYTES: u64 = 16 << 30;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("huge");
        std::fs::copy("/bin/ls", &path).unwrap();
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(path)
            .unwrap();
        file.set_len(BYTES).unwrap();
        change(&file, BYTES);
        Parts::read(&ReadCache::new(file), &Limits::default()).map(drop)
    }

    /// Names of sections, and where in their table two of them are.
    const NAMES: &[u8] = b"\0.eh_frame\0.debug_frame\0";
    const EH_FRAME: u32 = 1;
    const DEBUG_FRAME: u32 = 11;

    /// Puts such sections (name, offset, bytes) at the end of a file, in place of its own.
    fn put_sections(file: &File, file_bytes: u64, sections: &[(u32, u64, u64)]) {
        let names_at = file_bytes - NAMES.len() as u64;
        let names = (0, names_at, NAMES.len() as u64);
        let headers = sections.iter().chain([&names]).flat_map(|section| {
            let (name, offset, bytes) = *section;
            let mut header = [0; 64];
            header[..4].copy_from_slice(&name.to_le_bytes());
            header[4] = 1;
            header[24..32].copy_from_slice(&offset.to_le_bytes());
            header[32..40].copy_from_slice(&bytes.to_le_bytes());
            header
        });
        let headers: Vec<u8> = headers.collect();
        let at = names_at - headers.len() as u64;
        file.write_all_at(&headers, at).unwrap();
        file.write_all_at(NAMES, names_at).unwrap();
        file.write_all_at(&at.to_le_bytes(), 40).unwrap();
        let count = sections.len() as u16;
        file.write_all_at(&(count + 1).to_le_bytes(), 60).unwrap();
        file.write_all_at(&count.to_le_bytes(), 62).unwrap();
    }

    /// Check that of many sections with one name the first is read, whether or not it can be, and that there are neither
    /// many sections nor many names. (If all were read, it would be 15 GB of memory.)
    #[test]
    fn many_sections_of_one_name() {
        const BYTES: u64 = 100 << 20;
        let read = |sections: &[_]| huge(|file, bytes| put_sections(file, bytes, sections));
        let alike: Vec<_> = (0..150).map(|it| (EH_FRAME, it * BYTES, BYTES)).collect();
        assert_eq!(read(&alike), Ok(()));
        let second = [(EH_FRAME, u64::MAX, 1), (EH_FRAME, 0, 3 * BYTES)];
        assert_eq!(read(&second), Ok(()));
        let together = [(EH_FRAME, 0, 2 * BYTES), (DEBUG_FRAME, 0, 2 * BYTES)];
        assert_eq!(read(&together), Err(PartsError::TooLarge));
        assert_eq!(read(&[(0, 0, 0); 4096]), Err(PartsError::TooLarge));
        let names = huge(|file, _| {
            let (sections, index) = (read_u64(file, 40), read_u64(file, 56) >> 48);
            let bytes = (1_u64 << 20).to_le_bytes();
            file.write_all_at(&bytes, sections + index * 64 + 32)
                .unwrap();
        });
        assert_eq!(names, Err(PartsError::TooLarge));
        let segments = huge(|file, _| {
            file.write_all_at(&65_u16.to_le_bytes(), 56).unwrap();
        });
        assert_eq!(segments, Err(PartsError::TooLarge));
        assert!(peak_kb() < 2 << 20, "{} kB", peak_kb());
    }

    fn peak_kb() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let peak = status.lines().find(|line| line.starts_with("VmHWM"));
        let peak = peak.unwrap().split_ascii_whitespace().nth(1).unwrap();
        peak.parse().unwrap()
    }

    fn read_u64(file: &File, at: u64) -> u64 {
        let mut bytes = [0; 8];
        file.read_exact_at(&mut bytes, at).unwrap();
        u64::from_le_bytes(bytes)
    }

    /// Check that nothing is read at the length that a file claims: not that many headers of sections or of segments, nor
    /// sections that are that long. (If it were, it would be 12 GB of memory.)
    #[test]
    fn claims_of_a_huge_file() {
        assert_eq!(huge(|_, _| ()), Ok(()));
        let sections = huge(|file, bytes| {
            let count = 200_000_000_u64;
            let at = bytes - count * 64;
            file.write_all_at(&at.to_le_bytes(), 40).unwrap();
            file.write_all_at(&[0; 2], 60).unwrap();
            file.write_all_at(&count.to_le_bytes(), at + 32).unwrap();
        });
        assert_eq!(sections, Err(PartsError::TooLarge));
        let segments = huge(|file, _| {
            file.write_all_at(&[0xff; 2], 56).unwrap();
            let sections = read_u64(file, 40);
            file.write_all_at(&200_000_000_u32.to_le_bytes(), sections + 44)
                .unwrap();
        });
        assert_eq!(segments, Err(PartsError::TooLarge));
        let all_sections = huge(|file, bytes| {
            let at = read_u64(file, 40);
            for section in 1..20 {
                let offset = read_u64(file, at + section * 64 + 24);
                file.write_all_at(&(bytes - offset).to_le_bytes(), at + section * 64 + 32)
                    .unwrap();
            }
        });
        assert_eq!(all_sections, Err(PartsError::TooLarge));
        let without_sections = huge(|file, bytes| {
            file.write_all_at(&[0; 8], 40).unwrap();
            file.write_all_at(&[0; 4], 60).unwrap();
            for segment in 0..8 {
                let at = read_u64(file, 32) + segment * 56;
                let offset = read_u64(file, at + 8);
                file.write_all_at(&(bytes - offset).to_le_bytes(), at + 32)
                    .unwrap();
            }
        });
        assert_eq!(without_sections, Ok(()));
        assert!(peak_kb() < 2 << 20, "{} kB", peak_kb());
    }

    /// Check the two ways in which sections are compressed, and the one without.
    #[test]
    fn compressed_sections() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        std::fs::write(at("a.c"), "int main(int n, char **v) { return n; }").unwrap();
        let run = |program: &str, arguments: &[&str]| {
            let mut command = std::process::Command::new(program);
            let status = command.args(arguments).current_dir(&directory).status();
            assert!(status.unwrap().success(), "{program} {arguments:?}");
        };
        let no_tables = "-fno-asynchronous-unwind-tables";
        run("cc", &["-g", no_tables, "-o", "plain", "a.c"]);
        let sections = ["none", "zlib", "zlib-gnu"].map(|how| {
            let option = format!("--compress-debug-sections={how}");
            run("objcopy", &[&option, "plain", how]);
            let bytes = std::fs::read(at(how)).unwrap();
            let parts = Parts::read(&*bytes, &Limits::default()).unwrap();
            parts.debug_frame.unwrap().bytes.into_owned()
        });
        assert!(!sections[0].is_empty());
        assert!(sections.iter().all(|it| *it == sections[0]));
    }
}
