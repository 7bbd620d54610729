//! Objects of pods, which users and controllers of the cluster write.

use crate::inputs::pod_objects;

pub(crate) fn run(input: &[u8]) {
    pod_objects::try_pod(input);
}

pub(crate) fn make_seeds() -> Vec<Vec<u8>> {
    pod_objects::PODS.map(Vec::from).into()
}
