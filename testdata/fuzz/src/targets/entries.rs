//! Entries are counted before a message is decoded: any bytes are counted or refused, and what a decoder takes has as many.

use model::text;
use pprof::protos::{Message as _, Profile};
use prost::Message as _;
use proto::v1::{BeginUploadRequest, FileRange, PushRequest, Segment};
use server::receive::entries::{BEGIN_UPLOAD, Counted, PUSH, PushPlace, ProfileCounts, ProfilePlace, check_message};
use server::receive::wire::{Wire, count_entries};

use crate::of_kind;
use crate::test_push;

pub(crate) fn run(input: &[u8]) {
    let Some((&kind, input)) = input.split_first() else { return };
    match kind % 3 {
        0 => try_push(input),
        1 => try_profile(input),
        _ => try_upload(input),
    }
}

fn count(input: &[u8], message: &Counted) -> Option<Vec<u64>> {
    let _ = check_message(input, message);
    let mut counts = vec![0; message.fields.len()];
    count_entries(&mut Wire::new(input, input.len() as u64), message.schema, &mut counts).ok()?;
    Some(counts)
}

fn try_push(input: &[u8]) {
    let (Some(counts), Ok(request)) = (count(input, &PUSH), PushRequest::decode(input)) else { return };
    let account = request.account.unwrap_or_default();
    let expected = [
        (PushPlace::Series, request.series.len()),
        (PushPlace::Labels, request.series.iter().map(|set| set.labels.len()).sum()),
        (PushPlace::Outcomes, account.outcomes.len()),
        (PushPlace::Dropped, account.dropped.len()),
        (PushPlace::UnnamedLocationIds, request.unnamed_location_ids.len()),
        (PushPlace::UnnamedReasons, request.unnamed_reasons.len()),
        (PushPlace::FileLayouts, request.file_layouts.len()),
        (PushPlace::Segments, request.file_layouts.iter().map(|layout| layout.segments.len()).sum()),
        (PushPlace::UnnamedFunctionDistances, request.unnamed_function_distances.len()),
    ];
    for (place, length) in expected {
        assert_eq!(counts[place as usize], length as u64, "{place:?}");
    }
}

fn try_profile(input: &[u8]) {
    let counts = ProfileCounts::read(&mut Wire::new(input, input.len() as u64));
    let (Ok(counts), Ok(profile)) = (counts, Profile::decode(input)) else { return };
    let expected = [
        (ProfilePlace::SampleTypes, profile.sample_type.len()),
        (ProfilePlace::Samples, profile.sample.len()),
        (ProfilePlace::LocationIds, profile.sample.iter().map(|sample| sample.location_id.len()).sum()),
        (ProfilePlace::Mappings, profile.mapping.len()),
        (ProfilePlace::Locations, profile.location.len()),
        (ProfilePlace::Lines, profile.location.iter().map(|location| location.line.len()).sum()),
        (ProfilePlace::Functions, profile.function.len()),
        (ProfilePlace::Strings, profile.string_table.len()),
        (ProfilePlace::Comments, profile.comment.len()),
    ];
    for (place, length) in expected {
        assert_eq!(counts.get(place), length as u64, "{place:?}");
    }
}

fn try_upload(input: &[u8]) {
    let (Some(counts), Ok(request)) = (count(input, &BEGIN_UPLOAD), BeginUploadRequest::decode(input)) else { return };
    assert_eq!(counts, [request.ranges.len() as u64, request.segments.len() as u64]);
}

const TEXT: &str = "
    comm=rustc,node=a | main parse>inlined read@[kernel] | 12 | thread=worker
    comm=sort,node=a | main 0x1f@/lib/b.so | 5
";

pub(crate) fn make_seeds() -> Vec<Vec<u8>> {
    let request = test_push::push_request(&text::window_at(TEXT, 1_795_312_790_000, 1));
    let profile = zstd::bulk::decompress(&request.profile_zstd, request.profile_bytes as usize).expect("it was just compressed");
    let upload = BeginUploadRequest {
        build_id: "00ff".into(),
        ranges: vec![FileRange { offset: 1, bytes: 2 }; 3],
        segments: vec![Segment { file_offset: 1, address: 2, bytes: 3 }; 2],
        ..Default::default()
    };
    vec![
        of_kind(0, &request.encode_to_vec()),
        of_kind(1, &profile),
        of_kind(2, &upload.encode_to_vec()),
    ]
}
