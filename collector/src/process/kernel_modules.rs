//! The kernel's list of modules, `/proc/modules`.

use std::{fs::File, io::Read as _};

/// Bytes of `/proc/modules` that are read: a line takes some 100.
const MODULES_BYTES_MAX: u64 = 1 << 20;

/// One line of `/proc/modules`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Module {
    /// Its name.
    pub name: String,
    /// Address of its code.
    pub start: u64,
    /// Bytes of all its parts; the others may lie elsewhere.
    pub bytes: u64,
}

/// The modules that are loaded now; none where the kernel has none, or hides their addresses.
pub fn read_modules() -> Vec<Module> {
    let mut text = String::new();
    if let Ok(file) = File::open("/proc/modules") {
        // The part that was read before an error is valid.
        let _ = file.take(MODULES_BYTES_MAX).read_to_string(&mut text);
    }
    parse_modules(&text)
}

/// The modules of such a text; lines that are not understood are left out.
///
/// Format: `name bytes users users' names state address`, and maybe a word for what it taints.
pub fn parse_modules(text: &str) -> Vec<Module> {
    text.lines().filter_map(parse_module).collect()
}

fn parse_module(line: &str) -> Option<Module> {
    let mut words = line.split_ascii_whitespace();
    let name = words.next()?.to_owned();
    let bytes = words.next()?.parse().ok()?;
    let address = words.nth(3)?.strip_prefix("0x")?;
    let start = u64::from_str_radix(address, 16).ok()?;
    (start != 0).then_some(Module { name, start, bytes })
}

#[cfg(test)]
pub(super) mod testing {
    use super::*;

    pub(in super::super) fn module(name: &str, start: u64, bytes: u64) -> Module {
        Module {
            name: name.into(),
            start,
            bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{testing::module, *};

    /// Check the lines that the kernel writes, and others.
    #[test]
    fn lists_of_modules() {
        let text = "\
xfs 1990656 1 - Live 0xffffffffc0b1a000
raid6_pq 122880 1 btrfs,raid456, Loading 0xffffffffc0279000 (OE)
hidden 4096 0 - Live 0x0000000000000000
odd 4096
odd x 0 - Live 0xffffffffc0279000

";
        let modules = parse_modules(text);
        assert_eq!(
            modules,
            [
                module("xfs", 0xffff_ffff_c0b1_a000, 1_990_656),
                module("raid6_pq", 0xffff_ffff_c027_9000, 122_880),
            ]
        );
    }
}
