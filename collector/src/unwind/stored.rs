//! Rows as bytes to keep: in a file, beside whatever else is there.
//!
//! | bytes | what |
//! | --- | --- |
//! | 8 | [`MAGIC`] |
//! | 8 | XXH3 (64 bits) of all that follows |
//! | 3 x 4 | numbers of rules, blocks and rows |
//! | 16 a rule | its words, in the order of their numbers |
//! | 12 a block | its number (8), and how many rows it has (4) |
//! | 4 a row | its bits |
//!
//! All little-endian. librustc_driver's 1.3 million rows are 5 MB. A file that is read back is not
//! trusted: a disk may give anything.

use elf::Segment;
use profiler_bpf::{
    arch::x86_64::rule::Rule,
    unwind::{BLOCK_BYTES, Row},
};
use thiserror::Error;
use xxhash_rust::xxh3::xxh3_64;

use super::{
    Block, Limits, RuleSet, Table,
    go::GoRows,
    parts::{Parts, Section},
};

/// Begins the bytes. The number is that of the format *and of the evaluation*: it changes when the
/// same file would give other rows.
const MAGIC: [u8; 8] = *b"PLROWS01";

const HEADER_BYTES: usize = 8 + 8 + 3 * 4;

/// The key of rows: BLAKE3 of all that their evaluation reads, so that no file can put its
/// rows in the place of another's, whatever build id it claims.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    pub(super) fn of(parts: &Parts) -> Self {
        let mut hasher = blake3::Hasher::new();
        let mut put = |bytes: &[u8]| {
            hasher.update(&(bytes.len() as u64).to_le_bytes());
            hasher.update(bytes);
        };
        put(&MAGIC);
        for ranges in [&parts.code, &parts.linkages] {
            let words = |segment: &Segment| {
                [segment.address, segment.file_offset, segment.bytes].map(u64::to_le_bytes)
            };
            put(ranges
                .iter()
                .map(words)
                .collect::<Vec<_>>()
                .as_flattened()
                .as_flattened());
        }
        for address in [parts.text, parts.got] {
            put(address
                .map(u64::to_le_bytes)
                .as_ref()
                .map_or(&[], |bytes| bytes));
        }
        for section in [&parts.eh_frame, &parts.debug_frame] {
            match section {
                Some(Section { address, bytes }) => {
                    put(&address.to_le_bytes());
                    put(bytes);
                }
                None => put(b"none"),
            }
        }
        if let Some(GoRows { table, rules }) = &parts.go {
            put(&encode_table(table, rules));
        }
        Self(hasher.finalize().into())
    }
}

/// Why bytes are no rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum StoredError {
    /// Of another format, or of another version.
    #[error("not rows of this version")]
    OtherFormat,
    /// Cut short, changed, or made up.
    #[error("damaged")]
    Damaged,
}

/// The bytes of a table and its rules.
pub fn encode_table(table: &Table, rules: &RuleSet) -> Vec<u8> {
    let (rules, blocks, rows) = (rules.as_slice(), table.blocks(), table.rows());
    let mut bytes = Vec::with_capacity(encoded_bytes(rules.len(), blocks.len(), rows.len()));
    bytes.extend(MAGIC);
    bytes.extend([0; 8]);
    for count in [rules.len(), blocks.len(), rows.len()] {
        bytes.extend((count as u32).to_le_bytes());
    }
    bytes.extend(
        rules
            .iter()
            .flat_map(|rule| rule.to_words())
            .flat_map(u64::to_le_bytes),
    );
    for block in blocks {
        bytes.extend(block.number.to_le_bytes());
        bytes.extend(block.count.to_le_bytes());
    }
    bytes.extend(rows.iter().flat_map(|row| row.to_bits().to_le_bytes()));
    let hash = xxh3_64(&bytes[16..]);
    bytes[8..16].copy_from_slice(&hash.to_le_bytes());
    bytes
}

const fn encoded_bytes(rules: usize, blocks: usize, rows: usize) -> usize {
    HEADER_BYTES + rules * 16 + blocks * 12 + rows * 4
}

/// The table and the rules of bytes that [`encode_table`] made.
///
/// # Errors
/// They are others: not of this version, changed, or more than `limits` allow.
pub fn decode_table(bytes: &[u8], limits: &Limits) -> Result<(Table, RuleSet), StoredError> {
    if !bytes.starts_with(&MAGIC) {
        return Err(StoredError::OtherFormat);
    }
    decode(bytes, limits).ok_or(StoredError::Damaged)
}

fn decode(bytes: &[u8], limits: &Limits) -> Option<(Table, RuleSet)> {
    let hash = u64::from_le_bytes(*bytes.get(8..)?.first_chunk()?);
    if hash != xxh3_64(bytes.get(16..)?) {
        return None;
    }
    let (counts, rest) = bytes.get(16..)?.split_at_checked(3 * 4)?;
    let count =
        |at: usize| Some(u32::from_le_bytes(*counts.get(at * 4..)?.first_chunk()?) as usize);
    let (rules, blocks, rows) = (count(0)?, count(1)?, count(2)?);
    // Each is below 2^32, so that nothing overflows.
    if bytes.len() != encoded_bytes(rules, blocks, rows) || rows > limits.rows_max {
        return None;
    }
    let (rule_bytes, rest) = rest.split_at_checked(rules * 16)?;
    let (block_bytes, row_bytes) = rest.split_at_checked(blocks * 12)?;
    Some((
        decode_rows(block_bytes, row_bytes, rules)?,
        decode_rules(rule_bytes)?,
    ))
}

fn decode_rules(bytes: &[u8]) -> Option<RuleSet> {
    let mut rules = RuleSet::new();
    for (number, words) in bytes.as_chunks::<16>().0.iter().enumerate() {
        let (words, _) = words.as_chunks::<8>();
        let rule = Rule::from_words([u64::from_le_bytes(words[0]), u64::from_le_bytes(words[1])]);
        // Each once, and the two that each set has first.
        if usize::from(rules.intern(rule)) != number || rules.refused() > 0 {
            return None;
        }
    }
    (bytes.len() >= 2 * 16).then_some(rules)
}

fn decode_rows(block_bytes: &[u8], row_bytes: &[u8], rules: usize) -> Option<Table> {
    let rows: Vec<Row> = row_bytes
        .as_chunks::<4>()
        .0
        .iter()
        .map(|bits| Row::from_bits(u32::from_le_bytes(*bits)))
        .collect();
    if rows.iter().any(|row| usize::from(row.rule()) >= rules) {
        return None;
    }
    let mut first = 0u32;
    let mut blocks: Vec<Block> = Vec::with_capacity(block_bytes.len() / 12);
    for bytes in block_bytes.as_chunks::<12>().0 {
        let block = Block {
            number: u64::from_le_bytes(*bytes.first_chunk()?),
            first,
            count: u32::from_le_bytes(*bytes.last_chunk()?),
        };
        first = first.checked_add(block.count)?;
        let of_block = rows.get(block.first as usize..first as usize)?;
        let is_behind = blocks
            .last()
            .is_none_or(|before| before.number < block.number)
            && block.number <= u64::MAX / BLOCK_BYTES;
        if !is_behind
            || !of_block.is_sorted_by(|a, b| a.offset() < b.offset())
            || of_block.is_empty()
        {
            return None;
        }
        blocks.push(block);
    }
    (first as usize == rows.len()).then(|| Table::from_parts(blocks, rows))
}

#[cfg(test)]
mod tests {
    use fastrand::Rng;

    use super::*;
    use crate::unwind::table::TableBuilder;

    fn make() -> (Table, RuleSet) {
        let mut rules = RuleSet::new();
        let mut builder = TableBuilder::new(10_000);
        let mut random = Rng::with_seed(7);
        for step in 0..500u64 {
            let rule = Rule::at_register((random.u64(..) % 16) as u8, (random.u64(..) % 64) as i32);
            builder.push(step * 300, rules.intern(rule)).unwrap();
        }
        (builder.finish(160_000).unwrap(), rules)
    }

    fn seal(bytes: &mut [u8]) {
        let hash = xxh3_64(&bytes[16..]);
        bytes[8..16].copy_from_slice(&hash.to_le_bytes());
    }

    /// Check that decoded rows equal the encoded ones.
    #[test]
    fn there_and_back() {
        let (table, rules) = make();
        let bytes = encode_table(&table, &rules);
        let (table_again, rules_again) = decode_table(&bytes, &Limits::default()).unwrap();
        assert_eq!(table_again, table);
        assert_eq!(rules_again.as_slice(), rules.as_slice());
        let empty = encode_table(&Table::default(), &RuleSet::new());
        let (table, _) = decode_table(&empty, &Limits::default()).unwrap();
        assert_eq!(table, Table::default());
    }

    /// Check that no changed byte and no missing end goes unseen, and that limits hold.
    #[test]
    fn damage_is_seen() {
        let (table, rules) = make();
        let bytes = encode_table(&table, &rules);
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 0x40;
            let error = decode_table(&changed, &Limits::default()).unwrap_err();
            let expected = if at < 8 {
                StoredError::OtherFormat
            } else {
                StoredError::Damaged
            };
            assert_eq!(error, expected, "byte {at}");
            let error = decode_table(&bytes[..at], &Limits::default()).unwrap_err();
            assert_eq!(error, expected, "{at} bytes");
        }
        let limits = Limits {
            rows_max: table.rows().len() - 1,
            ..Limits::default()
        };
        assert_eq!(
            decode_table(&bytes, &limits).unwrap_err(),
            StoredError::Damaged
        );
    }

    /// Check that rows that a search cannot rely on are refused although their checksum is right.
    #[test]
    fn made_up_rows_are_refused() {
        let (table, rules) = make();
        let good = encode_table(&table, &rules);
        let blocks_at = HEADER_BYTES + rules.as_slice().len() * 16;
        let rows_at = blocks_at + table.blocks().len() * 12;
        let forge = |at: usize, with: &[u8]| {
            let mut bytes = good.clone();
            bytes[at..at + with.len()].copy_from_slice(with);
            seal(&mut bytes);
            decode_table(&bytes, &Limits::default()).map(|_| ())
        };
        assert_eq!(
            forge(HEADER_BYTES, &good[HEADER_BYTES..HEADER_BYTES + 16]),
            Ok(())
        );
        for (what, at, with) in [
            ("the first rule is another", HEADER_BYTES, &[1u8][..]),
            (
                "a rule is there twice",
                HEADER_BYTES + 48,
                &good[HEADER_BYTES + 32..HEADER_BYTES + 48],
            ),
            ("blocks go back", blocks_at, &[9]),
            ("a block is in no file", blocks_at + 7, &[255]),
            ("a block has no row", blocks_at + 8, &[0, 0, 0, 0]),
            (
                "blocks have more rows than there are",
                blocks_at + 8,
                &[255, 255, 255, 255],
            ),
            ("a row names no rule", rows_at, &[255, 255, 255, 255]),
            ("rows go back", rows_at + 4, &good[rows_at..rows_at + 4]),
        ] {
            assert_eq!(forge(at, with), Err(StoredError::Damaged), "{what}");
        }
    }
}
