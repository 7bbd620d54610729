//! The start address of the kernel's image.

use std::{
    fs::File,
    io::{BufRead, BufReader},
};

use anyhow::{Context as _, Result};

const KALLSYMS_PATH: &str = "/proc/kallsyms";

/// Address of `_text`, which differs from boot to boot (KASLR). Offsets from it do not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelText(pub u64);

impl KernelText {
    /// Reads it from the running kernel; `None` when the kernel hides its addresses.
    ///
    /// # Errors
    /// The kernel has no list of symbols.
    pub fn read() -> Result<Option<Self>> {
        let file = File::open(KALLSYMS_PATH)
            .with_context(|| format!("failed to open `{KALLSYMS_PATH}`"))?;
        Ok(find_kernel_text(BufReader::new(file)))
    }
}

/// Finds `_text` in lines of the form `address type name`. An address of zero
/// means that it is hidden (kptr_restrict).
pub fn find_kernel_text(symbols: impl BufRead) -> Option<KernelText> {
    symbols
        .split(b'\n')
        .map_while(Result::ok)
        .find_map(|line| {
            let address = line.strip_suffix(b" T _text")?;
            u64::from_str_radix(str::from_utf8(address).ok()?, 16).ok()
        })
        .filter(|address| *address != 0)
        .map(KernelText)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that `_text` is found among other symbols, and is none when hidden.
    #[test]
    fn text() {
        let symbols = b"0000000000000000 A fixed\nffffffff81000000 T _text\nffffffff81000010 t x";
        assert_eq!(
            find_kernel_text(&symbols[..]),
            Some(KernelText(0xffff_ffff_8100_0000))
        );
        assert_eq!(find_kernel_text(&b"0000000000000000 T _text\n"[..]), None);
        assert_eq!(find_kernel_text(&b"nonsense\n\xff T _text"[..]), None);
    }
}
