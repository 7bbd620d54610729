//! Folders whose contents the collector relies on.

use std::{
    fs,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _},
    path::Path,
};

use anyhow::{Context as _, Result, ensure};

/// Makes the folder if it is missing.
///
/// # Errors
/// It cannot be created or read, or other users may write to it.
pub(crate) fn make_private_folder(folder: &Path) -> Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .with_context(|| format!("failed to make {}", folder.display()))?;
    let found = fs::symlink_metadata(folder)
        .with_context(|| format!("failed to look at {}", folder.display()))?;
    let user = rustix::process::geteuid().as_raw();
    ensure!(
        found.is_dir() && found.uid() == user && found.mode() & 0o022 == 0,
        "{} is not a folder that this user owns and that no other may write to",
        folder.display()
    );
    Ok(())
}
