//! Stops of a program: registers and the stack, as `testdata/unwind/gdb_stops.py` writes them.

use std::path::Path;
use std::process::{Command, Stdio};

/// A stopped program.
pub(crate) struct Stop {
    pub(crate) pc: u64,
    /// By DWARF numbers.
    pub(crate) registers: [u64; 16],
    /// The address of the stack's part that is in use, and its bytes.
    stack: (u64, Vec<u8>),
}

impl Stop {
    /// The word at an address of the stack.
    pub(crate) fn read(&self, address: u64) -> Option<u64> {
        let (start, bytes) = &self.stack;
        let offset = usize::try_from(address.checked_sub(*start)?).ok()?;
        let word = bytes.get(offset..)?.first_chunk()?;
        Some(u64::from_le_bytes(*word))
    }
}

/// Runs a program below gdb, and stops it at random instructions of `main` and what it calls.
pub(crate) fn run(program: &Path, out: &Path, stops: u64) -> Vec<Stop> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/unwind/gdb_stops.py");
    let arguments = format!(
        "py stops, start, out = {stops}, 'main', '{}'",
        out.display()
    );
    let output = Command::new("gdb")
        .args(["-nx", "-batch", "-ex", &arguments, "-x"])
        .arg(script)
        .arg("--args")
        .arg(program)
        .stdin(Stdio::null())
        .output()
        .expect("gdb runs");
    let records = std::fs::read(out);
    read_records(&records.unwrap_or_else(|err| panic!("{err}: {output:?}")))
}

/// Reads records of a letter, a length and contents.
fn read_records(mut bytes: &[u8]) -> Vec<Stop> {
    let mut stops = Vec::new();
    while let Some(([letter, length @ ..], rest)) = bytes.split_first_chunk::<5>() {
        let (record, rest) = rest.split_at(u32::from_le_bytes(*length) as usize);
        if *letter == b'S' {
            stops.push(read_stop(record));
        }
        bytes = rest;
    }
    stops
}

/// Reads the registers, two words, as many frames as the second one says, and the stack's address, length and bytes.
fn read_stop(record: &[u8]) -> Stop {
    let word = |number: usize| {
        let word = record[number * 8..].first_chunk();
        u64::from_le_bytes(*word.expect("a whole record"))
    };
    let stack = 19 + word(18) as usize;
    let bytes = &record[(stack + 2) * 8..][..word(stack + 1) as usize];
    Stop {
        pc: word(16),
        registers: std::array::from_fn(word),
        stack: (word(stack), bytes.to_vec()),
    }
}
