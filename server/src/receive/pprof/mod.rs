//! Bytes of a pprof -> tables and rows. Pure.
//!
//! Takes the form that the protocol agrees on and nothing else: two sample types, offsets in files instead of addresses, and
//! the numeric label `series` on each sample. Equal stacks and tag sets become one, since samples repeat them. Other entries stay as
//! they are: the store finds equal ones.
//!
//! The profile is never decoded as a whole. It is walked once for each kind of entry (`head`, `tables`, `samples`), since
//! its samples come before the entries that they refer to (`fields`), and entries are scanned one at a time (`scan`, `entry`). A profile
//! whose tables may become large is walked without making any first ([`CountedProfile::new`]): a refusal then costs no more than the ids
//! of its entries.

mod child_index;
mod entry;
mod fields;
mod head;
mod ids;
mod index;
#[cfg(any(test, feature = "test-support"))]
pub mod reference;
mod samples;
mod scan;
mod tables;
mod unnamed;

#[cfg(test)]
mod differential;
#[cfg(test)]
mod tests;

use ::pprof::protos;
use hashbrown::{DefaultHashBuilder, HashMap};
use model::tables::{FunctionId, LocationId, MappingId, StringId};
use model::{ProfileHead, Row, Tables};
use proto::v1;

use self::fields::explain;
use self::ids::Ids;
use self::index::Index;
pub use self::unnamed::UnnamedLocations;
use super::entries::{
    ProfileCounts, ProfilePlace, check_node_count, check_profile_counts, check_sample_count,
};
use super::profile_bytes::ProfileBytes;
use super::refusal::{Refusal, RefusalReason};
use super::wire::Wire;

/// Bytes of tables that are made before the profile is checked.
const TABLE_BYTES_UNCHECKED: u64 = 12 << 20;

/// Nodes of the tree of stacks that room is made for at first: samples share two thirds of their frames, and a node with 30 pods has 40,000
/// nodes in a window. They take a MiB.
const FRAMES_A_NODE: u64 = 3;
const FIRST_NODES_MAX: u64 = 64 << 10;

/// Content of a profile.
pub struct ProfileContent {
    /// Its head.
    pub head: ProfileHead,
    /// Tables that its samples refer to.
    pub tables: Tables,
    /// Its samples, ordered by series.
    pub rows: Vec<Row>,
}

/// Facts beside a profile that its checks need.
#[derive(Clone, Copy)]
pub struct ProfileContext<'a> {
    /// Number of series.
    pub series_count: usize,
    /// Length of the window in milliseconds.
    pub window_ms: i64,
    /// Bytes of the compressed profile.
    pub packed_bytes: u64,
    /// Locations without a name, and the reasons.
    pub unnamed: UnnamedLocations<'a>,
    /// Files of the profile, some of them with their ids.
    pub files: &'a [v1::FileLayout],
}

/// A profile whose numbers of entries are within their limits.
pub struct CountedProfile<'a> {
    profile: ProfileBytes<'a>,
    context: ProfileContext<'a>,
    counts: ProfileCounts,
    table_bytes: u64,
}

impl<'a> CountedProfile<'a> {
    /// Counts the entries of a profile; checks all of it if its tables may become large.
    ///
    /// # Errors
    /// The first mistake, named.
    pub fn new(profile: ProfileBytes<'a>, context: ProfileContext<'a>) -> Result<Self, Refusal> {
        let counts = count(&profile)?;
        check_profile_counts(&counts, context.packed_bytes)?;
        let mut counted = Self {
            table_bytes: estimate_tables(&counts, counts.get(ProfilePlace::LocationIds)),
            profile,
            context,
            counts,
        };
        let is_small = counted.table_bytes <= TABLE_BYTES_UNCHECKED + context.packed_bytes;
        if !matches!(counted.profile, ProfileBytes::Plain(_)) || !is_small {
            counted.check()?;
        }
        Ok(counted)
    }

    /// Checks all of the profile without making tables.
    ///
    /// # Errors
    /// The first mistake, named.
    pub fn check(&mut self) -> Result<(), Refusal> {
        let reader = self.walk(None)?.0;
        check_node_count(reader.nodes, self.context.packed_bytes)?;
        self.table_bytes = estimate_tables(&self.counts, reader.nodes);
        Ok(())
    }

    /// Memory to read it.
    pub fn memory_bytes(&self) -> u64 {
        // The strings of the tables are at most as long as the profile.
        2 * self.profile.length() + self.table_bytes
    }

    /// Reads the profile.
    ///
    /// # Errors
    /// The first mistake, named.
    pub fn read(mut self) -> Result<ProfileContent, Refusal> {
        self.profile = self.profile.decompress_all()?;
        let (reader, rows) = self.walk(Some(Tables::default()))?;
        let head = reader.read_head()?;
        Ok(ProfileContent {
            head,
            tables: reader.tables.unwrap_or_default(),
            rows,
        })
    }

    fn walk(&self, tables: Option<Tables>) -> Result<(Reader, Vec<Row>), Refusal> {
        let mut reader = Reader {
            tables,
            file_ids: (self.context.files.iter())
                .map(|file| (file.mapping_id, file.file_id.clone()))
                .collect(),
            ..Reader::default()
        };
        if let Some(tables) = &mut reader.tables {
            let nodes = self.counts.get(ProfilePlace::LocationIds) / FRAMES_A_NODE;
            let nodes = nodes.min(FIRST_NODES_MAX);
            reader.index.reserve_stacks(tables, nodes as usize);
        }
        reader.read_strings(&self.profile, &self.counts)?;
        reader.check_head()?;
        let samples = self.counts.get(ProfilePlace::Samples);
        check_sample_count(samples, reader.head.period, self.context.window_ms)?;
        reader.read_mappings_and_functions(&self.profile)?;
        reader.read_locations(&self.profile, self.context.unnamed)?;
        let rows = reader.read_samples(&self.profile, self.context.series_count, samples)?;
        Ok((reader, rows))
    }
}

fn count(profile: &ProfileBytes<'_>) -> Result<ProfileCounts, Refusal> {
    let explain = |err| explain(profile.length(), err);
    match profile {
        ProfileBytes::Plain(bytes) => {
            let mut wire = Wire::new(&**bytes, bytes.len() as u64);
            ProfileCounts::read(&mut wire).map_err(explain)
        }
        ProfileBytes::Compressed(frame) => {
            let mut wire = frame.walk()?;
            let counts = ProfileCounts::read(&mut wire).map_err(explain)?;
            frame.check_end(&mut wire)?;
            Ok(counts)
        }
    }
}

/// Memory of tables with these entries, and nodes of stacks: a row has 32 bytes, a node 24, the others 16 to 40; an
/// index has 5 a place. Half of each is empty at worst.
fn estimate_tables(counts: &ProfileCounts, nodes: u64) -> u64 {
    use ProfilePlace::*;
    [
        (Samples, 32),
        (Mappings, 96),
        (Functions, 48),
        (Locations, 80),
        (Lines, 24),
        (Strings, 40),
    ]
    .iter()
    .map(|(place, bytes)| counts.get(*place) * bytes)
    .sum::<u64>()
        + 58 * nodes
}

fn refuse(message: String) -> Refusal {
    Refusal::new(RefusalReason::Profile, format!("profile: {message}"))
}

/// Walks a profile. Without tables it checks, and keeps no more than ids and hashes.
#[derive(Default)]
struct Reader {
    tables: Option<Tables>,
    index: Index,
    hasher: DefaultHashBuilder,
    head: protos::Profile,
    /// A hash of each string.
    hashes: Vec<u64>,
    /// The strings, if there are tables.
    strings: Vec<StringId>,
    /// Ids of files, by pprof's ids of their mappings.
    file_ids: HashMap<u64, String>,
    mappings: Ids<(MappingId, u64)>,
    functions: Ids<FunctionId>,
    locations: Ids<LocationId>,
    /// Frames of stacks, without those shared with the stack before: at least as many as the tree of stacks has
    /// nodes.
    nodes: u64,
}

impl Reader {
    fn make<T: Default>(&mut self, make: impl FnOnce(&mut Tables) -> T) -> T {
        self.tables.as_mut().map_or_else(T::default, make)
    }
}
