//! The format of a mapped file.

use std::{
    fs::File,
    io,
    os::unix::fs::{FileExt as _, MetadataExt as _},
};

/// The format of a mapped file.
///
/// The name of a mapping does not say whether its code was made at run time: `runc` runs its own program from a memory file
/// (`memfd_create`), and many JIT compilers keep their code in one, or in SysV or POSIX shared memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileFormat {
    /// An ELF file, with or without a name in the file system.
    Elf,
    /// A file without a name: code that a process wrote into memory.
    Memory,
    /// A file with a name, of another format: code that its process wrote, or a program of another system (Wine).
    Other,
}

impl FileFormat {
    /// The format of an open file; `None` when it cannot be read.
    pub fn read(file: &File) -> Option<Self> {
        let found = file.metadata().ok()?;
        let mut magic = [0; 4];
        match file.read_exact_at(&mut magic, 0) {
            Ok(()) if magic == *b"\x7fELF" => Some(Self::Elf),
            Err(err) if err.kind() != io::ErrorKind::UnexpectedEof => None,
            // A memory file has no links. libffi and PCRE2 delete a file of their own after they mapped it: no links either.
            Ok(()) | Err(_) if found.nlink() == 0 => Some(Self::Memory),
            Ok(()) | Err(_) => Some(Self::Other),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn write(path: &std::path::Path, contents: &[u8]) -> File {
        let mut options = File::options();
        let mut file = options
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(path)
            .unwrap();
        file.write_all(contents).unwrap();
        file
    }

    /// Check that an ELF file is known by its first bytes, and a memory file of another format by its missing links.
    #[test]
    fn formats_of_files() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        for (contents, linked, unlinked) in [
            (&b"\x7fELF and more"[..], FileFormat::Elf, FileFormat::Elf),
            (
                b"\x55\x48\x89\xe5\xc3",
                FileFormat::Other,
                FileFormat::Memory,
            ),
            (b"\x7fEL", FileFormat::Other, FileFormat::Memory),
            (b"", FileFormat::Other, FileFormat::Memory),
        ] {
            let file = write(&path, contents);
            assert_eq!(FileFormat::read(&file), Some(linked));
            std::fs::remove_file(&path).unwrap();
            assert_eq!(FileFormat::read(&file), Some(unlinked));
        }
        let own = std::env::current_exe().unwrap();
        assert_eq!(
            FileFormat::read(&File::open(own).unwrap()),
            Some(FileFormat::Elf)
        );
        drop(write(&path, b"code"));
        let unreadable = File::options().append(true).open(&path).unwrap();
        assert_eq!(FileFormat::read(&unreadable), None);
    }
}
