//! The kernel's symbols in a compact table; pure.
//!
//! In: the text of `/proc/kallsyms`. Out: a table from address to name. Never
//! does IO by itself.
//!
//! The table is ours and not blazesym's because of its size: 4 MB for the
//! 122,000 lines of a Debian-like kernel.

use std::io::{self, BufRead};

/// The last symbol of a module or a BPF program has no end in `kallsyms`; an
/// address further from its start than this belongs to something else. Larger
/// functions are not known.
const FUNCTION_BYTES_MAX: u64 = 64 << 10;
/// A kernel with all its modules has some 200,000 functions.
const SYMBOLS_MAX: usize = 1 << 20;
/// Their names take 20 bytes on average.
const NAME_BYTES_MAX: usize = 32 << 20;
/// The kernel's names end at 512 bytes (`KSYM_NAME_LEN`), before its module's 64.
const LINE_BYTES_MAX: u64 = 1024;

/// The kernel's functions by address.
#[derive(Debug, Default)]
pub(super) struct KernelSymbols {
    /// Address of `_text`, to which all addresses of the profile are relative.
    text_start: u64,
    /// Address of `_etext`, where the core kernel's functions end.
    text_end: u64,
    symbols: Vec<Symbol>,
    /// Each name: its length in two bytes, then its bytes.
    names: Vec<u8>,
}

#[derive(Clone, Copy, Debug)]
struct Symbol {
    address: u64,
    /// Where its name starts in `names`.
    name: u32,
    /// Which of several names of one address is the best, the lowest.
    rank: u8,
}

/// What the table says about an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lookup<'a> {
    /// The function that it lies in.
    Function(&'a str),
    /// In the core kernel, without a name; reading again will not help.
    UnknownCore,
    /// Outside of it; a module or a BPF program may have been loaded since.
    UnknownOutside,
}

impl KernelSymbols {
    /// Reads the text of `/proc/kallsyms`. Lines that are not understood are
    /// left out, as are those that are over the limits.
    pub(super) fn read(mut text: impl BufRead) -> io::Result<Self> {
        let mut table = Self::default();
        let mut line = Vec::new();
        loop {
            line.clear();
            let read = io::Read::take(&mut text, LINE_BYTES_MAX).read_until(b'\n', &mut line)?;
            if read == 0 {
                break;
            }
            if let Some(parsed) = parse_line(&line) {
                table.push(&parsed);
            }
        }
        table
            .symbols
            .sort_unstable_by_key(|symbol| (symbol.address, symbol.rank, symbol.name));
        table.symbols.dedup_by_key(|symbol| symbol.address);
        table.symbols.shrink_to_fit();
        table.names.shrink_to_fit();
        Ok(table)
    }

    /// Whether no address was shown, as `kernel.kptr_restrict` has it.
    pub(super) fn is_hidden(&self) -> bool {
        self.symbols.is_empty() || self.text_start == 0
    }

    /// What lies at `offset` from `_text`, wrapping.
    pub(super) fn find(&self, offset: u64) -> Lookup<'_> {
        let address = self.text_start.wrapping_add(offset);
        let in_core = (self.text_start..self.text_end).contains(&address);
        let after = self
            .symbols
            .partition_point(|symbol| symbol.address <= address);
        let symbol = after.checked_sub(1).map(|index| self.symbols[index]);
        let near = symbol.filter(|symbol| {
            let starts_in_core = (self.text_start..self.text_end).contains(&symbol.address);
            starts_in_core == in_core && (in_core || address - symbol.address < FUNCTION_BYTES_MAX)
        });
        match near {
            Some(symbol) => Lookup::Function(self.name(symbol.name)),
            None if in_core => Lookup::UnknownCore,
            None => Lookup::UnknownOutside,
        }
    }

    /// Bytes that the table takes.
    #[cfg(test)]
    fn bytes(&self) -> usize {
        self.symbols.capacity() * size_of::<Symbol>() + self.names.capacity()
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
        // Below `NAME_BYTES_MAX`, and lines are below `LINE_BYTES_MAX`.
        let name = self.names.len() as u32;
        let len = line.name.len() + line.module.map_or(0, |module| module.len() + 1);
        self.names.extend_from_slice(&(len as u16).to_le_bytes());
        self.names.extend_from_slice(line.name.as_bytes());
        if let Some(module) = line.module {
            self.names.push(b' ');
            self.names.extend_from_slice(module.as_bytes());
        }
        self.symbols.push(Symbol {
            address: line.address,
            name,
            rank: line.rank(),
        });
    }

    fn name(&self, at: u32) -> &str {
        let rest = self.names.get(at as usize..).unwrap_or_default();
        rest.split_first_chunk::<2>()
            .and_then(|(len, rest)| rest.get(..usize::from(u16::from_le_bytes(*len))))
            .and_then(|name| std::str::from_utf8(name).ok())
            .unwrap_or_default()
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
        // `_text` and `_stext` mark a place too, but one where a function starts,
        // which has the better rank.
        matches!(self.kind, b'T' | b't' | b'W' | b'w') && self.name != "_etext"
    }

    /// perf's order: global before local before weak, few leading underscores
    /// before many; a mark comes last.
    fn rank(&self) -> u8 {
        let binding = match self.kind {
            b'T' => 0,
            b't' => 1,
            _ => 2,
        };
        let underscores = self.name.bytes().take_while(|byte| *byte == b'_').count();
        let mark = matches!(self.name, "_text" | "_stext");
        // At most 4 * 16 + 2 * 4 + 3.
        u8::from(mark) * 64 + binding * 4 + underscores.min(3) as u8
    }
}

fn parse_line(line: &[u8]) -> Option<Line<'_>> {
    let mut words = std::str::from_utf8(line).ok()?.split_ascii_whitespace();
    let address = u64::from_str_radix(words.next()?, 16).ok()?;
    let kind = *words.next()?.as_bytes().first()?;
    let name = words.next()?;
    Some(Line {
        address,
        kind,
        name,
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
ffffffff81000300 T _etext
ffffffffc0279010 t fuse_dev_init	[fuse]
ffffffffc003b960 t bpf_prog_7cc47bbf07148bfe_hid	[bpf]
";

    fn table(text: &str) -> KernelSymbols {
        KernelSymbols::read(text.as_bytes()).expect("memory can be read")
    }

    /// Check functions of the core, of a module and of a BPF program, the
    /// choice among several names, and what lies between them.
    #[test]
    fn find_names_what_lies_in_a_function() {
        let table = table(TEXT);
        let relative = |address: u64| address.wrapping_sub(0xffff_ffff_8100_0000);
        for (offset, expected) in [
            (0, Lookup::Function("__startup")),
            (0xff, Lookup::Function("__startup")),
            (0x100, Lookup::Function("global_name")),
            (0x2ff, Lookup::Function("__x64_sys_read")),
            (0x300, Lookup::UnknownOutside),
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

    /// Check that `kernel.kptr_restrict` is seen, and that odd lines are passed over.
    #[test]
    fn hidden_and_odd_lines() {
        assert!(table("0000000000000000 T _text\n0000000000000000 T f\n").is_hidden());
        assert!(table("").is_hidden());
        assert!(table("zz\n1 T\n\u{0}\n-- -- --\nT T T\n").is_hidden());
        let long = format!("{TEXT}{}", "x".repeat(5000));
        assert_eq!(table(&long).find(0x100), Lookup::Function("global_name"));
    }

    /// Check the running kernel's own symbols: each is found at its address, and
    /// the table stays as small as promised.
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
        assert!(table.bytes() < lines * 64, "{} bytes", table.bytes());
    }
}
