//! The scanner against prost's decoder, over random messages, whole and changed.

use ::pprof::protos::Message;
use model::text::window;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::reference::{check_entry, check_profile};
use crate::receive::grpc::test_push::profile_of;
use crate::receive::wire::put_number;

/// A number of each length, small ones more often.
fn random_number(random: &mut StdRng) -> u64 {
    random.random::<u64>() >> random.random_range(0..64)
}

/// A message of random fields: known and unknown, of right and of wrong types, alone and packed, with messages inside.
fn random_message(random: &mut StdRng, depth: u32) -> Vec<u8> {
    let mut message = Vec::new();
    for _ in 0..random.random_range(0..8) {
        let field = random.random_range(1..12);
        // Numbers mostly, or what holds numbers.
        let kind = [0, 0, 0, 2, 2, 2, 1, 5, 3][random.random_range(0..9)];
        put_number(&mut message, field << 3 | kind);
        match kind {
            0 => put_number(&mut message, random_number(random)),
            1 => message.extend([3; 8]),
            2 => {
                let inside = match random.random_range(0..2 + depth.min(1)) {
                    0 => Vec::new(),
                    1 => random_numbers(random),
                    _ => random_message(random, depth - 1),
                };
                put_number(&mut message, inside.len() as u64);
                message.extend(inside);
            }
            5 => message.extend([3; 4]),
            // The end of a group.
            _ => put_number(&mut message, field << 3 | 4),
        }
    }
    message
}

fn random_numbers(random: &mut StdRng) -> Vec<u8> {
    let mut packed = Vec::new();
    for _ in 0..random.random_range(0..20) {
        let number = random_number(random);
        put_number(&mut packed, number);
    }
    packed
}

/// Changes, adds or removes some bytes.
fn change(random: &mut StdRng, bytes: &mut Vec<u8>) {
    for _ in 0..random.random_range(1..4) {
        let at = random.random_range(0..=bytes.len());
        match random.random_range(0..4) {
            0 => bytes.insert(at, random.random()),
            1 => bytes.truncate(at.max(bytes.len() / 2)),
            _ if at == bytes.len() => {}
            2 => drop(bytes.remove(at)),
            _ => bytes[at] ^= 1 << random.random_range(0..8),
        }
    }
}

#[test]
fn entries_are_those_that_prost_decodes() {
    let mut random = StdRng::seed_from_u64(1);
    let mut taken = [0; 4];
    for round in 0..200_000 {
        let kind = random.random_range(0..4_u8);
        let mut bytes = random_message(&mut random, 2);
        if round % 2 == 0 {
            change(&mut random, &mut bytes);
        }
        taken[usize::from(kind)] += u32::from(check_entry(kind, &bytes));
    }
    assert!(taken.iter().all(|taken| *taken > 1000), "{taken:?}");
}

const TEXT: &str = "
    comm=a | main parse>inlined read@[kernel] | 12 | thread=worker
    comm=a | main parse | 3 | thread=worker outcome=truncated
    comm=a | main parse | 3 | thread=other
    comm=b | main other>inlined 0x1f@/lib/b.so | 5
";

/// Check that profiles of random entries have the samples that prost finds in them, and that what prost does not decode is refused.
#[test]
fn profiles_are_those_that_prost_decodes() {
    let mut random = StdRng::seed_from_u64(2);
    let profile = profile_of(&window(TEXT));
    let mut taken = 0;
    for round in 0..20_000 {
        let mut profile = profile.clone();
        // Other stacks, locations and labels, of which some refer to nothing.
        for sample in &mut profile.sample {
            let ids = 1..profile.location.len() as u64 + u64::from(random.random_ratio(1, 50));
            let id = || random.random_range(ids.clone());
            sample.location_id = std::iter::repeat_with(id).take(round % 7).collect();
        }
        for location in &mut profile.location {
            location.line.truncate(random.random_range(0..3));
            location.is_folded = random.random();
            location.address = random.random_range(0..1 << 20);
        }
        if random.random_ratio(1, 4) {
            profile.string_table.push(String::new());
            profile.function[0].filename = profile.string_table.len() as i64 - 1;
        }
        if random.random_ratio(1, 4) {
            profile.sample[0].label.reverse();
        }
        let mut bytes = profile.encode_to_vec();
        if random.random() {
            change(&mut random, &mut bytes);
        }
        taken += u32::from(check_profile(&bytes));
    }
    assert!((5000..19_000).contains(&taken), "{taken}");
}
