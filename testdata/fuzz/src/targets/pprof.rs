//! The scanner of profiles: any bytes are what prost decodes, or are refused as prost refuses them.

use model::text;
use pprof::protos::Message as _;
use server::receive::pprof::reference::{check_entry, check_profile};

use crate::of_kind;
use crate::test_push;

pub(crate) fn run(input: &[u8]) {
    let Some((&kind, input)) = input.split_first() else { return };
    match kind % 5 {
        4 => check_profile(input),
        kind => check_entry(kind, input),
    };
}

const TEXT: &str = "
    comm=rustc,node=a | main parse>inlined read@[kernel] | 12 | thread=worker
    comm=rustc,node=a | main parse | 3 | thread=worker outcome=truncated
    comm=sort,node=a | main 0x1f@/lib/b.so | 5
";

pub(crate) fn make_seeds() -> Vec<Vec<u8>> {
    let profile = test_push::profile_of(&text::window(TEXT));
    let samples = profile.sample.iter().map(|sample| of_kind(0, &sample.encode_to_vec()));
    let locations = profile.location.iter().map(|location| of_kind(1, &location.encode_to_vec()));
    let others = [
        of_kind(2, &profile.mapping[0].encode_to_vec()),
        of_kind(3, &profile.function[0].encode_to_vec()),
        of_kind(4, &profile.encode_to_vec()),
    ];
    samples.chain(locations).chain(others).collect()
}
