//! The kernel's symbols in a compact table. Pure.
//!
//! In: the text of `/proc/kallsyms`. Out: a table from address to name, smaller than blazesym's: 4 MB for the 122,000 lines of a
//! Debian-like kernel.

use std::io::{self, BufRead, Read as _};

/// Functions have no length in `kallsyms`, and end at the next one. An address further from its start than this is not of the last
/// function of a module, a BPF program or a part of the core kernel, which has 1 MB of padding between parts; larger functions are not
/// known.
const FUNCTION_BYTES_MAX: u64 = 64 << 10;
/// A kernel with all its modules has some 200,000 functions.
const SYMBOLS_MAX: usize = 1 << 20;
/// Their names take 20 bytes on average.
const NAME_BYTES_MAX: usize = 32 << 20;
/// A name has at most 512 bytes (`KSYM_NAME_LEN`), the name of its module 64.
const LINE_BYTES_MAX: u64 = 1024;

/// The kernel's functions by address.
#[derive(Debug, Default)]
pub struct KernelSymbols {
    /// Address of `_text`, the base of all kernel addresses in a profile.
    text_start: u64,
    /// Address of `_etext`, where the core kernel's functions end.
    text_end: u64,
    symbols: Vec<Symbol>,
    /// A length in two bytes before each name.
    names: Vec<u8>,
}

#[derive(Clone, Copy, Debug)]
struct Symbol {
    address: u64,
    /// Offset in `names`.
    name: u32,
    /// Of several names of one address, the lowest counts.
    rank: u8,
}

/// The symbol of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup<'a> {
    /// The address is in this function.
    Function(&'a str),
    /// The address is in the core kernel and has no name. Reading again will not help.
    UnknownCore,
    /// The address is outside the core kernel. A module or BPF program may have been loaded since.
    UnknownOutside,
}

impl KernelSymbols {
    /// Reads the text of `/proc/kallsyms`. Malformed lines and lines over the limits are left out.
    pub fn read(mut text: impl BufRead) -> io::Result<Self> {
        let mut table = Self::default();
        let mut line = Vec::new();
        loop {
            line.clear();
            if (&mut text)
                .take(LINE_BYTES_MAX)
                .read_until(b'\n', &mut line)?
                == 0
            {
                break;
            }
            if let Some(parsed) = parse_line(&line) {
                table.push(&parsed);
            }
        }
        let symbols = &mut table.symbols;
        symbols.sort_unstable_by_key(|symbol| (symbol.address, symbol.rank, symbol.name));
        symbols.dedup_by_key(|symbol| symbol.address);
        table.symbols.shrink_to_fit();
        table.names.shrink_to_fit();
        Ok(table)
    }

    /// Whether `kernel.kptr_restrict` hides the addresses.
    pub fn is_hidden(&self) -> bool {
        self.symbols.is_empty() || self.text_start == 0
    }

    /// Whether an offset from `_text` is in the core kernel, whose names never change.
    pub fn is_core(&self, offset: u64) -> bool {
        offset < self.text_end.wrapping_sub(self.text_start)
    }

    /// The symbol at a wrapping offset from `_text`.
    pub fn find(&self, offset: u64) -> Lookup<'_> {
        let address = self.text_start.wrapping_add(offset);
        let is_core = |address| (self.text_start..self.text_end).contains(&address);
        let in_core = is_core(address);
        let symbols = &self.symbols;
        let after = symbols.partition_point(|symbol| symbol.address <= address);
        let symbol = symbols[..after].last().filter(|symbol| {
            is_core(symbol.address) == in_core && address - symbol.address < FUNCTION_BYTES_MAX
        });
        match symbol {
            Some(symbol) => Lookup::Function(self.name(symbol.name)),
            None if in_core => Lookup::UnknownCore,
            None => Lookup::UnknownOutside,
        }
    }

    fn push(&mut self, line: &Line<'_>) {
        match line.name {
            "_text" => self.text_start = line.address,
            "_etext" => self.text_end = line.address,
            _ => {}
        }
        if line.address == 0
            || !line.is_code()
            || self.symbols.len() >= SYMBOLS_MAX
            || self.names.len() >= NAME_BYTES_MAX
        {
            return;
        }
        self.symbols.push(Symbol {
            address: line.address,
            // Below `NAME_BYTES_MAX`.
            name: self.names.len() as u32,
            rank: line.rank(),
        });
        let module = line.module.map_or([""; 2], |module| [" ", module]);
        let name = [line.name, module[0], module[1]];
        // Below `LINE_BYTES_MAX`.
        let length = name.iter().map(|part| part.len()).sum::<usize>() as u16;
        self.names.extend(length.to_le_bytes());
        self.names.extend(name.iter().flat_map(|part| part.bytes()));
    }

    fn name(&self, at: u32) -> &str {
        let rest = &self.names[at as usize..];
        let name = rest.split_first_chunk().and_then(|(length, rest)| {
            let name = rest.get(..usize::from(u16::from_le_bytes(*length)))?;
            str::from_utf8(name).ok()
        });
        name.unwrap_or_default()
    }
}

/// A line such as `ffffffffc0279010 t fuse_dev_init [fuse]`.
struct Line<'a> {
    address: u64,
    kind: u8,
    name: &'a str,
    /// With its brackets.
    module: Option<&'a str>,
}

impl Line<'_> {
    fn is_code(&self) -> bool {
        // `_text` and `_stext` are labels too, but a function with a better rank starts there.
        matches!(self.kind, b'T' | b't' | b'W' | b'w') && self.name != "_etext"
    }

    /// perf's order: global before local before weak, few leading underscores before many, labels last.
    fn rank(&self) -> u8 {
        let binding = match self.kind {
            b'T' => 0,
            b't' => 1,
            _ => 2,
        };
        let underscores = self.name.bytes().take_while(|byte| *byte == b'_').count();
        let is_label = matches!(self.name, "_text" | "_stext");
        // At most 64 + 2 * 4 + 3.
        u8::from(is_label) * 64 + binding * 4 + underscores.min(3) as u8
    }
}

fn parse_line(line: &[u8]) -> Option<Line<'_>> {
    let mut words = str::from_utf8(line).ok()?.split_ascii_whitespace();
    Some(Line {
        address: u64::from_str_radix(words.next()?, 16).ok()?,
        kind: *words.next()?.as_bytes().first()?,
        name: words.next()?,
        module: words.next(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
ffffffff81000000 T _stext
ffffffff81000000 T _text
ffffffff81000000 t __startup
ffffffff81000100 t local_name
ffffffff81000100 T global_name
ffffffff81000200 W weak_name
ffffffff81000200 T __x64_sys_read
ffffffff81000280 D some_data
ffffffff81020000 T _etext
ffffffffc0279010 t fuse_dev_init	[fuse]
ffffffffc003b960 t bpf_prog_7cc47bbf07148bfe_hid	[bpf]
";

    fn table(text: &str) -> KernelSymbols {
        KernelSymbols::read(text.as_bytes()).expect("memory can be read")
    }

    /// Check functions of the core, of a module and of a BPF program, the choice among several names, and gaps.
    #[test]
    fn find_names_what_lies_in_a_function() {
        let table = table(TEXT);
        let relative = |address: u64| address.wrapping_sub(0xffff_ffff_8100_0000);
        for (offset, expected) in [
            (0, Lookup::Function("__startup")),
            (0xff, Lookup::Function("__startup")),
            (0x100, Lookup::Function("global_name")),
            (0x2ff, Lookup::Function("__x64_sys_read")),
            (0x1_0200, Lookup::UnknownCore),
            (0x2_0000, Lookup::UnknownOutside),
            (
                relative(0xffff_ffff_c027_9011),
                Lookup::Function("fuse_dev_init [fuse]"),
            ),
            (
                relative(0xffff_ffff_c003_b960),
                Lookup::Function("bpf_prog_7cc47bbf07148bfe_hid [bpf]"),
            ),
            (relative(0xffff_ffff_c003_b95f), Lookup::UnknownOutside),
            (relative(0xffff_ffff_c028_9011), Lookup::UnknownOutside),
            (relative(0x1000), Lookup::UnknownOutside),
        ] {
            assert_eq!(table.find(offset), expected, "{offset:#x}");
        }
    }

    /// Check that `kernel.kptr_restrict` is detected, and that malformed lines are ignored.
    #[test]
    fn hidden_and_odd_lines() {
        assert!(table("0000000000000000 T _text\n0000000000000000 T f\n").is_hidden());
        assert!(table("").is_hidden());
        assert!(table("zz\n1 T\n\u{0}\n-- -- --\nT T T\n").is_hidden());
        let long = format!("{TEXT}{}", "x".repeat(5000));
        assert_eq!(table(&long).find(0x100), Lookup::Function("global_name"));
    }

    /// Check that each symbol of the running kernel is found at its address, and that the table is small.
    #[test]
    fn own_kernel() {
        let text = std::fs::read("/proc/kallsyms").expect("the kernel shows its symbols");
        let table = KernelSymbols::read(&text[..]).expect("memory can be read");
        if table.is_hidden() {
            eprintln!("not checked: kernel.kptr_restrict hides the addresses");
            return;
        }
        let lines = text.split(|byte| *byte == b'\n').count();
        let mut checked = 0;
        for line in text.split(|byte| *byte == b'\n').filter_map(parse_line) {
            let in_core = (table.text_start..table.text_end).contains(&line.address);
            if in_core && line.is_code() {
                let found = table.find(line.address.wrapping_sub(table.text_start));
                assert!(matches!(found, Lookup::Function(_)), "{}", line.name);
                checked += 1;
            }
        }
        assert!(checked > 10_000, "{checked}");
        let bytes = table.symbols.capacity() * size_of::<Symbol>() + table.names.capacity();
        assert!(bytes < lines * 64, "{bytes} bytes");
    }
}
