use crate::receive::grpc::test_push::profile_of;
use ::pprof::protos::Message;
use model::text::window;

use super::*;

/// A small valid profile: two samples of two series. Its second location has no name.
fn profile() -> protos::Profile {
    profile_of(&window(
        "comm=a | main 0x10+0x2@/bin/app | 3 | thread=worker
         comm=b | main | 1",
    ))
}

const UNNAMED: UnnamedLocations<'_> = UnnamedLocations {
    ids: &[2],
    reasons: &[4],
    function_distances: &[3],
};

fn read(profile: &protos::Profile) -> Result<ProfileContent, Refusal> {
    read_profile(&profile.encode_to_vec(), 2, UNNAMED)
}

/// Reads a profile with tables, and compares the result with the check without tables.
fn read_profile(
    bytes: &[u8],
    series_count: usize,
    unnamed: UnnamedLocations<'_>,
) -> Result<ProfileContent, Refusal> {
    let context = ProfileContext {
        series_count,
        window_ms: 10_000,
        packed_bytes: bytes.len() as u64,
        unnamed,
        files: &[],
    };
    let mut counted = CountedProfile::new(ProfileBytes::Plain(bytes.into()), context)?;
    let checked = counted.check();
    let read = counted.read();
    assert_eq!(checked.err(), read.as_ref().err().cloned());
    read
}

/// Checks that a change of a valid profile is refused with a text with these words.
fn check_refused(words: &str, change: impl FnOnce(&mut protos::Profile)) {
    let mut changed = profile();
    change(&mut changed);
    let refusal = read(&changed)
        .err()
        .unwrap_or_else(|| panic!("taken, and should be refused: {words}"));
    assert!(refusal.message.contains(words), "{refusal}");
}

#[test]
fn a_valid_profile_is_read() {
    let content = read(&profile()).unwrap();
    let tables = &content.tables;
    assert_eq!(
        content
            .rows
            .iter()
            .map(|row| row.series)
            .collect::<Vec<_>>(),
        [0, 1]
    );
    let row = content.rows[0];
    assert_eq!((row.samples, row.ns), (3, 30_000_000));
    assert_eq!(tables.tag_text(row.tags, "thread"), "worker");
    let stack: Vec<_> = tables
        .walk_stack(row.stack)
        .map(|location| tables.locations[location.position()])
        .collect();
    assert_eq!((stack[0].address, stack[0].unnamed.code()), (0x12, 4));
    assert_eq!((stack.len(), stack[1].unnamed.code()), (2, 0));
}

#[test]
fn mistakes_are_named() {
    check_refused("string_table[0]", |p| p.string_table.clear());
    check_refused("string_table[0]", |p| p.string_table[0] = "x".into());
    check_refused("sample_type is", |p| p.sample_type.swap(0, 1));
    check_refused("sample_type is", |p| p.sample_type.clear());
    check_refused("sample_type: string 99", |p| p.sample_type[0].ty = 99);
    check_refused("drop_frames: string -1", |p| p.drop_frames = -1);
    check_refused("mapping 1: string 99", |p| p.mapping[0].filename = 99);
    check_refused("mapping 1 comes twice", |p| {
        p.mapping.push(p.mapping[0].clone())
    });
    check_refused("a mapping has the id 0", |p| p.mapping[0].id = 0);
    check_refused("memory_start", |p| p.mapping[0].memory_start = 4096);
    check_refused("function 1: string -5", |p| p.function[0].system_name = -5);
    check_refused("function 1 comes twice", |p| {
        p.function.push(p.function[0].clone())
    });
    check_refused("location 1: no function 9", |p| {
        p.location[0].line[0].function_id = 9
    });
    check_refused("location 1: no mapping 9", |p| p.location[0].mapping_id = 9);
    check_refused("beyond the limit", |p| p.location[0].address = 1 << 40);
    check_refused("location 1 comes twice", |p| {
        p.location.push(p.location[0].clone())
    });
    check_refused("listed as unnamed", |p| {
        p.location[1].line = p.location[0].line.clone()
    });
    check_refused("unnamed_location_ids has 2", |p| p.location[1].id = 3);
    check_refused("sample 0: no location 7", |p| {
        p.sample[0].location_id[0] = 7
    });
    check_refused("sample 0: 1 values", |p| p.sample[0].value.truncate(1));
    check_refused("sample 0: negative", |p| p.sample[0].value[1] = -1);
    check_refused("add up to more", |p| p.sample[0].value[1] = i64::MAX);
    check_refused("sample 0 has no label \"series\"", |p| {
        p.sample[0].label.truncate(0)
    });
    check_refused("series 2 of a table of 2", |p| p.sample[0].label[0].num = 2);
    check_refused("series -1 of a table of 2", |p| {
        p.sample[0].label[0].num = -1
    });
    check_refused("comes twice", |p| {
        let again = p.sample[0].label[0].clone();
        p.sample[0].label.push(again);
    });
    check_refused("must be a string", |p| p.sample[0].label[1].num = 1);
    for name in ["outcome", "check"] {
        check_refused("must be a string", |p| {
            p.string_table.push(name.into());
            p.sample[0].label[1].key = p.string_table.len() as i64 - 1;
            p.sample[0].label[1].str = 0;
            p.sample[0].label[1].num = 1;
        });
    }
    check_refused("at most 32", |p| {
        p.sample[0].label = vec![Default::default(); 33]
    });
    check_refused("locations, and at most", |p| {
        p.sample[0].location_id = vec![1; 5000]
    });
}

#[test]
fn no_truncation_panics() {
    let bytes = profile().encode_to_vec();
    for end in 0..bytes.len() {
        let _ = read_profile(&bytes[..end], 2, UnnamedLocations::default());
    }
}

#[test]
fn no_changed_byte_panics() {
    let bytes = profile().encode_to_vec();
    for at in 0..bytes.len() {
        for value in [0, 1, 0x7f, 0x80, 0xff] {
            let mut changed = bytes.clone();
            changed[at] = value;
            let _ = read_profile(&changed, 2, UNNAMED);
        }
    }
}
