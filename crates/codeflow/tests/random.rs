//! Any bytes give rows that keep their promises.

#[path = "../../../testdata/fuzz/src/targets/code.rs"]
mod code;

/// Check random bytes, and seeds and the test's own code with bytes changed.
#[test]
fn any_bytes() {
    let mut random = fastrand::Rng::with_seed(7);
    let own = std::fs::read("/proc/self/exe").expect("the test itself");
    let seeds = code::make_seeds();
    for round in 0..400 {
        let length = random.usize(1..3_000);
        let mut bytes: Vec<u8> = match round % 3 {
            0 => std::iter::repeat_with(|| random.u8(..))
                .take(length)
                .collect(),
            1 => seeds[random.usize(..seeds.len())].clone(),
            _ => own[random.usize(..own.len() - length)..][..length].to_vec(),
        };
        for _ in 0..random.usize(..4) {
            let place = random.usize(..bytes.len());
            bytes[place] = random.u8(..);
        }
        code::run(&bytes);
    }
}
