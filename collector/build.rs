//! Builds the eBPF object and puts it into `OUT_DIR`, where `sample::object` includes it.

use std::{env, fs, path::PathBuf};

use anyhow::{Context as _, Result};

fn main() -> Result<()> {
    let object =
        PathBuf::from(env::var_os("OUT_DIR").context("OUT_DIR is not set")?).join("profiler");
    // With AYA_BUILD_SKIP=1 (editors, clippy) no object is written; an empty one
    // lets the crate compile, and the collector says at start that it has no program.
    if !object.exists() {
        fs::write(&object, [])
            .with_context(|| format!("failed to write `{}`", object.display()))?;
    }
    let root_dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../profiler-bpf");
    aya_build::build_ebpf(
        [aya_build::Package {
            name: "profiler-bpf",
            root_dir,
            no_default_features: false,
            features: &["bpf"],
        }],
        aya_build::Toolchain::Nightly,
    )
}
