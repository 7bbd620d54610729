//! Rows by instructions: any bytes are code whose rows keep their promises.

use codeflow::{Cfa, Code, Function, Register, Row, Rows, analyze, analyze_region, find_call};

/// Where the code lies.
const START: u64 = 0x1_0000;

/// Bytes of an input that are code: as many as 200 functions have at the median of the seeds.
const BYTES_MAX: usize = 4 << 10;

/// Addresses of an input that are analyzed by themselves.
const ADDRESSES: usize = 3;

/// Functions with a frame pointer, with pushes, with a realigned stack, with a touched stack and with a jump table; a call to the next
/// instruction; the first two entries of a procedure linkage table.
const SEEDS: [&[u8]; 7] = [
    b"\xf3\x0f\x1e\xfa\x55\x48\x89\xe5\x48\x83\xec\x20\xc9\xc3",
    b"\x55\x53\x48\x83\xec\x18\x48\x89\xfb\xff\xd0\x48\x83\xc4\x18\x5b\x5d\xc3",
    b"\x4c\x8d\x54\x24\x08\x48\x83\xe4\xe0\x41\xff\x72\xf8\x55\x48\x89\xe5\x41\x52\x48\x83\xec\x40\x48\x83\xc4\x40\x41\x5a\x5d\x49\
      \x8d\x62\xf8\xc3",
    b"\x4c\x8d\x9c\x24\x00\x80\xff\xff\x48\x81\xec\x00\x10\x00\x00\x48\x83\x0c\x24\x00\x4c\x39\xdc\x75\xef\x48\x81\xc4\x00\x80\x00\
      \x00\xc3",
    b"\x48\x83\xec\x18\x83\xff\x01\x77\x14\x48\x8d\x15\x12\x00\x00\x00\x48\x63\x04\xba\x48\x01\xd0\xff\xe0\x0f\x0b\x31\xc0\x48\x83\
      \xc4\x18\xc3\xf7\xff\xff\xff\xf9\xff\xff\xff",
    b"\xe8\x00\x00\x00\x00\x58\xc3",
    b"\xff\x35\x00\x00\x00\x00\xff\x25\x02\x00\x00\x00\xff\x25\x04\x00\x00\x00\x68\x00\x00\x00\x00\xe9\xe4\xff\xff\xff",
];

/// Code with imports, some of which never return.
struct Bytes<'a>(&'a [u8]);

impl Code for Bytes<'_> {
    fn bytes(&self, address: u64) -> &[u8] {
        let offset = address
            .checked_sub(START)
            .and_then(|offset| usize::try_from(offset).ok());
        offset
            .and_then(|offset| self.0.get(offset..))
            .unwrap_or_default()
    }

    fn import(&self, slot: u64) -> Option<&str> {
        Some(if slot.is_multiple_of(2) {
            "abort"
        } else {
            "puts"
        })
    }

    fn function_start(&self, address: u64) -> Option<u64> {
        (self.0.first()?.is_multiple_of(2) && address >= START).then_some(START)
    }
}

pub(crate) fn make_seeds() -> Vec<Vec<u8>> {
    let mut seeds = SEEDS.map(Vec::from).to_vec();
    seeds.push(SEEDS.concat());
    seeds
}

/// Analyzes code from some of its addresses, and as a whole.
pub(crate) fn run(input: &[u8]) {
    let code = Bytes(&input[..input.len().min(BYTES_MAX)]);
    check(&analyze_region(&code, START..u64::MAX));
    let function = Function::read(&code, START);
    let step = (code.0.len() / ADDRESSES).max(1);
    for offset in (0..code.0.len()).step_by(step) {
        let address = START + offset as u64;
        assert!(find_call(&code, address).is_none_or(|call| call < address));
        let rows = analyze(&code, address);
        check(&rows);
        if let Some(Ok(row)) = rows.get(address) {
            function.check_cfa(address, &row);
            function.check_rbp(address, &row);
        }
    }
}

/// Checks that ranges are in order, that neighbours differ, and that a frame is above the stack pointer.
fn check(rows: &Rows) {
    for pair in rows.ranges().windows(2) {
        let [(before, one), (behind, other)] = pair else {
            continue;
        };
        assert!(before.end < behind.start || before.end == behind.start && one != other);
    }
    for (range, row) in rows.ranges() {
        assert!(range.start < range.end);
        assert_eq!(rows.get(range.start), Some(*row));
        assert_eq!(rows.get(range.end - 1), Some(*row));
        if let Ok(row) = row {
            check_row(row);
        }
    }
}

fn check_row(row: &Row) {
    if let Cfa::Register(register, offset) = row.cfa {
        assert!(register != Register::RSP || offset >= 8);
    }
    assert!(!row.to_string().is_empty());
}
