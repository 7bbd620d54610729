//! The maps of the program's object.

use anyhow::{Context as _, Result};
use aya::{Ebpf, maps::Map};

/// Takes a map out of the object.
pub(super) fn take_map(ebpf: &mut Ebpf, name: &str) -> Result<Map> {
    ebpf.take_map(name)
        .with_context(|| format!("failed to find the map `{name}` in the object"))
}
