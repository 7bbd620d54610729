//! Files with rules of relabelling.

use crate::inputs::pod_objects;

pub(crate) fn run(input: &[u8]) {
    let Ok(input) = std::str::from_utf8(input) else { return };
    pod_objects::try_rules(input);
}

pub(crate) fn make_seeds() -> Vec<Vec<u8>> {
    vec![pod_objects::RULES.into()]
}
