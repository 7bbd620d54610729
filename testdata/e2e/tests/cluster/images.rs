//! The images of both programs, as deploy/images/build makes them.

use std::collections::BTreeSet;
use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;

use anyhow::{Context as _, Result, bail, ensure};
use e2e::wait::wait_while;
use run::child::{Child, Privilege, Start};
use run::http;
use serde_json::Value;
use tempfile::TempDir;

use crate::Check;
use crate::tools::{command_of, repository, run, run_script};

pub(crate) const CHECKS: [Check; 3] = [
    ("missing_tools", check_missing_tools),
    ("content", check_content),
    ("push", check_push),
];

/// Maximum size of an image.
const IMAGE_BYTES_MAX: u64 = 25_000_000;

/// Builds both images, once in each run of the tests.
pub(crate) fn build() -> Result<()> {
    static IS_BUILT: Mutex<bool> = Mutex::new(false);
    let mut is_built = IS_BUILT.lock().ok().context("another test panicked")?;
    if !*is_built {
        run_script::<&str>("deploy/images/build", &[])?;
        *is_built = true;
    }
    Ok(())
}

/// Check that each missing tool is named, with its package, before anything is built.
fn check_missing_tools() -> Result<()> {
    const TOOLS: [&str; 4] = ["buildah", "jq", "objcopy", "readelf"];
    for missing in TOOLS {
        let folder = TempDir::new().context("failed to make a directory")?;
        let others = TOOLS.into_iter().filter(|tool| *tool != missing);
        for tool in others.chain(["bash", "dirname", "env"]) {
            symlink(Path::new("/usr/bin").join(tool), folder.path().join(tool))?;
        }
        let said = run(command_of("deploy/images/build").env("PATH", folder.path()))?;
        let expected = format!("images: {missing} is missing\n        apt-get install");
        ensure!(
            !said.is_success && said.stderr.starts_with(&expected),
            "without {missing}: {}",
            said.stderr
        );
    }
    Ok(())
}

/// Check what is in the images.
fn check_content() -> Result<()> {
    build()?;
    for (name, user) in [
        ("pilotlight-collector", "0:0"),
        ("pilotlight-server", "65532:65532"),
    ] {
        check_image(name, user).with_context(|| name.to_owned())?;
    }
    Ok(())
}

fn check_image(name: &str, user: &str) -> Result<()> {
    let archive = repository().join(format!("target/images/{name}.tar"));
    let bytes = fs::metadata(&archive)
        .context("failed to find the image")?
        .len();
    ensure!(bytes <= IMAGE_BYTES_MAX, "the image has {bytes} bytes");
    let directory = TempDir::new().context("failed to make a directory")?;
    unpack(&archive, directory.path())?;
    let manifest = read_json(&directory.path().join("manifest.json"))?;
    let path = |pointer: &str| {
        let file = manifest.pointer(pointer).and_then(Value::as_str);
        file.map(|file| directory.path().join(file))
            .with_context(|| format!("the manifest has no `{pointer}`"))
    };
    let config = read_json(&path("/0/Config")?)?;
    ensure!(
        config["config"]["User"] == user,
        "runs as {}",
        config["config"]["User"]
    );
    let root = directory.path().join("root");
    fs::create_dir(&root).context("failed to make a directory")?;
    unpack(&path("/0/Layers/0")?, &root)?;

    check_starts(&root, name)?;
    check_licences(&root.join("usr/share/licenses").join(name))?;
    check_debug_information(&root.join("usr/bin").join(name))
}

/// Check that the program starts with nothing but the image's files.
fn check_starts(root: &Path, name: &str) -> Result<()> {
    let said = run(Command::new("chroot")
        .arg(root)
        .args([format!("/usr/bin/{name}").as_str(), "--version"]))?;
    let version = format!("{name} {}\n", env!("CARGO_PKG_VERSION"));
    ensure!(
        said.stdout == version,
        "says {}{}",
        said.stdout,
        said.stderr
    );
    Ok(())
}

/// Check that each crate that the lock file has for the program has its licence, by some examples,
/// and that each library has its package's.
fn check_licences(directory: &Path) -> Result<()> {
    let read = |file: &str| {
        fs::read_to_string(directory.join(file)).with_context(|| format!("failed to read `{file}`"))
    };
    ensure!(read("LICENSE")?.contains("Apache License"));
    let crates = read("crates.txt")?;
    let headings: BTreeSet<&str> = crates
        .lines()
        .filter_map(|line| line.strip_prefix("=== ")?.split(' ').next())
        .collect();
    for name in [
        "blazesym",
        "tonic",
        "tonic-prost",
        "zstd-sys",
        "ring",
        "The",
    ] {
        let is_other = name == "blazesym" && directory.ends_with("pilotlight-server");
        ensure!(is_other || headings.contains(name), "no licence of {name}");
    }
    let libraries = read("libraries.txt")?;
    for package in ["libc6", "libgcc-s1", "liblzma5"] {
        ensure!(
            libraries.contains(&format!("=== {package}")),
            "no licence of {package}"
        );
    }
    Ok(())
}

/// Check that the program is stripped, and that its debug information is beside the images, by its
/// build id.
fn check_debug_information(program: &Path) -> Result<()> {
    let sections = run(Command::new("readelf")
        .args(["--wide", "--sections"])
        .arg(program))?
    .stdout;
    ensure!(
        !sections.contains(".symtab") && !sections.contains(".debug_info"),
        "is not stripped"
    );
    let notes = run(Command::new("readelf").arg("--notes").arg(program))?.stdout;
    let id = notes
        .lines()
        .find_map(|line| line.trim().strip_prefix("Build ID: "));
    let Some((start, rest)) = id.and_then(|id| id.split_at_checked(2)) else {
        bail!("has no build id: {notes}");
    };
    let debug = repository().join(format!(
        "target/images/debug/.build-id/{start}/{rest}.debug"
    ));
    let sections = run(Command::new("readelf")
        .args(["--wide", "--sections"])
        .arg(debug))?
    .stdout;
    ensure!(
        sections.contains(".symtab") && sections.contains(".debug_line"),
        "has no debug information beside it"
    );
    Ok(())
}

/// Check that `--push` pushes both images below the given path, with a registry on this machine.
fn check_push() -> Result<()> {
    let directory = TempDir::new().context("failed to make a directory")?;
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .context("failed to find a free port")?;
    let configuration = directory.path().join("registry.yml");
    let text = format!(
        "version: 0.1\nhttp: {{addr: \"{port}\"}}\nstorage: {{filesystem: {{rootdirectory: \"{}\"}}}}\n",
        directory.path().display()
    );
    fs::write(&configuration, text).context("failed to write the registry's configuration")?;
    let registries = directory.path().join("registries.conf");
    let text = format!("[[registry]]\nlocation = \"{port}\"\ninsecure = true\n");
    fs::write(&registries, text).context("failed to write the list of registries")?;
    let mut registry = Child::start(Start {
        name: "registry",
        program: Path::new("/usr/local/bin/docker-registry"),
        arguments: vec!["serve".to_owned(), configuration.display().to_string()],
        privilege: Privilege::Same,
        log: directory.path().join("registry.log"),
    })?;
    let answers = || http::get(port, "/v2/", &[]).map(Some);
    wait_while("the registry", || registry.check_alive(), answers)?;
    let repository_path = format!("{port}/profiles");
    let said = run(command_of("deploy/images/build")
        .args(["--push", &repository_path])
        .env("CONTAINERS_REGISTRIES_CONF", registries)
        .env("TAG", "test"))?;
    ensure!(said.is_success, "{}{}", said.stdout, said.stderr);
    for name in ["pilotlight-collector", "pilotlight-server"] {
        let tags = http::get_json(port, &format!("/v2/profiles/{name}/tags/list"), &[])?;
        ensure!(tags["tags"][0] == "test", "{tags}");
    }
    registry.kill()
}

fn unpack(archive: &Path, directory: &Path) -> Result<()> {
    let said = run(Command::new("tar")
        .arg("-xf")
        .arg(archive)
        .arg("-C")
        .arg(directory))?;
    ensure!(
        said.is_success,
        "failed to unpack `{}`: {}",
        archive.display(),
        said.stderr
    );
    Ok(())
}

fn read_json(path: &Path) -> Result<Value> {
    let text =
        fs::read_to_string(path).with_context(|| format!("failed to read `{}`", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("failed to read `{}`", path.display()))
}
