//! Samples: values, stack and tags.

use std::hash::BuildHasher;

use hashbrown::DefaultHashBuilder;
use model::tables::StackId;
use model::{Row, StackNode, Tag, TagValue};

use super::super::profile_bytes::ProfileBytes;
use super::super::refusal::Refusal;
use super::entry::{Label, Sample};
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
        if self.tables.is_some() {
            rows.reserve_exact(sample_count as usize);
        }
        let mut sample = Sample::default();
        let mut path = Path::default();
        let mut tags = Tags::new(&self.hasher);
        let (mut all_samples, mut all_ns) = (0_u64, 0_u64);
        let mut at = 0;
        each_entry(profile, &[SAMPLE], |_, bytes| {
            sample.read(bytes)?;
            let (samples, ns) = read_values(at, &sample.values)?;
            all_samples = all_samples.saturating_add(samples);
            all_ns = all_ns.saturating_add(ns);
            let series = self.read_tags(at, &sample.labels, series_count, &mut tags)?;
            let stack = self.read_stack(at, &sample.locations, &mut path)?;
            at += 1;
            if let Some(tables) = &mut self.tables {
                let tags = self.index.intern_tag_set(tables, &tags.tags);
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
        // Senders have them in this order mostly, which the stable sort finds out.
        rows.sort_by_key(|row| row.series);
        Ok(rows)
    }

    fn read_stack(&mut self, at: usize, ids: &[u64], path: &mut Path) -> Result<StackId, Refusal> {
        if ids.len() > STACK_LOCATIONS_MAX {
            return Err(refuse(format!(
                "sample {at}: {} locations, and at most {STACK_LOCATIONS_MAX} are taken",
                ids.len()
            )));
        }
        // pprof has the innermost frame first; the tree grows from the outermost.
        let outermost_first = || ids.iter().rev();
        let pairs = outermost_first().zip(&path.ids);
        let same = pairs.take_while(|(id, before)| id == before).count();
        path.ids.truncate(same);
        path.stacks.truncate(same);
        let mut parent = path.stacks.last().copied().unwrap_or_default();
        for id in outermost_first().skip(same) {
            let Some(location) = self.locations.get(*id) else {
                return Err(refuse(format!("sample {at}: no location {id}")));
            };
            if let Some(tables) = &mut self.tables {
                let node = StackNode { parent, location };
                parent = self.index.intern_stack(tables, node);
            }
            path.ids.push(*id);
            path.stacks.push(parent);
        }
        self.nodes += (ids.len() - same) as u64;
        Ok(parent)
    }

    /// Fills `tags` with all labels but `series`, whose value it returns.
    fn read_tags(
        &self,
        at: usize,
        labels: &[Label],
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
            let text = self.find_string(label.text, whose)?;
            let unit = self.string(label.unit, whose)?;
            if tags.keys.contains(&key) {
                return Err(refuse(format!("sample {at}: label {} comes twice", name())));
            }
            tags.keys.push(key);
            let known = tags.names.iter().position(|(hash, _)| *hash == key);
            if known == Some(0) {
                let number = usize::try_from(label.number).ok();
                let number = number.filter(|number| label.text == 0 && *number < series_count);
                let Some(number) = number else {
                    let number = label.number;
                    return Err(refuse(format!(
                        "sample {at}: series {number} of a table of {series_count}"
                    )));
                };
                series = Some(number as u32);
                continue;
            }
            if known.is_some() && label.number != 0 {
                return Err(refuse(format!(
                    "sample {at}: label {} must be a string",
                    name()
                )));
            }
            let value = if self.hashes[text] == self.hashes[0] {
                TagValue::Number(label.number, unit)
            } else {
                TagValue::Text(self.string(label.text, whose)?)
            };
            tags.tags.push(Tag {
                key: self.string(label.key, whose)?,
                value,
            });
        }
        series.ok_or_else(|| refuse(format!("sample {at} has no label \"series\"")))
    }
}

/// The stack of the sample before: most of it is that of the next one.
#[derive(Default)]
struct Path {
    /// Ids of locations, the outermost first, and the stack up to each.
    ids: Vec<u64>,
    stacks: Vec<StackId>,
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
