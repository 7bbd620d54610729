//! Check the properties that the fuzz target `cgroup` wants, of real paths and of paths made of their parts.

#[path = "../../../testdata/fuzz/targets/cgroup_paths.rs"]
mod cgroup_paths;

use cgroup_paths::{real_paths, try_path};
use fastrand::Rng;

#[test]
fn real_paths_have_the_properties() {
    real_paths().for_each(try_path);
}

/// Paths of random parts of real ones, cut and joined anywhere.
#[test]
fn mixed_paths_have_the_properties() {
    let all: String = real_paths().collect();
    let mut random = Rng::with_seed(1);
    for _ in 0..20_000 {
        let mut path = String::new();
        for _ in 0..1 + random.usize(..6) {
            let start = random.usize(..all.len());
            let part = &all[start..(start + random.usize(..100)).min(all.len())];
            path.push_str(part);
            path.push_str(["", "/", "-", ".scope/", ".service", ":"][random.usize(..6)]);
        }
        try_path(&path);
    }
}
