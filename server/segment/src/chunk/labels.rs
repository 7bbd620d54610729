//! Chunks of label sets.

use std::cmp::Ordering;
use std::collections::HashMap;

use model::LabelSet;
use profile::is_label_name;

use crate::codec::column::{ChunkReader, Packer, Texts, Unpacker};
use crate::error::Malformed;

/// Label sets of a chunk.
pub(crate) const CHUNK_SETS: usize = 16 << 10;

/// Labels of a chunk: the receiver takes 128 a set.
const CHUNK_LABELS_MAX: usize = 128 * CHUNK_SETS;

/// The labels by which series are sorted before all others: a part of the series that has one namespace, or one program of it, has a
/// part of the segment.
const SORTED_BY: [&str; 8] = [
    "namespace",
    "workload",
    "exe",
    "comm",
    "pod",
    "container",
    "unit",
    "node",
];

/// How many of [`SORTED_BY`] name a program of a namespace.
const PROGRAM_LABELS: usize = 4;

/// The order of series in a segment.
pub(crate) fn compare_series(a: &LabelSet, b: &LabelSet) -> Ordering {
    sort_key(a).cmp(&sort_key(b)).then_with(|| a.cmp(b))
}

fn sort_key(labels: &LabelSet) -> [&str; SORTED_BY.len()] {
    SORTED_BY.map(|name| labels.value(name))
}

/// Whether two series are of one program in one namespace.
pub(crate) fn is_same_program(a: &LabelSet, b: &LabelSet) -> bool {
    let names = &SORTED_BY[..PROGRAM_LABELS];
    names.iter().all(|name| a.value(name) == b.value(name))
}

/// Label sets, in a fraction of the memory that [`LabelSet`]s take: each name and value once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct LabelChunk {
    texts: Texts,
    /// The names and values of all sets, as numbers of texts.
    labels: Vec<(u32, u32)>,
    ends: Vec<u32>,
}

impl LabelChunk {
    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    /// A set's labels.
    pub(crate) fn get(&self, position: usize) -> impl Iterator<Item = (&str, &str)> {
        let start = match position {
            0 => 0,
            _ => self.ends[position - 1],
        };
        let labels = &self.labels[start as usize..self.ends[position] as usize];
        let texts = &self.texts;
        labels
            .iter()
            .map(|(name, value)| (texts.get(*name as usize), texts.get(*value as usize)))
    }

    pub(crate) fn heap_bytes(&self) -> usize {
        self.texts.heap_bytes() + 8 * self.labels.capacity() + 4 * self.ends.capacity()
    }

    pub(crate) fn encode<'a>(
        sets: impl Iterator<Item = &'a LabelSet> + Clone,
        packer: &mut Packer,
    ) -> Vec<u8> {
        let mut texts = Texts::default();
        let mut known: HashMap<&str, u64> = HashMap::new();
        let mut number = |text: &'a str| {
            *known.entry(text).or_insert_with(|| {
                texts.push(text);
                texts.len() as u64 - 1
            })
        };
        let (mut names, mut values) = (Vec::new(), Vec::new());
        for (name, value) in sets.clone().flat_map(LabelSet::iter) {
            names.push(number(name));
            values.push(number(value));
        }
        let mut out = Vec::new();
        packer.put_numbers(&mut out, [texts.len() as u64]);
        packer.put_texts(&mut out, texts.iter());
        packer.put_numbers(&mut out, sets.map(|set| set.iter().len() as u64));
        packer.put_numbers(&mut out, names);
        packer.put_numbers(&mut out, values);
        out
    }

    pub(crate) fn decode(
        bytes: &[u8],
        items: usize,
        unpacker: &mut Unpacker,
    ) -> Result<Self, Malformed> {
        if items > CHUNK_SETS {
            return Err(Malformed("a chunk has too many label sets"));
        }
        let mut from = ChunkReader::new(bytes, unpacker);
        let text_count = from.take_numbers(1)?.next_below(2 * CHUNK_LABELS_MAX + 1)?;
        let texts = from.take_texts(text_count as usize)?;
        let mut counts = from.take_numbers(items)?;
        let mut ends = Vec::new();
        let mut end = 0;
        for _ in 0..items {
            end += counts.next_below(CHUNK_LABELS_MAX + 1 - end as usize)?;
            ends.push(end);
        }
        counts.finish()?;
        let mut names = from.take_numbers(end as usize)?;
        let mut values = from.take_numbers(end as usize)?;
        let mut labels = Vec::new();
        for _ in 0..end {
            labels.push((
                names.next_below(texts.len())?,
                values.next_below(texts.len())?,
            ));
        }
        names.finish()?;
        values.finish()?;
        from.finish()?;
        let chunk = Self {
            texts,
            labels,
            ends,
        };
        chunk.check()?;
        Ok(chunk)
    }

    /// Checks that each set is one: [`LabelSet::from_sorted`] without its copies.
    fn check(&self) -> Result<(), Malformed> {
        let mut is_name = vec![None; self.texts.len()];
        let mut start = 0;
        for end in &self.ends {
            let labels = &self.labels[start..*end as usize];
            start = *end as usize;
            let names = labels
                .iter()
                .map(|(name, _)| self.texts.get(*name as usize));
            let is_sorted = names.is_sorted_by(|a, b| a < b);
            let is_valid = labels.iter().all(|(name, value)| {
                let text = |number: u32| self.texts.get(number as usize);
                let is_name =
                    is_name[*name as usize].get_or_insert_with(|| is_label_name(text(*name)));
                *is_name && !text(*value).is_empty()
            });
            if !is_sorted || !is_valid {
                return Err(Malformed("a label set is not valid"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(text: &[(&str, &str)]) -> LabelSet {
        LabelSet::from_sorted(text.iter().copied()).unwrap()
    }

    #[test]
    fn label_sets_come_back() {
        let sets = [
            labels(&[]),
            labels(&[("comm", "a"), ("pod", "comm")]),
            labels(&[("comm", "b"), ("node", "a"), ("pod", "x")]),
        ];
        let bytes = LabelChunk::encode(sets.iter(), &mut Packer::new(1));
        let mut unpacker = Unpacker::default();
        let chunk = LabelChunk::decode(&bytes, 3, &mut unpacker).unwrap();
        for (position, set) in sets.iter().enumerate() {
            assert!(chunk.get(position).eq(set.iter()));
        }
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut damaged = bytes.clone();
                damaged[at] ^= 1 << bit;
                drop(LabelChunk::decode(&damaged, 3, &mut unpacker));
            }
            assert!(LabelChunk::decode(&bytes[..at], 3, &mut unpacker).is_err());
        }
    }

    /// Check that a namespace's series and a program's are next to each other.
    #[test]
    fn series_are_sorted_by_program() {
        let a = labels(&[("comm", "z"), ("namespace", "a"), ("pod", "1")]);
        let b = labels(&[("comm", "a"), ("namespace", "b"), ("pod", "2")]);
        let c = labels(&[("comm", "b"), ("namespace", "b"), ("pod", "1")]);
        let d = labels(&[("comm", "b"), ("namespace", "b"), ("pod", "3")]);
        assert!([&a, &b, &c, &d].is_sorted_by(|a, b| compare_series(a, b).is_lt()));
        assert!(is_same_program(&c, &d) && !is_same_program(&a, &c) && !is_same_program(&b, &c));
    }
}
