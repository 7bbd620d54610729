//! The parts of an ELF file that unwinding needs.

use elf::{FileRange, Headers, HeadersError, ReadAt, SectionHeader, Segment};
use object::elf::{EM_X86_64, PT_GNU_EH_FRAME};

use super::go::GoRows;
use super::limits::Limits;

/// Files have up to three.
const LINKAGES_MAX: usize = 8;

/// A section with its address as linked.
#[derive(Debug)]
pub(super) struct Section {
    pub(super) address: u64,
    pub(super) bytes: Vec<u8>,
}

/// The parts of a file.
#[derive(Debug, Default)]
pub(super) struct Parts {
    /// Segments that are mapped as code.
    pub(super) code: Vec<Segment>,
    pub(super) eh_frame: Option<Section>,
    pub(super) debug_frame: Option<Section>,
    /// Procedure linkage tables, as mapped; at most [`LINKAGES_MAX`].
    pub(super) linkages: Vec<Segment>,
    /// Address of `.text`, to which some pointers in the sections are relative.
    pub(super) text: Option<u64>,
    /// Address of `.got`, to which others are.
    pub(super) got: Option<u64>,
    /// Rows of Go functions.
    pub(super) go: Option<GoRows>,
}

/// Why a file has no parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PartsError {
    NotElf,
    OtherMachine,
    TooLarge,
}

impl From<HeadersError> for PartsError {
    fn from(err: HeadersError) -> Self {
        match err {
            HeadersError::NotElf => Self::NotElf,
            HeadersError::TooLarge => Self::TooLarge,
        }
    }
}

/// The headers of a 64-bit little-endian file. Its symbols, and whatever else may be large, are not read.
pub(super) fn read_headers(file: &(impl ReadAt + ?Sized)) -> Result<Headers, PartsError> {
    let headers = Headers::read(file, elf::Limits::MAPPED)?;
    if headers.is_64_bit_little_endian() {
        Ok(headers)
    } else {
        Err(PartsError::NotElf)
    }
}

/// The segments of a file that are mapped as code.
pub(super) fn code_of(headers: &Headers) -> Vec<Segment> {
    let code = headers.loads().filter(|header| header.is_code());
    let segments = code.map(|header| header.segment());
    segments.filter(Segment::is_possible).collect()
}

impl Parts {
    /// Reads the headers of an x86-64 file and the sections with call frame information, of each name the first.
    pub(super) fn read(file: &(impl ReadAt + ?Sized), limits: &Limits) -> Result<Self, PartsError> {
        let headers = read_headers(file)?;
        if headers.machine() != EM_X86_64 {
            return Err(PartsError::OtherMachine);
        }
        let mut parts = Self {
            code: code_of(&headers),
            ..Self::default()
        };
        let mut bytes_left = limits.section_bytes_max;
        let (mut has_eh_frame, mut has_debug_frame) = (false, false);
        for section in headers.sections() {
            let address = section.address;
            match headers.name_of(section) {
                b".plt" | b".plt.sec" | b".plt.got" | b".iplt" => {
                    if let Some(range) = section.file_range()
                        && parts.linkages.len() < LINKAGES_MAX
                    {
                        parts.linkages.push(Segment {
                            file_offset: range.offset,
                            address,
                            bytes: range.bytes,
                        });
                    }
                }
                b".text" => parts.text = Some(address),
                b".got" => parts.got = Some(address),
                b".eh_frame" if !has_eh_frame => {
                    has_eh_frame = true;
                    parts.eh_frame = read_section(&headers, section, file, &mut bytes_left)?;
                }
                b".debug_frame" | b".zdebug_frame" if !has_debug_frame => {
                    has_debug_frame = true;
                    parts.debug_frame = read_section(&headers, section, file, &mut bytes_left)?;
                }
                _ => {}
            }
        }
        parts.linkages.sort_by_key(|linkage| linkage.file_offset);
        if parts.eh_frame.is_none() {
            parts.eh_frame = find_eh_frame(&headers, file, bytes_left);
        }
        let go = GoRows::read(file, &parts.code, limits);
        parts.go = go.map_err(|_| PartsError::TooLarge)?;
        Ok(parts)
    }
}

/// The contents of a section, which are taken from the bytes that are left; `None` when it cannot be read.
fn read_section(
    headers: &Headers,
    section: &SectionHeader,
    file: &(impl ReadAt + ?Sized),
    bytes_left: &mut u64,
) -> Result<Option<Section>, PartsError> {
    let Some(data) = headers.data_of(file, section) else {
        return Ok(None);
    };
    let left = bytes_left.checked_sub(data.memory_bytes());
    *bytes_left = left.ok_or(PartsError::TooLarge)?;
    Ok(data.read(file).map(|bytes| Section {
        address: section.address,
        bytes,
    }))
}

/// The call frame information of a file whose section headers were taken off: the program
/// headers lead to `.eh_frame_hdr`, and that to `.eh_frame`, which has its own end.
fn find_eh_frame(
    headers: &Headers,
    file: &(impl ReadAt + ?Sized),
    bytes_max: u64,
) -> Option<Section> {
    let mut program_headers = headers.program_headers().iter();
    let index = program_headers.find(|header| header.kind == PT_GNU_EH_FRAME)?;
    let bytes_left = bytes_max.checked_sub(index.range.bytes)?;
    let index_bytes = file.read_range(index.range)?;
    let bases = gimli::BaseAddresses::default().set_eh_frame_hdr(index.address);
    let parsed = gimli::EhFrameHdr::new(&index_bytes, gimli::LittleEndian)
        .parse(&bases, 8)
        .ok()?;
    let gimli::Pointer::Direct(address) = parsed.eh_frame_ptr() else {
        return None;
    };
    let mut segments = headers.loads().map(|header| header.segment());
    let (segment, offset) =
        segments.find_map(|segment| Some((segment, segment.offset_of(address)?)))?;
    let bytes = segment.file_end() - offset;
    if bytes > bytes_left {
        return None;
    }
    Some(Section {
        address,
        bytes: file.read_range(FileRange { offset, bytes })?,
    })
}

#[cfg(test)]
mod tests {
    use std::fs::{File, OpenOptions};
    use std::os::unix::fs::FileExt as _;

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
        Parts::read(&file, &Limits::default()).map(drop)
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
        let alike: Vec<_> = (0..150)
            .map(|number| (EH_FRAME, number * BYTES, BYTES))
            .collect();
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
            parts.debug_frame.unwrap().bytes
        });
        assert!(!sections[0].is_empty());
        assert!(sections.iter().all(|section| *section == sections[0]));
    }
}
