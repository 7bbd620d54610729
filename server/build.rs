//! Puts the built page, `ui/dist`, into the binary. Without it the server compiles all the same and says how to
//! build the page.

use std::error::Error;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    let dist = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?).join("../ui/dist");
    println!("cargo::rerun-if-changed={}", dist.display());
    let mut files = Vec::new();
    if dist.is_dir() {
        collect_files(&dist, &mut files)?;
        files.sort();
    } else {
        println!(
            "cargo::warning=the page is not built (`deploy/build page`), this server will not have one"
        );
    }
    let mut code = String::from("static PAGE_FILES: &[PageFile] = &[\n");
    // Sorted by the path in the URL, since the server searches in it.
    let mut named: Vec<(String, PathBuf)> = Vec::new();
    for file in files {
        let name = file
            .strip_prefix(&dist)?
            .to_string_lossy()
            .replace('\\', "/");
        named.push((name, file));
    }
    named.sort();
    for (name, file) in named {
        let checksum = fingerprint(&fs::read(&file)?);
        let file = file.canonicalize()?;
        writeln!(
            code,
            "PageFile {{ path: {name:?}, etag: \"\\\"{checksum:016x}\\\"\", bytes: include_bytes!({file:?}) }},"
        )?;
    }
    code += "];\n";
    fs::write(
        Path::new(&std::env::var("OUT_DIR")?).join("page_files.rs"),
        code,
    )?;
    Ok(())
}

fn collect_files(folder: &Path, files: &mut Vec<PathBuf>) -> Result<(), Box<dyn Error>> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        println!("cargo::rerun-if-changed={}", path.display());
        if path.is_dir() {
            collect_files(&path, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}

/// FNV-1a: tells one build of a file from the next.
fn fingerprint(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}
