//! Samples: values, stack and tags.

use std::hash::BuildHasher;

use ::pprof::protos::{self, Message};
use hashbrown::DefaultHashBuilder;
use model::tables::StackId;
use model::{Row, StackNode, Tag, TagValue};

use super::super::profile_bytes::ProfileBytes;
use super::super::refusal::Refusal;
use super::fields::{SAMPLE, each_entry};
use super::{Reader, refuse};

/// Locations a stack: the collector keeps 1,024 user and 128 kernel frames; four times that leaves room.
const STACK_LOCATIONS_MAX: usize = 4 * (1024 + 128);

/// Labels a sample.
const TAGS_MAX: usize = 32;

/// CPU time of one window: 2^53 ns are 104 days, which 900,000 CPUs would use in 10 s. Beyond 2^53 a number is not
/// exact in JSON.
const WINDOW_NS_MAX: u64 = 1 << 53;

impl Reader {
    pub(super) fn read_samples(
        &mut self,
        profile: &ProfileBytes<'_>,
        series_count: usize,
        sample_count: u64,
    ) -> Result<Vec<Row>, Refusal> {
        let mut rows = Vec::new();
        if self.dictionary.is_some() {
            rows.reserve_exact(sample_count as usize);
        }
        let mut sample = protos::Sample::default();
        let mut before = Vec::new();
        let mut tags = Tags::new(&self.hasher);
        let (mut all_samples, mut all_ns) = (0_u64, 0_u64);
        let mut at = 0;
        each_entry(profile, &[SAMPLE], |_, bytes| {
            sample.clear();
            sample
                .merge(bytes)
                .map_err(|err| refuse(format!("not a pprof: {err}")))?;
            let (samples, ns) = read_values(at, &sample.value)?;
            all_samples = all_samples.saturating_add(samples);
            all_ns = all_ns.saturating_add(ns);
            let series = self.read_tags(at, &sample.label, series_count, &mut tags)?;
            let tags = self.make(|dictionary| dictionary.intern_tag_set(&tags.tags));
            let stack = self.read_stack(at, &sample.location_id, &before)?;
            std::mem::swap(&mut before, &mut sample.location_id);
            at += 1;
            if self.dictionary.is_some() {
                rows.push(Row {
                    series,
                    tags,
                    stack,
                    samples,
                    ns,
                });
            }
            Ok(())
        })?;
        if all_samples > WINDOW_NS_MAX || all_ns > WINDOW_NS_MAX {
            return Err(refuse(format!(
                "the samples add up to more than {WINDOW_NS_MAX}"
            )));
        }
        rows.sort_unstable();
        Ok(rows)
    }

    fn read_stack(&mut self, at: usize, ids: &[u64], before: &[u64]) -> Result<StackId, Refusal> {
        if ids.len() > STACK_LOCATIONS_MAX {
            return Err(refuse(format!(
                "sample {at}: {} locations, and at most {STACK_LOCATIONS_MAX} are taken",
                ids.len()
            )));
        }
        // pprof has the innermost frame first; the tree grows from the outermost.
        let outermost_first = || ids.iter().rev();
        let pairs = outermost_first().zip(before.iter().rev());
        let same = pairs.take_while(|(id, before)| id == before).count();
        self.nodes += (ids.len() - same) as u64;
        let mut stack = StackId(0);
        for id in outermost_first() {
            let Some(location) = self.locations.get(*id) else {
                return Err(refuse(format!("sample {at}: no location {id}")));
            };
            let node = StackNode {
                parent: stack,
                location,
            };
            stack = self.make(|dictionary| dictionary.intern_stack(node));
        }
        Ok(stack)
    }

    /// Fills `tags` with all labels but `series`, whose value it returns.
    fn read_tags(
        &self,
        at: usize,
        labels: &[protos::Label],
        series_count: usize,
        tags: &mut Tags,
    ) -> Result<u32, Refusal> {
        if labels.len() > TAGS_MAX {
            return Err(refuse(format!(
                "sample {at}: {} labels, and at most {TAGS_MAX} are taken",
                labels.len()
            )));
        }
        tags.clear();
        let whose = || format!("sample {at}");
        let mut series = None;
        for label in labels {
            let key = self.hashes[self.find_string(label.key, whose)?];
            let name = || match tags.names.iter().find(|(hash, _)| *hash == key) {
                Some((_, name)) => format!("{name:?}"),
                None => format!("(string {})", label.key),
            };
            let text = self.find_string(label.str, whose)?;
            let unit = self.string(label.num_unit, whose)?;
            if tags.keys.contains(&key) {
                return Err(refuse(format!("sample {at}: label {} comes twice", name())));
            }
            tags.keys.push(key);
            let known = tags.names.iter().position(|(hash, _)| *hash == key);
            if known == Some(0) {
                let number = usize::try_from(label.num).ok();
                let number = number.filter(|number| label.str == 0 && *number < series_count);
                let Some(number) = number else {
                    let number = label.num;
                    return Err(refuse(format!(
                        "sample {at}: series {number} of a table of {series_count}"
                    )));
                };
                series = Some(number as u32);
                continue;
            }
            if known.is_some() && label.num != 0 {
                return Err(refuse(format!(
                    "sample {at}: label {} must be a string",
                    name()
                )));
            }
            let value = if self.hashes[text] == self.hashes[0] {
                TagValue::Number(label.num, unit)
            } else {
                TagValue::Text(self.string(label.str, whose)?)
            };
            tags.tags.push(Tag {
                key: self.string(label.key, whose)?,
                value,
            });
        }
        series.ok_or_else(|| refuse(format!("sample {at} has no label \"series\"")))
    }
}

/// The labels of a sample, in memory that is reused.
struct Tags {
    /// Hashes of the known names, `series` first.
    names: [(u64, &'static str); 4],
    keys: Vec<u64>,
    tags: Vec<Tag>,
}

impl Tags {
    fn new(hasher: &DefaultHashBuilder) -> Self {
        let names = ["series", "thread", "outcome", "check"];
        Self {
            names: names.map(|name| (hasher.hash_one(name), name)),
            keys: Vec::new(),
            tags: Vec::new(),
        }
    }

    fn clear(&mut self) {
        self.keys.clear();
        self.tags.clear();
    }
}

fn read_values(at: usize, values: &[i64]) -> Result<(u64, u64), Refusal> {
    let &[samples, ns] = values else {
        return Err(refuse(format!(
            "sample {at}: {} values instead of 2",
            values.len()
        )));
    };
    match (u64::try_from(samples), u64::try_from(ns)) {
        (Ok(samples), Ok(ns)) => Ok((samples, ns)),
        _ => Err(refuse(format!("sample {at}: negative value in {values:?}"))),
    }
}
