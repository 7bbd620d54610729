//! Check the properties that the fuzz targets `pod`, `relabel` and `policy` want, of valid inputs and of inputs with changed bytes.

#[path = "../../../testdata/fuzz/targets/pod_objects.rs"]
mod pod_objects;

use pod_objects::{PODS, POLICY, RULES, try_pod, try_policy, try_rules};

/// Makes inputs with a few bytes replaced by others of the same input.
fn change(input: &str, count: usize, mut test: impl FnMut(&[u8])) {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = |end: usize| {
        // xorshift64*
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        (state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) as usize % end
    };
    for _ in 0..count {
        let mut bytes = input.as_bytes().to_vec();
        for _ in 0..1 + random(4) {
            let (to, from) = (random(bytes.len()), random(bytes.len()));
            let length = 1 + random(20.min(bytes.len() - to.max(from)));
            bytes.copy_within(from..from + length, to);
        }
        test(&bytes);
    }
}

#[test]
fn pods() {
    for pod in PODS {
        try_pod(pod.as_bytes());
        change(pod, 2_000, try_pod);
    }
}

#[test]
fn rules() {
    try_rules(RULES);
    change(RULES, 1_000, |bytes| {
        try_rules(&String::from_utf8_lossy(bytes))
    });
}

#[test]
fn policies() {
    try_policy(POLICY);
    change(POLICY, 1_000, |bytes| {
        try_policy(&String::from_utf8_lossy(bytes))
    });
}
