//! What unwinding needs of an ELF file.

use std::borrow::Cow;

use object::elf::{
    ELFCOMPRESS_ZLIB, ELFCOMPRESS_ZSTD, EM_X86_64, FileHeader64, Machine, PF_X, PT_GNU_EH_FRAME,
    PT_LOAD, ProgramHeader64, SectionHeader64,
};
use object::read::elf::{FileHeader as _, ProgramHeader as _, SectionHeader as _, SectionTable};
use object::{CompressedFileRange, CompressionFormat, LittleEndian, ReadRef};

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

/// Headers of segments, and of sections, that are read: 4 MB each. A file whose numbers do not fit 16 bits says them
/// elsewhere, and may say any: objects with a section for each function do, and programs do not.
const HEADERS_MAX: u64 = 1 << 16;

/// The headers of a file. Its symbols, and whatever else may be large, are not read.
pub(super) struct Headers<'data, R: ReadRef<'data>> {
    pub(super) machine: Machine,
    pub(super) programs: &'data [ProgramHeader64<LittleEndian>],
    pub(super) sections: SectionTable<'data, FileHeader64<LittleEndian>, R>,
}

impl<'data, R: ReadRef<'data>> Headers<'data, R> {
    pub(super) fn read(data: R) -> Result<Self, PartsError> {
        let not_elf = |_| PartsError::NotElf;
        let header = FileHeader64::<LittleEndian>::parse(data).map_err(not_elf)?;
        let endian = header.endian().map_err(not_elf)?;
        let programs = header.phnum(endian, data).map_err(not_elf)?;
        let sections = header.shnum(endian, data).map_err(not_elf)?;
        if programs as u64 > HEADERS_MAX || sections as u64 > HEADERS_MAX {
            return Err(PartsError::TooLarge);
        }
        Ok(Self {
            machine: header.e_machine(endian),
            programs: header.program_headers(endian, data).map_err(not_elf)?,
            sections: header.sections(endian, data).map_err(not_elf)?,
        })
    }

    /// The sections with their names.
    pub(super) fn named_sections(
        &self,
    ) -> impl Iterator<Item = (&'data [u8], &'data SectionHeader64<LittleEndian>)> {
        self.sections.iter().filter_map(|section| {
            let name = self.sections.section_name(LittleEndian, section);
            Some((name.ok()?, section))
        })
    }
}

impl<'data> Parts<'data> {
    /// Reads the headers of an x86-64 file and the sections with call frame information.
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
                b".eh_frame" => parts.eh_frame = read_section(section, data, limits)?,
                b".debug_frame" | b".zdebug_frame" => {
                    parts.debug_frame = read_section(section, data, limits)?;
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
fn read_section<'data, R: ReadRef<'data>>(
    section: &SectionHeader64<LittleEndian>,
    data: R,
    limits: &Limits,
) -> Result<Option<Section<'data>>, PartsError> {
    let Some(range) = compressed_range(section, data) else {
        return Ok(None);
    };
    if range.compressed_size.max(range.uncompressed_size) > limits.section_bytes_max {
        return Err(PartsError::TooLarge);
    }
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
    limits: &Limits,
) -> Option<Section<'data>> {
    let endian = LittleEndian;
    let index = headers
        .iter()
        .find(|it| it.p_type(endian) == PT_GNU_EH_FRAME)?;
    if index.p_filesz(endian) > limits.section_bytes_max {
        return None;
    }
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
    if length > limits.section_bytes_max {
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
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let peak = status.lines().find(|line| line.starts_with("VmHWM"));
        let peak = peak.unwrap().split_ascii_whitespace().nth(1).unwrap();
        assert!(peak.parse::<u64>().unwrap() < 2 << 20, "{peak} kB");
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
