//! Limits on a file's headers.

/// Program headers of a file that processes map, and load segments of a [`Layout`](crate::Layout).
///
/// Linkers write about a dozen. Linux executes a file only if its program headers fit into one page (73), and looks for a build
/// id only in that page. 64 of them take 3.5 KB to read, and a layout of 64 segments takes 1.5 KB.
pub const SEGMENTS_MAX: usize = 64;

/// Bytes of a segment or section with notes that are searched. A build id takes 36; longer notes describe probes.
pub const NOTES_BYTES_MAX: u64 = 4096;

/// Limits for [`Headers::read`](crate::Headers::read). A file over a limit is refused as a whole: answers from part of a table would
/// be wrong.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Program headers, 56 bytes each.
    pub program_headers: usize,
    /// Section headers, 64 bytes each.
    pub sections: usize,
    /// Bytes of the section names.
    pub name_bytes: u64,
}

impl Limits {
    /// For files that processes map, and their debug files: names, unwind rows, layouts and uploads all read a file with this set,
    /// so that it has all of them or none.
    ///
    /// They are read in a process that must not grow: 64 program headers of 56 bytes, 4,096 section headers of 64 bytes and 64
    /// KiB of names are 330 KB. Programs have 30 to 45 sections and kernel modules 60, with 500 bytes of names.
    pub const MAPPED: Self = Self {
        program_headers: SEGMENTS_MAX,
        sections: 4096,
        name_bytes: 64 << 10,
    };

    /// For object files, split debug information and files on the server, which no process maps here and a confined child reads.
    ///
    /// Compilers write a section for each function and each C++ type, up to the 65,279 that the 16 bits of a header hold, with
    /// names of about 100 bytes: 65,536 program headers of 56 bytes, as many section headers of 64 bytes and 8 MiB of names are
    /// 16 MB.
    pub const OBJECTS: Self = Self {
        program_headers: 1 << 16,
        sections: 1 << 16,
        name_bytes: 8 << 20,
    };
}
