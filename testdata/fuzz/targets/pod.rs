//! Objects of pods, which users and controllers of the cluster write.
#![no_main]

mod pod_objects;
mod seeds;

use libfuzzer_sys::fuzz_target;

fuzz_target!(init: seeds::write_seeds(pod_objects::PODS.map(Vec::from)), |input: &[u8]| pod_objects::try_pod(input));
