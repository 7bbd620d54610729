//! The vDSO: an ELF image that the kernel maps into each process, without a file.
//!
//! In: this process's own memory. Out: the image as a file in memory, named
//! like any other ELF file. The image is the same in all 64-bit processes of a
//! kernel, so ours stands for theirs.

use std::fs::{self, File};
use std::io::{self, Write};
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

use rustix::fs::{MemfdFlags, memfd_create};

/// The image is two pages on x86-64 today; 1 MB is far above what it may grow to.
const IMAGE_BYTES_MAX: u64 = 1 << 20;

/// This process's vDSO as a file in memory, `None` if it has none.
pub(crate) fn copy_vdso() -> io::Result<Option<OwnedFd>> {
    let maps = fs::read_to_string("/proc/self/maps")?;
    let Some(range) = find_vdso(&maps) else {
        return Ok(None);
    };
    let len = (range.end - range.start).min(IMAGE_BYTES_MAX);
    let mut image = vec![0; usize::try_from(len).map_err(io::Error::other)?];
    File::open("/proc/self/mem")?.read_exact_at(&mut image, range.start)?;
    let mut file = File::from(memfd_create("vdso", MemfdFlags::CLOEXEC)?);
    file.write_all(&image)?;
    Ok(Some(file.into()))
}

/// The addresses of the vDSO in the text of a `maps` file. Pure.
fn find_vdso(maps: &str) -> Option<Range<u64>> {
    let line = maps.lines().find(|line| line.ends_with("[vdso]"))?;
    let (start, end) = line.split_once(' ')?.0.split_once('-')?;
    let start = u64::from_str_radix(start, 16).ok()?;
    let end = u64::from_str_radix(end, 16).ok()?;
    (start < end).then_some(start..end)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that the line is found, and that nonsense is not.
    #[test]
    fn find_vdso_reads_one_line() {
        let maps = "7ffe1000-7ffe3000 r--p 00000000 00:00 0    [vvar]\n\
                    7ffe3000-7ffe5000 r-xp 00000000 00:00 0    [vdso]\n";
        assert_eq!(find_vdso(maps), Some(0x7ffe_3000..0x7ffe_5000));
        assert_eq!(find_vdso("5-3 r-xp 0 00:00 0 [vdso]"), None);
        assert_eq!(find_vdso("[vdso]"), None);
        assert_eq!(find_vdso(""), None);
    }
}
