//! Rows in the cache on disk: any bytes are refused, or are rows that pass the checks of any rows and encode to the same bytes.

use collector::unwind::{Evaluated, Limits, RuleSet, decode_table, encode_table, read_table};

use crate::inputs::elves;

pub(crate) fn run(input: &[u8]) {
    let limits = Limits { rows_max: 4_000, ..Limits::default() };
    let mended = mend_checksum(input);
    for bytes in [input, &mended] {
        if let Ok((table, rules)) = decode_table(bytes, &limits) {
            assert_eq!(encode_table(&table, &rules), bytes);
            elves::check(&Evaluated { table, ..Evaluated::default() }, &rules, &limits);
        }
    }
}

/// Random bytes hardly ever have the checksum that they should.
fn mend_checksum(input: &[u8]) -> Vec<u8> {
    let mut bytes = input.to_vec();
    if let Some(rest) = input.get(16..) {
        bytes[8..16].copy_from_slice(&xxhash_rust::xxh3::xxh3_64(rest).to_le_bytes());
    }
    bytes
}

pub(crate) fn make_seeds() -> Vec<Vec<u8>> {
    let elves = elves::make_elves();
    let of_elf = |elf: &Vec<u8>| {
        let mut rules = RuleSet::new();
        let evaluated = read_table(elf.as_slice(), &mut rules, &Limits::default()).expect("it is a whole file");
        encode_table(&evaluated.table, &rules)
    };
    elves.iter().map(of_elf).collect()
}
