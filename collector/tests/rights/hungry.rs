//! A program whose debug information takes a naming child more memory than it may have.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use object::{
    Object as _, ObjectSection as _,
    elf::{ELFCOMPRESS_ZSTD, SHF_COMPRESSED},
};

/// Bytes of the line table, decompressed: together with the collector more than the chart's limit of 256 MiB, and less than the naming
/// child may take without such a limit, 256 MiB.
const LINE_BYTES: usize = 224 << 20;

const LINES: &str = ".debug_line";

/// Bytes of a section header of a 64-bit file, and the place of its flags in it.
const SECTION_HEADER_BYTES: usize = 64;
const FLAGS_AT: usize = 8;

/// The running program; ended when this is dropped.
pub(crate) struct Hungry(Child);

impl Hungry {
    /// Builds it in a directory, and starts it.
    pub(crate) fn start(directory: &Path) -> Result<Self> {
        let [program, lines] = ["hungry", "lines"].map(|name| directory.join(name));
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/workloads/burner.c");
        run(Command::new("cc")
            .args(["-g", "-DFUNCTION=burn", "-DSALT=1", "-o"])
            .args([&program, &source]))?;
        fs::write(&lines, compress_lines()?).context("failed to write the line table")?;
        let section = format!("{LINES}={}", lines.display());
        run(Command::new("objcopy")
            .args(["--update-section", &section])
            .arg(&program))?;
        mark_compressed(&program)?;
        let child = Command::new(&program)
            .arg("600")
            .stdin(Stdio::null())
            .spawn()
            .context("failed to start the program")?;
        Ok(Self(child))
    }
}

impl Drop for Hungry {
    fn drop(&mut self) {
        // It has not ended by itself: it takes ten minutes.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A compressed section of zeros: `Elf64_Chdr` and a zstd frame.
fn compress_lines() -> Result<Vec<u8>> {
    let frame = zstd::bulk::compress(&vec![0; LINE_BYTES], 1).context("failed to compress")?;
    let header = [u64::from(ELFCOMPRESS_ZSTD.0), LINE_BYTES as u64, 1].map(u64::to_le_bytes);
    Ok([header.concat(), frame].concat())
}

/// Sets the flag in the section's header. objcopy has none for it.
fn mark_compressed(program: &Path) -> Result<()> {
    let mut bytes = fs::read(program).context("failed to read the program")?;
    let file = object::File::parse(&*bytes).context("failed to read the program's headers")?;
    let section = file.section_by_name(LINES).context("no line table")?;
    let index = section.index().0;
    let table = bytes[40..].first_chunk().map(|at| u64::from_le_bytes(*at));
    let at = table.context("no headers")? as usize + index * SECTION_HEADER_BYTES + FLAGS_AT;
    for (byte, flag) in bytes[at..].iter_mut().zip(SHF_COMPRESSED.0.to_le_bytes()) {
        *byte |= flag;
    }
    fs::write(program, bytes).context("failed to write the program")
}

fn run(command: &mut Command) -> Result<()> {
    let status = command.status();
    let status = status.with_context(|| format!("failed to run {command:?}"))?;
    ensure!(status.success(), "{command:?} ended with {status}");
    Ok(())
}
