//! Paths of cgroups, which any process with a cgroup of its own may extend, by themselves and in a `/proc/PID/cgroup`.
#![no_main]

mod cgroup_paths;
mod seeds;

use libfuzzer_sys::fuzz_target;

fuzz_target!(init: seeds::write_seeds(cgroup_paths::real_paths().map(Vec::from)), |input: &str| {
    cgroup_paths::try_path(input);
    for controller in [None, Some("memory")] {
        let path = cgroupfs::find_path(input, controller);
        assert!(path.is_none_or(|path| path.is_relative() && input.contains(&*path.to_string_lossy())));
    }
});
