//! Facts of an ELF file that decide how it is named: its load segments, and where its debug information is.
//!
//! In: an untrusted file. Out: the facts that could be read.

use elf::{AlternativeLink, DebugLink, Headers, ReadAt, SectionHeader, Segment};

/// Facts of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileFacts {
    /// Load segments: at most [`elf::SEGMENTS_MAX`], none beyond 2^64.
    pub segments: Vec<Segment>,
    /// Whether the file itself has debug information.
    pub has_debug_info: bool,
    /// Name of its debug file: no path, at most [`elf::FILE_NAME_BYTES_MAX`] bytes.
    pub debug_link: Option<String>,
    /// Link to debug information that the file, or its debug file, shares with others.
    pub alternative: Option<AlternativeLink>,
    /// Whether parts of the debug information are in split files or in a package of them.
    pub is_split: bool,
}

impl FileFacts {
    /// Bytes on the heap.
    pub fn heap_bytes(&self) -> usize {
        let Self {
            segments,
            has_debug_info: _,
            debug_link,
            alternative,
            is_split: _,
        } = self;
        segments.capacity() * size_of::<Segment>()
            + debug_link.as_ref().map_or(0, String::capacity)
            + alternative.as_ref().map_or(0, |link| link.path.capacity())
    }
}

/// Reads the facts of a file, and the checksum that its debug link demands.
pub fn read_facts(headers: &Headers, file: &(impl ReadAt + ?Sized)) -> (FileFacts, Option<u32>) {
    let (debug_link, checksum) = DebugLink::read(headers, file)
        .map(|link| (link.name, link.checksum))
        .unzip();
    let facts = FileFacts {
        segments: headers.layout().segments().to_vec(),
        has_debug_info: has_debug_info(headers),
        debug_link,
        alternative: AlternativeLink::read(headers, file),
        is_split: false,
    };
    (facts, checksum)
}

pub(crate) fn has_debug_info(headers: &Headers) -> bool {
    debug_info_sections(headers).next().is_some()
}

/// The sections with debug information, not empty.
pub(crate) fn debug_info_sections(headers: &Headers) -> impl Iterator<Item = &SectionHeader> {
    [&b".debug_info"[..], b".zdebug_info"]
        .into_iter()
        .filter_map(|name| headers.section(name))
        .filter(|section| section.file_range().is_some_and(|range| range.bytes > 0))
}

#[cfg(test)]
mod tests {
    use elf::Limits;

    use super::*;

    /// Check this very program's facts.
    #[test]
    fn facts_of_this_program() {
        let bytes = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let headers = Headers::read(&*bytes, Limits::MAPPED).unwrap();
        let (facts, checksum) = read_facts(&headers, &*bytes);
        assert!(facts.segments.len() >= 2 && facts.has_debug_info);
        assert_eq!((facts.debug_link.as_ref(), checksum), (None, None));
    }
}
