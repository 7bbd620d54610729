//! Changed inputs, the same in each run.

use fastrand::Rng;

/// Numbers at the ends of their ranges, which lengths and counts compare with.
const ODD_NUMBERS: [u64; 8] = [
    0,
    1,
    0x7f,
    0xff,
    0x7fff_ffff,
    0xffff_ffff,
    i64::MAX as u64,
    u64::MAX,
];

/// A part that is inserted, copied or removed has 1, 2, 4 … or 32 bytes, each as often.
const PART_SIZES: u32 = 6;

/// One of the inputs with up to four changes: a flipped bit, a random byte, an odd number, a part of an input over another or between
/// two, a part that is gone, or a cut end.
pub fn mutate(inputs: &[Vec<u8>], random: &mut Rng) -> Vec<u8> {
    let mut input = pick(inputs, random).to_vec();
    for _ in 0..1 + random.usize(..4) {
        change(&mut input, pick(inputs, random), random);
    }
    input
}

fn pick<'a>(inputs: &'a [Vec<u8>], random: &mut Rng) -> &'a [u8] {
    random.choice(inputs).map_or(&[], Vec::as_slice)
}

fn change(input: &mut Vec<u8>, other: &[u8], random: &mut Rng) {
    if input.is_empty() {
        input.push(random.u8(..));
    }
    let at = random.usize(..input.len());
    match random.u8(..7) {
        0 => input[at] ^= 1 << random.u8(..8),
        1 => input[at] = random.u8(..),
        2 => {
            let number = random.choice(ODD_NUMBERS).unwrap_or_default();
            let bytes = 1 << random.u8(..4);
            overwrite(input, at, &number.to_le_bytes()[..bytes]);
        }
        3 => overwrite(input, at, part(other, random)),
        4 => drop(input.splice(at..at, part(other, random).to_vec())),
        5 => drop(input.drain(at..(at + part_bytes(random)).min(input.len()))),
        _ => input.truncate(at),
    }
}

fn overwrite(input: &mut [u8], at: usize, bytes: &[u8]) {
    let length = bytes.len().min(input.len() - at);
    input[at..at + length].copy_from_slice(&bytes[..length]);
}

fn part<'a>(bytes: &'a [u8], random: &mut Rng) -> &'a [u8] {
    let start = random.usize(..=bytes.len());
    &bytes[start..(start + part_bytes(random)).min(bytes.len())]
}

fn part_bytes(random: &mut Rng) -> usize {
    1 << random.u32(..PART_SIZES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mutations_are_the_same_in_each_run_and_differ_from_each_other() {
        let inputs = [b"one input".to_vec(), Vec::new(), vec![7; 300]];
        let make = |seed| {
            let mut random = Rng::with_seed(seed);
            (0..500)
                .map(|_| mutate(&inputs, &mut random))
                .collect::<Vec<_>>()
        };
        let first = make(1);
        assert_eq!(first, make(1));
        assert_ne!(first, make(2));
        let different: std::collections::HashSet<_> = first.iter().collect();
        assert!(different.len() > 300, "{}", different.len());
    }
}
