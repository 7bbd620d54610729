//! Limits on the entries of a message's repeated fields. Pure.
//!
//! Two rules. A collector's message is decoded as a whole: the memory of its entries is bounded by its bytes
//! ([`check_message`]). The profile inside is read entry by entry ([`super::pprof`]): its numbers of entries are
//! bounded by hardware ([`check_profile_counts`]). Together, a refused message takes less than four times its bytes
//! and 64 MiB: the bytes, their copy in strings, the bytes and 32 MiB of entries here, and 32 MiB and a part of the
//! bytes there.

use super::refusal::{Refusal, RefusalReason};
use super::wire::{Content, Field, Schema, Wire, count_entries};

/// Memory of the entries of any message: 512 processors with 40 series each, of ten labels (1.6 KB) each.
const ENTRY_BYTES_MAX: u64 = 32 << 20;

/// A message whose repeated fields are counted.
#[derive(Debug)]
pub struct Counted {
    /// Their positions in the message.
    pub schema: &'static Schema,
    /// The fields, by place.
    pub fields: &'static [Repeated],
}

/// A repeated field.
#[derive(Debug)]
pub struct Repeated {
    name: &'static str,
    /// Memory of an entry while it is decoded and checked, without the wire bytes of its strings.
    bytes: u64,
}

/// An entry of a growing vector: at worst half of the vector is empty, or was just copied.
const fn in_vector(bytes: usize) -> u64 {
    bytes as u64 * 3 / 2
}

/// Memory of a string: a multiple of 16 bytes, at least 32.
const STRING: u64 = 32;

/// A vector allocates four entries for its first one.
const fn first_four(bytes: usize) -> u64 {
    4 * bytes as u64
}

const fn repeated(name: &'static str, bytes: u64) -> Repeated {
    Repeated { name, bytes }
}

const fn counted(number: u32, place: usize, content: Content) -> Field {
    Field {
        number,
        place: Some(place),
        content,
    }
}

/// Places of the repeated fields of a `PushRequest`.
#[derive(Clone, Copy, Debug)]
pub enum PushPlace {
    /// `series`
    Series,
    /// Their labels.
    Labels,
    /// `account.outcomes`
    Outcomes,
    /// `account.dropped`
    Dropped,
    /// `unnamed_location_ids`
    UnnamedLocationIds,
    /// `unnamed_reasons`
    UnnamedReasons,
    /// `file_layouts`
    FileLayouts,
    /// Their segments.
    Segments,
    /// `unnamed_function_distances`
    UnnamedFunctionDistances,
    /// `containers`
    Containers,
    /// Their labels.
    ContainerLabels,
}

/// Collectors' windows.
pub const PUSH: Counted = Counted {
    schema: &Schema(&[
        counted(6, PushPlace::Series as usize, Content::Message(&LABEL_SET)),
        Field {
            number: 9,
            place: None,
            content: Content::Message(&ACCOUNT),
        },
        counted(10, PushPlace::UnnamedLocationIds as usize, Content::Number),
        counted(11, PushPlace::UnnamedReasons as usize, Content::Number),
        counted(
            12,
            PushPlace::FileLayouts as usize,
            Content::Message(&FILE_LAYOUT),
        ),
        counted(
            13,
            PushPlace::UnnamedFunctionDistances as usize,
            Content::Number,
        ),
        counted(
            14,
            PushPlace::Containers as usize,
            Content::Message(&CONTAINER),
        ),
    ]),
    fields: &[
        // The set, its checked form, and its entry in the set of seen ones.
        repeated("series", in_vector(24) + first_four(48) + 24 + 16),
        repeated("series.labels", in_vector(48) + 2 * STRING),
        repeated("account.outcomes", in_vector(32) + STRING),
        repeated("account.dropped", in_vector(32) + STRING),
        // The number, and an entry of a map that is half empty.
        repeated("unnamed_location_ids", in_vector(8) + 2 * (16 + 1)),
        repeated("unnamed_reasons", in_vector(4)),
        // With the checked form: a build id and a vector.
        repeated(
            "file_layouts",
            2 * (in_vector(88) + 2 * STRING) + first_four(24),
        ),
        repeated("file_layouts.segments", in_vector(24) + 24),
        repeated("unnamed_function_distances", in_vector(4)),
        // The message, its checked form, and the entry of its labels in the set of seen ones.
        repeated("containers", in_vector(56) + first_four(80) + 24 + 16),
        repeated("containers.labels", in_vector(48) + 2 * STRING),
    ],
};

const LABEL_SET: Schema = Schema(&[counted(1, PushPlace::Labels as usize, Content::Bytes)]);

const CONTAINER: Schema = Schema(&[Field {
    number: 1,
    place: None,
    content: Content::Message(&CONTAINER_LABELS),
}]);

const CONTAINER_LABELS: Schema = Schema(&[counted(
    1,
    PushPlace::ContainerLabels as usize,
    Content::Bytes,
)]);

const ACCOUNT: Schema = Schema(&[
    counted(2, PushPlace::Outcomes as usize, Content::Bytes),
    counted(6, PushPlace::Dropped as usize, Content::Bytes),
]);

const FILE_LAYOUT: Schema = Schema(&[counted(2, PushPlace::Segments as usize, Content::Bytes)]);

/// A collector's first message about a file.
pub const BEGIN_UPLOAD: Counted = Counted {
    schema: &Schema(&[counted(5, 0, Content::Bytes), counted(6, 1, Content::Bytes)]),
    fields: &[
        repeated("ranges", 2 * in_vector(16)),
        repeated("segments", in_vector(24) + 24),
    ],
};

/// A node's report.
pub const REPORT: Counted = Counted {
    schema: &Schema(&[counted(7, 0, Content::Bytes)]),
    // The message and its checked form, each with four strings.
    fields: &[repeated("checks", 2 * in_vector(104) + 8 * STRING)],
};

/// Messages without repeated fields.
pub const PLAIN: Counted = Counted {
    schema: &Schema(&[]),
    fields: &[],
};

/// Checks that the entries of a message take about as much memory as its bytes, or 32 MiB.
///
/// # Errors
/// They take more, or the bytes are not a message.
pub fn check_message(bytes: &[u8], message: &Counted) -> Result<(), Refusal> {
    let mut counts = vec![0; message.fields.len()];
    let length = bytes.len() as u64;
    count_entries(&mut Wire::new(bytes, length), message.schema, &mut counts)
        .map_err(|err| Refusal::new(RefusalReason::Malformed, err.to_string()))?;
    let fields = || message.fields.iter().zip(&counts);
    let memory: u64 = fields().map(|(field, count)| field.bytes * count).sum();
    let memory_max = ENTRY_BYTES_MAX + length;
    if memory <= memory_max {
        return Ok(());
    }
    let largest = fields().max_by_key(|(field, count)| field.bytes * *count);
    let (name, count) = largest.map_or(("", 0), |(field, count)| (field.name, *count));
    Err(Refusal::new(
        RefusalReason::Entries,
        format!(
            "the entries of a message of {length} bytes would take {memory} bytes of memory, and at most {memory_max} are \
             taken; {name} has {count}"
        ),
    ))
}

/// Places of the repeated fields of a profile.
#[derive(Clone, Copy, Debug)]
pub enum ProfilePlace {
    /// `sample_type`
    SampleTypes,
    /// `sample`
    Samples,
    /// The locations of all samples.
    LocationIds,
    /// `mapping`
    Mappings,
    /// `location`
    Locations,
    /// The lines of all locations.
    Lines,
    /// `function`
    Functions,
    /// `string_table`
    Strings,
    /// `comment`
    Comments,
}

const PROFILE_PLACES: usize = ProfilePlace::Comments as usize + 1;

const PROFILE: Schema = Schema(&[
    counted(1, ProfilePlace::SampleTypes as usize, Content::Bytes),
    counted(
        2,
        ProfilePlace::Samples as usize,
        Content::Message(&Schema(&[counted(
            1,
            ProfilePlace::LocationIds as usize,
            Content::Number,
        )])),
    ),
    counted(3, ProfilePlace::Mappings as usize, Content::Bytes),
    counted(
        4,
        ProfilePlace::Locations as usize,
        Content::Message(&Schema(&[counted(
            4,
            ProfilePlace::Lines as usize,
            Content::Bytes,
        )])),
    ),
    counted(5, ProfilePlace::Functions as usize, Content::Bytes),
    counted(6, ProfilePlace::Strings as usize, Content::Bytes),
    counted(13, ProfilePlace::Comments as usize, Content::Number),
]);

/// Processors of the largest common servers: two sockets of 256 threads.
pub const PROCESSORS_MAX: u64 = 512;

/// Maximum and default of the collector's `--frequency`, in samples a second and processor.
pub const FREQUENCY_MAX: u64 = 1000;
const FREQUENCY_DEFAULT: u64 = 100;

/// Maximum of the collector's `--window`.
const WINDOW_MS_MAX: u64 = 30_000;

/// Tables of functions, locations and strings. A node of two cores that compiles has 30,000 strings in a window:
/// sixteen times as many, and one more for each 8 packed bytes, where real windows have one for each 15 to 30.
const TABLE_MAX: u64 = 512 << 10;
const BYTES_AN_ENTRY: u64 = 8;

/// Files: 32,768 processes, the most by default, of two files each that no other has.
const MAPPINGS_MAX: u64 = 64 << 10;

/// Lines: four inlined calls a location.
const LINES_A_LOCATION: u64 = 4;

/// Comments: the collector writes none.
const COMMENTS_MAX: u64 = 64;

/// Sample types: the protocol has two.
const SAMPLE_TYPES_MAX: u64 = 16;

/// Nodes of the tree of stacks: 256,000 different stacks (256 processors, 100 Hz, 10 s) of 64 frames that no other has; and eight
/// more for each packed byte, where real windows have one or two. A node takes 58 bytes.
const NODES_MAX: u64 = 16 << 20;
const NODES_A_BYTE: u64 = 8;

/// Nodes of the tree of stacks, each counted once: four times those of the largest window of a collector, which drops samples beyond
/// 1,048,576 of them. A question about the window takes 90 ns for each.
const STACK_NODES_MAX: u64 = 4 << 20;

/// Label sets: a collector knows 32,768 processes, and those of one program in one container have the same.
const SERIES_MAX: u64 = 32 << 10;

/// Numbers of entries of a profile.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProfileCounts([u64; PROFILE_PLACES]);

impl ProfileCounts {
    /// The entries at a place.
    pub fn get(&self, place: ProfilePlace) -> u64 {
        self.0[place as usize]
    }

    /// Counts a profile.
    ///
    /// # Errors
    /// The bytes are not a message, or their source failed.
    pub fn read<R: std::io::BufRead>(wire: &mut Wire<R>) -> Result<Self, super::wire::WireError> {
        let mut counts = Self::default();
        count_entries(wire, &PROFILE, &mut counts.0)?;
        Ok(counts)
    }
}

/// Checks the numbers of entries of a profile of `packed_bytes` compressed bytes.
///
/// # Errors
/// The first number above its limit, named.
pub fn check_profile_counts(counts: &ProfileCounts, packed_bytes: u64) -> Result<(), Refusal> {
    use ProfilePlace::*;
    let table_max = TABLE_MAX + packed_bytes / BYTES_AN_ENTRY;
    for (place, name, max) in [
        (SampleTypes, "sample_type", SAMPLE_TYPES_MAX),
        (Samples, "sample", samples_max(FREQUENCY_MAX, WINDOW_MS_MAX)),
        (Mappings, "mapping", MAPPINGS_MAX),
        (Locations, "location", table_max),
        (Lines, "location.line", LINES_A_LOCATION * table_max),
        (Functions, "function", table_max),
        (Strings, "string_table", table_max),
        (Comments, "comment", COMMENTS_MAX),
    ] {
        check_count(name, counts.get(place), max)?;
    }
    Ok(())
}

/// Checks the number of samples, by the sampling period and the length of the window.
///
/// # Errors
/// There are more than from 512 processors.
pub fn check_sample_count(samples: u64, period_ns: i64, window_ms: i64) -> Result<(), Refusal> {
    let frequency = match u64::try_from(period_ns) {
        Ok(period_ns @ 1..) => (1_000_000_000 / period_ns).clamp(1, FREQUENCY_MAX),
        _ => FREQUENCY_DEFAULT,
    };
    let window_ms = u64::try_from(window_ms).unwrap_or(0);
    let max = samples_max(frequency, window_ms.clamp(1000, WINDOW_MS_MAX));
    check_count("sample", samples, max)
}

/// Checks the number of nodes of the tree of stacks.
///
/// # Errors
/// There are more than from 512 processors.
pub fn check_node_count(nodes: u64, packed_bytes: u64) -> Result<(), Refusal> {
    let max = NODES_MAX + NODES_A_BYTE * packed_bytes;
    check_count(
        "frames of stacks that differ from the stack before",
        nodes,
        max,
    )
}

/// Checks the number of different stacks of a window, as nodes of their tree.
///
/// # Errors
/// There are more than a collector sends.
pub fn check_stack_nodes(nodes: u64) -> Result<(), Refusal> {
    check_count("nodes of the tree of stacks", nodes, STACK_NODES_MAX)
}

/// Checks the number of label sets of a window.
///
/// # Errors
/// There are more than a collector sends.
pub fn check_series_count(series: u64) -> Result<(), Refusal> {
    if series <= SERIES_MAX {
        return Ok(());
    }
    Err(Refusal::new(
        RefusalReason::Entries,
        format!("series: {series} label sets, and at most {SERIES_MAX} are taken"),
    ))
}

fn samples_max(frequency: u64, window_ms: u64) -> u64 {
    PROCESSORS_MAX * frequency * window_ms / 1000
}

fn check_count(name: &str, count: u64, max: u64) -> Result<(), Refusal> {
    if count <= max {
        return Ok(());
    }
    Err(Refusal::new(
        RefusalReason::Entries,
        format!("profile: {name}: {count} entries, and at most {max} are taken"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check the arithmetic of the limit: 512 processors, 100 Hz and 30 s are 1.5 million samples.
    #[test]
    fn samples_are_bounded_by_processors_frequency_and_time() {
        let is_taken = |samples, period_ns, window_ms| {
            check_sample_count(samples, period_ns, window_ms).is_ok()
        };
        assert!(is_taken(1_536_000, 10_000_000, 30_000));
        assert!(!is_taken(1_536_001, 10_000_000, 30_000));
        // A longer window or a higher frequency than the collector's flags allow is not believed.
        assert!(!is_taken(1_536_001, 10_000_000, 60_000));
        assert!(is_taken(15_360_000, 1_000_000, 30_000));
        assert!(!is_taken(15_360_001, 1, 30_000));
        // A profile without a period has the default frequency.
        assert!(is_taken(512_000, 0, 10_000));
        assert!(!is_taken(512_001, -1, 10_000));
        // The first window may be short, and has the samples of a second.
        assert!(is_taken(51_200, 10_000_000, 3));
    }

    #[test]
    fn tables_grow_with_the_message() {
        let mut counts = ProfileCounts::default();
        counts.0[ProfilePlace::Strings as usize] = TABLE_MAX + 1;
        let refusal = check_profile_counts(&counts, 7).unwrap_err();
        assert_eq!(refusal.reason, RefusalReason::Entries);
        assert!(
            refusal.message.contains("string_table: 524289"),
            "{refusal}"
        );
        check_profile_counts(&counts, 8).unwrap();
    }

    /// Check that millions of two-byte entries, which each take 24 bytes or more decoded, are refused in each field.
    #[test]
    fn a_message_of_empty_entries_is_refused() {
        for (key, inner) in [
            (0x32, &[][..]),
            (0x62, &[]),
            (0x4a, &[0x12, 0]),
            (0x32, &[0x0a, 0]),
            (0x72, &[]),
            (0x72, &[0x0a, 2, 0x0a, 0]),
        ] {
            let entry = [&[key, inner.len() as u8], inner].concat();
            let bytes = entry.repeat((8 << 20) / entry.len());
            let refusal = check_message(&bytes, &PUSH).unwrap_err();
            assert_eq!(refusal.reason, RefusalReason::Entries, "{refusal}");
        }
        // Packed: eight bytes of memory for one.
        let packed = [&[0x52, 0x80, 0x80, 0x80, 0x04][..], &vec![1; 8 << 20]].concat();
        check_message(&packed, &PUSH).unwrap_err();
        let ranges = [0x2a, 0].repeat(2 << 20);
        check_message(&ranges, &BEGIN_UPLOAD).unwrap_err();
        check_message(&ranges, &PLAIN).unwrap();
    }

    /// Check that a message of 512 processors passes: 20,000 label sets of ten labels, and 4,096 files.
    #[test]
    fn a_large_node_is_taken() {
        use proto::v1;
        let label = |name: usize| v1::Label {
            name: format!("label{name}"),
            value: "a value that is not short".into(),
        };
        let set = v1::LabelSet {
            labels: (0..10).map(label).collect(),
        };
        let layout = v1::FileLayout {
            build_id: "00".repeat(20),
            segments: vec![v1::Segment::default(); 4],
            offer: 1,
            file_id: "00".repeat(20),
            mapping_id: 1,
        };
        let request = v1::PushRequest {
            series: vec![set; 20_000],
            file_layouts: vec![layout; 4096],
            ..Default::default()
        };
        let bytes = prost::Message::encode_to_vec(&request);
        check_message(&bytes, &PUSH).unwrap();
    }
}
