//! Notes, and the build id among them.

use object::Endianness;
use object::elf::{FileHeader64, NT_GNU_BUILD_ID, NoteType, PT_NOTE, SHT_NOTE};
use object::read::elf::{Note, NoteIterator};

use crate::build_id::BuildId;
use crate::headers::{Headers, ProgramHeader};
use crate::limits::{Limits, NOTES_BYTES_MAX};
use crate::read::{FileRange, ReadAt};

/// Finds the build id of a file by its program headers alone, as the kernel does. Reads at most 64 + 64 × 56 + 64 × 4,096
/// bytes.
///
/// `None` if the file is not ELF within [`Limits::MAPPED`], or has no build id.
pub fn find_build_id(file: &(impl ReadAt + ?Sized)) -> Option<BuildId> {
    let headers = Headers::read_program_headers(file, Limits::MAPPED).ok()?;
    headers.build_id(file)
}

impl Headers {
    /// The build id in the file's segments, where the kernel finds it as well, or else in its sections.
    pub fn build_id(&self, file: &(impl ReadAt + ?Sized)) -> Option<BuildId> {
        self.find_note(file, b"GNU", NT_GNU_BUILD_ID, BuildId::new)
    }

    /// The first note with an owner and kind whose contents `take` accepts. [`NOTES_BYTES_MAX`] of each segment and section with
    /// notes are searched.
    pub fn find_note<T>(
        &self,
        file: &(impl ReadAt + ?Sized),
        owner: &[u8],
        kind: NoteType,
        take: impl Fn(&[u8]) -> Option<T>,
    ) -> Option<T> {
        let segments = self.note_segments();
        let segments = segments.map(|header| (header.range, header.align));
        let sections = self.sections().iter();
        let sections = sections.filter(|section| section.kind == SHT_NOTE);
        let sections = sections.map(|section| (section.range, section.align));
        segments.chain(sections).find_map(|(range, align)| {
            let mut bytes = vec![0; range.bytes.min(NOTES_BYTES_MAX) as usize];
            let read = file.pread(range.offset, &mut bytes);
            let endian = self.format.endian;
            parse_notes(&bytes[..read], align, endian)
                .filter(|note| note.name() == owner && note.n_type(endian) == kind)
                .find_map(|note| take(note.desc()))
        })
    }

    /// The ranges of segments with notes.
    pub fn note_ranges(&self) -> impl Iterator<Item = FileRange> {
        self.note_segments().map(|header| header.range)
    }

    fn note_segments(&self) -> impl Iterator<Item = &ProgramHeader> {
        let headers = self.program_headers().iter();
        headers.filter(|header| header.kind == PT_NOTE)
    }
}

/// The notes up to the first damaged one. They have the same form in both classes.
fn parse_notes(
    bytes: &[u8],
    align: u64,
    endian: Endianness,
) -> impl Iterator<Item = Note<'_, FileHeader64<Endianness>>> {
    let notes = NoteIterator::new(endian, align, bytes).into_iter();
    notes.flatten().map_while(Result::ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check a real file against `readelf -n`.
    #[test]
    fn real_file() {
        let file = std::fs::read("/bin/ls").unwrap();
        let mut readelf = std::process::Command::new("readelf");
        let notes = readelf.args(["-n", "/bin/ls"]).output().unwrap();
        let notes = String::from_utf8(notes.stdout).unwrap();
        let (_, expected) = notes.split_once("Build ID: ").unwrap();
        let found = find_build_id(&*file).unwrap().to_string();
        assert_eq!(found, expected.split_whitespace().next().unwrap());
    }

    /// Check that a file that is truncated anywhere, or with any byte of its headers changed, causes no panic.
    #[test]
    fn odd_files() {
        let file = std::fs::read("/bin/ls").unwrap();
        for len in (0..2048).chain([4096, file.len() - 1]) {
            find_build_id(&file[..len]);
        }
        for at in 0..1024 {
            for value in [0, 1, 0x7f, 0x80, 0xff] {
                let mut odd = file[..16384].to_vec();
                odd[at] = value;
                find_build_id(&*odd);
            }
        }
    }

    /// Check that notes with hostile lengths end.
    #[test]
    fn hostile_notes() {
        for word in [0, 1, u32::MAX, u32::MAX - 11] {
            let notes = [word; 64].map(u32::to_le_bytes).concat();
            for align in [0, 4, 8, 16, u64::MAX] {
                let mut notes = parse_notes(&notes, align, Endianness::Little);
                let is_build_id = |note: Note<'_, _>| {
                    note.name() == b"GNU" && BuildId::new(note.desc()).is_some()
                };
                assert!(!notes.any(is_build_id));
            }
        }
    }
}
