//! Programs in each of the forms in which names are kept or missing, sampled and named end to end.
//!
//! Each uses its time in one function. As their authors would name them: that function has nearly all of it, and nothing
//! is without a name.

mod case;
mod compiled;
mod kernel;
mod made;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use tempfile::TempDir;

use crate::rig::{Range, Rig, now_ms};

/// CPU seconds of each: 150 samples.
const SECONDS: &str = "1.5";

/// How long a program stays after that whose file nobody finds any more when it has ended: until its window is closed
/// and named.
const STAY_SECONDS: &str = "12";

/// Least share of the samples that the function must have. The rest are its start, and ticks in the kernel: of a program
/// of 30 ms an eighth.
const SHARE_MIN: f64 = 0.8;

/// Starts a program of a directory.
type Start = Box<dyn Fn(&Path) -> Result<Child>>;

/// A program that was made.
struct Row {
    /// What it shows.
    what: &'static str,
    /// Name of its process, by which it is found: not that of anything else.
    comm: &'static str,
    /// The function that has the time.
    function: &'static str,
    /// How many rows have this process name: each has its part of the samples.
    sharing: u32,
    /// Starts it.
    start: Start,
}

/// A check of what the shared collector has seen.
type Check = fn(&Rig) -> Result<()>;

/// The checks, with their names and the tools that only they need.
pub(crate) const CHECKS: [(&str, Check, &[&str]); 10] = [
    ("matrix", check_matrix, &[]),
    ("named_later", check_named_later, &[]),
    ("jitdump", made::check_jitdump, &[]),
    ("node", made::check_node, &["node"]),
    ("java", made::check_java, &["javac", "jcmd"]),
    ("beam", made::check_beam, &["erlc", "erl"]),
    ("compiled", compiled::check, &["c++", "rustc"]),
    ("musl", compiled::check_musl, &["musl-gcc"]),
    ("kernel_calls", kernel::check_calls, &[]),
    ("bpf_program", kernel::check_bpf, &[]),
];

pub(crate) use kernel::find_module;

/// The one check that needs nothing to be built, and a kernel that loads modules.
pub(crate) const MODULE_CHECK: Check = kernel::check_module;

/// Check each row of the matrix.
fn check_matrix(rig: &Rig) -> Result<()> {
    let directory = TempDir::new().context("failed to make a directory")?;
    let rows = make_rows(directory.path())?;
    let from_ms = now_ms()? / 10_000 * 10_000;
    for pair in rows.chunks(2) {
        let children: Result<Vec<Child>> = pair
            .iter()
            .map(|row| (row.start)(directory.path()))
            .collect();
        for mut child in children? {
            let status = child.wait().context("failed to wait for a program")?;
            ensure!(status.success(), "a program ended with {status}");
        }
    }
    let ended_ms = now_ms()?;
    rig.wait_stored(ended_ms)?;
    let range = range(from_ms, ended_ms);
    let mut wrong = Vec::new();
    for row in &rows {
        if let Err(err) = check_row(rig, row, range) {
            wrong.push(format!("{} (`{}`): {err:#}", row.what, row.comm));
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

fn range(from_ms: u64, ended_ms: u64) -> Range {
    Range {
        from_ms,
        to_ms: ended_ms / 10_000 * 10_000 + 10_000,
    }
}

fn check_row(rig: &Rig, row: &Row, range: Range) -> Result<()> {
    let query = format!(r#"{{comm="{}"}}"#, row.comm);
    let top = rig.get_json("/api/v1/top", &query, range, &[("limit", "20")])?;
    let samples = top["samples"].as_u64().unwrap_or(0);
    ensure!(samples >= 50, "{samples} samples only");
    let share = share_of(&top, row.function) * f64::from(row.sharing);
    ensure!(
        share >= SHARE_MIN,
        "`{}` has {share:.3} of the samples: {top}",
        row.function
    );
    let unknown = rig.get_json("/api/v1/unknown", &query, range, &[])?;
    let unnamed = unknown["unnamed_samples"]
        .as_u64()
        .context("no number of samples")?;
    ensure!(
        unnamed * 50 <= samples,
        "{unnamed} of {samples} have an unnamed frame: {unknown}"
    );
    Ok(())
}

/// The share of the samples whose innermost user or kernel frame is the function.
fn share_of(top: &Value, function: &str) -> f64 {
    let functions = top["functions"].as_array().map_or(&[][..], Vec::as_slice);
    let found = functions.iter().filter(|it| it["name"] == function);
    let samples: f64 = found.filter_map(|it| it["self_samples"].as_f64()).sum();
    samples / top["samples"].as_f64().unwrap_or(1.0)
}

fn run(command: &mut Command) -> Result<()> {
    let output = command
        .output()
        .with_context(|| format!("failed to run {command:?}"))?;
    ensure!(
        output.status.success(),
        "{command:?} ended with {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../workloads")
        .join(name)
}

/// Builds `burner.c`, its function called `function`. Names are no part of a build id: each function adds another number.
fn compile(path: &Path, function: &str, options: &[&str]) -> Result<()> {
    run(Command::new("cc")
        .args(["-O2", "-Wl,--build-id=sha1", "-o"])
        .arg(path)
        .arg(source("burner.c"))
        .arg(format!("-DFUNCTION={function}"))
        .arg(format!(
            "-DSALT={}",
            function.bytes().map(u32::from).sum::<u32>()
        ))
        .args(options))
}

/// Takes everything out of a program that can name its function, and puts it into `debug`.
fn split(path: &Path, debug: &Path) -> Result<()> {
    run(Command::new("objcopy")
        .arg("--only-keep-debug")
        .args([path, debug]))?;
    run(Command::new("strip").arg(path))
}

fn start(path: &Path) -> Result<Child> {
    start_with(path, &[SECONDS])
}

fn start_with(path: &Path, arguments: &[&str]) -> Result<Child> {
    Command::new(path)
        .args(arguments)
        .stdin(Stdio::null())
        .spawn()
        .with_context(|| format!("failed to start `{}`", path.display()))
}

/// A row whose program is the file with the process's name.
fn plain(what: &'static str, comm: &'static str, function: &'static str) -> Row {
    Row {
        what,
        comm,
        function,
        sharing: 1,
        start: Box::new(move |directory| start(&directory.join(comm))),
    }
}

fn make_rows(directory: &Path) -> Result<Vec<Row>> {
    let at = |name: &str| directory.join(name);
    let mut rows = Vec::new();

    for (what, comm, options) in [
        ("C with debug information", "nm-debug", &["-g"][..]),
        ("C with symbols only", "nm-symbols", &[]),
        ("a static program", "nm-static", &["-static"]),
        (
            "a program without a base address",
            "nm-fixed",
            &["-no-pie", "-g"],
        ),
    ] {
        compile(&at(comm), "burn_in_c", options)?;
        rows.push(plain(what, comm, "burn_in_c"));
    }

    compile(&at("nm-link"), "burn_by_link", &["-g"])?;
    split(&at("nm-link"), &at("nm-link.debug"))?;
    run(Command::new("objcopy")
        .arg(format!(
            "--add-gnu-debuglink={}",
            at("nm-link.debug").display()
        ))
        .arg(at("nm-link")))?;
    rows.push(plain(
        "a stripped program with a debug link",
        "nm-link",
        "burn_by_link",
    ));

    compile(&at("nm-packed"), "burn_packed", &[])?;
    run(Command::new("objcopy")
        .arg("--strip-debug")
        .args([at("nm-packed"), at("packed")]))?;
    run(Command::new("xz").arg(at("packed")))?;
    run(Command::new("objcopy")
        .arg("--strip-all")
        .arg(format!(
            "--add-section=.gnu_debugdata={}",
            at("packed.xz").display()
        ))
        .arg(at("nm-packed")))?;
    rows.push(plain(
        "a stripped program with `.gnu_debugdata`",
        "nm-packed",
        "burn_packed",
    ));

    for (what, comm, flags) in [
        ("Go", "nm-go", ""),
        (
            "Go without symbols and debug information",
            "nm-go-stripped",
            "-s -w",
        ),
    ] {
        run(Command::new("go")
            .args(["build", "-ldflags", flags, "-o"])
            .arg(at(comm))
            .arg(source("burner.go"))
            // Its cache is the machine's own; nothing is fetched.
            .env("GOFLAGS", "-mod=mod")
            .env("GO111MODULE", "off"))?;
        rows.push(plain(what, comm, "main.burnInGo"));
    }

    compile(&at("nm-deleted"), "burn_deleted", &[])?;
    rows.push(Row {
        what: "a program whose file is deleted while it runs",
        comm: "nm-deleted",
        function: "burn_deleted",
        sharing: 1,
        start: Box::new(|directory| {
            let path = directory.join("nm-deleted");
            let child = start_with(&path, &[SECONDS, STAY_SECONDS])?;
            fs::remove_file(path).context("failed to delete the program")?;
            Ok(child)
        }),
    });

    // Both run at once, and have the same path.
    fs::create_dir_all(at("replaced")).context("failed to make a directory")?;
    for (what, comm, function) in [
        (
            "a program whose file is replaced while it runs",
            "nm-old",
            "burn_the_old",
        ),
        ("the program that replaced it", "nm-new", "burn_the_new"),
    ] {
        compile(&at(comm), function, &[])?;
        rows.push(Row {
            what,
            comm: "nm-replaced",
            function,
            sharing: 2,
            start: Box::new(move |directory| {
                let path = directory.join("replaced/nm-replaced");
                fs::rename(directory.join(comm), &path).context("failed to replace a program")?;
                start_with(&path, &[SECONDS, STAY_SECONDS])
            }),
        });
    }

    compile(&at("nm-brief"), "burn_brief", &[])?;
    rows.push(Row {
        what: "a program that lives for 30 ms, again and again",
        comm: "nm-brief",
        function: "burn_brief",
        sharing: 1,
        start: Box::new(|directory| {
            Command::new("sh")
                .args(["-c", "for i in $(seq 60); do \"$0\" 0.03; done"])
                .arg(directory.join("nm-brief"))
                .spawn()
                .context("failed to start a shell")
        }),
    });

    let bundle = at("bundle");
    fs::create_dir_all(bundle.join("rootfs")).context("failed to make a directory")?;
    compile(
        &bundle.join("rootfs/nm-container"),
        "burn_contained",
        &["-static"],
    )?;
    write_bundle(&bundle)?;
    rows.push(Row {
        what: "a program in a container, with a root and process numbers of its own",
        comm: "nm-container",
        function: "burn_contained",
        sharing: 1,
        start: Box::new(move |_| {
            Command::new("runc")
                .args(["run", "--bundle"])
                .arg(&bundle)
                .arg(format!("pilotlight-names-{}", std::process::id()))
                .stdin(Stdio::null())
                .spawn()
                .context("failed to start `runc`")
        }),
    });
    Ok(rows)
}

/// What `runc` is to run: its own example, with our program in it.
fn write_bundle(bundle: &Path) -> Result<()> {
    run(Command::new("runc").arg("spec").arg("--bundle").arg(bundle))?;
    let path = bundle.join("config.json");
    let text = fs::read_to_string(&path).context("failed to read what `runc spec` wrote")?;
    let mut config: Value = serde_json::from_str(&text).context("`runc spec` wrote no JSON")?;
    config["process"]["terminal"] = false.into();
    config["process"]["args"] = serde_json::json!(["/nm-container", SECONDS, STAY_SECONDS]);
    fs::write(&path, config.to_string()).context("failed to write the bundle")
}

/// Check that a stripped program's frames say why they have no name, and that the same question is answered with names
/// after its debug information was uploaded; a file of another build is refused before.
fn check_named_later(rig: &Rig) -> Result<()> {
    let directory = TempDir::new().context("failed to make a directory")?;
    let at = |name: &str| directory.path().join(name);
    compile(&at("nm-later"), "burn_named_later", &["-g"])?;
    split(&at("nm-later"), &at("nm-later.debug"))?;
    let from_ms = now_ms()? / 10_000 * 10_000;
    let status = start(&at("nm-later"))?.wait().context("failed to wait")?;
    ensure!(status.success(), "the program ended with {status}");
    let ended_ms = now_ms()?;
    rig.wait_stored(ended_ms)?;
    let range = range(from_ms, ended_ms);
    let query = r#"{comm="nm-later"}"#;

    let unknown = rig.get_json("/api/v1/unknown", query, range, &[])?;
    let binary = &unknown["by_binary"]["binaries"][0];
    let reason = &binary["reasons"][0]["reason"];
    let share = binary["unnamed_samples"].as_f64().unwrap_or(0.0)
        / unknown["samples"].as_f64().unwrap_or(1.0);
    ensure!(
        reason == "no_symbol" && share >= SHARE_MIN,
        "before: {unknown}"
    );
    let build_id = binary["build_id"].as_str().unwrap_or_default();
    ensure!(build_id.len() == 40, "the build id is `{build_id}`");

    compile(&at("other"), "burn_other", &["-g"])?;
    let refused = upload(rig, build_id, &at("other"))?;
    ensure!(
        (400..500).contains(&refused),
        "a file of another build: {refused}"
    );
    // What has no names of its own does not stand in the way of what comes later.
    for file in ["nm-later", "nm-later.debug"] {
        let status = upload(rig, build_id, &at(file))?;
        ensure!((200..300).contains(&status), "`{file}`: {status}");
    }
    let row = plain("named later", "nm-later", "burn_named_later");
    check_row(rig, &row, range).context("after the upload")
}

/// Uploads a file as `curl` does; gives the status.
fn upload(rig: &Rig, build_id: &str, file: &Path) -> Result<u16> {
    let output = Command::new("curl")
        .args([
            "--silent",
            "--output",
            "/dev/null",
            "--write-out",
            "%{http_code}",
        ])
        .arg("--upload-file")
        .arg(file)
        .arg(format!("http://{}/api/v1/debuginfo/{build_id}", rig.http()))
        .output()
        .context("failed to run `curl`")?;
    let status = String::from_utf8_lossy(&output.stdout);
    match status.trim().parse() {
        Ok(status) => Ok(status),
        Err(_) => bail!(
            "`curl` says `{status}`: {}",
            String::from_utf8_lossy(&output.stderr)
        ),
    }
}
