//! Files with a policy.

use crate::inputs::pod_objects;

pub(crate) fn run(input: &[u8]) {
    let Ok(input) = std::str::from_utf8(input) else { return };
    pod_objects::try_policy(input);
}

pub(crate) fn make_seeds() -> Vec<Vec<u8>> {
    vec![pod_objects::POLICY.into()]
}
