//! Programs in each form in which names are kept or missing, sampled and named end to end.
//!
//! Each program spends its time in one function. That function must have nearly all samples, under
//! the name in its source code, and no frame may be unnamed.

mod case;
mod compiled;
mod jit;
mod kernel;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use e2e::expected::ratio;
use e2e::statistics::{FALSE_ALARM, binomial_two_sided};
use e2e::wait::TIMEOUT;
use run::wait::wait_for;
use serde_json::Value;
use tempfile::TempDir;

use crate::rig::{Range, Rig, now_ms};

/// CPU seconds of each program: 150 samples.
pub(crate) const SECONDS: &str = "1.5";

/// CPU seconds of short-lived programs.
const BRIEF_SECONDS: &str = "0.03";

/// Length of a window, milliseconds.
const WINDOW_MS: u64 = 10_000;

/// Number of short-lived containers: 72 samples in about 4 s, most of which `runc` takes.
const JOBS: u32 = 24;

/// Latest start, before a window's end, of a program whose file is deleted before that end. The
/// programs take up to 4 s, and longer on a busy machine, where some run again.
const LEAD_MS: u64 = 8_000;

/// Minimum share of the samples in the function. The rest are the program's start and timer ticks
/// in the kernel: an eighth for a program of 30 ms.
pub(crate) const SHARE_MIN: f64 = 0.8;

/// Starts a program of a directory.
type Start = Box<dyn Fn(&Path) -> Result<Child>>;

/// A program under test.
struct Row {
    /// The property that it shows.
    what: &'static str,
    /// The process name by which it is selected; no other process has it.
    comm: &'static str,
    /// The function that uses the time.
    function: &'static str,
    /// The number of rows with this process name: each has its part of the samples.
    sharing: u32,
    /// Starts the program.
    start: Start,
    /// Deleted as soon as the program has ended, long before its window closes and is named.
    gone: Option<PathBuf>,
}

/// A check with the shared collector.
type Check = fn(&Rig) -> Result<()>;

/// The checks, with names and the tools that only they need.
pub(crate) const CHECKS: [(&str, Check, &[&str]); 12] = [
    ("matrix", check_matrix, &[]),
    ("named_later", check_named_later, &[]),
    ("jitdump", jit::check_jitdump, &[]),
    ("memory", jit::check_memory, &[]),
    ("node", jit::check_node, &["node"]),
    ("java", jit::check_java, &["javac", "jcmd"]),
    ("beam", jit::check_beam, &["erlc", "erl"]),
    ("compiled", compiled::check, &["c++", "rustc"]),
    ("musl", compiled::check_musl, &["musl-gcc"]),
    ("kernel_calls", kernel::check_calls, &[]),
    ("bpf_program", kernel::check_bpf, &[]),
    ("bpf_turns", kernel::check_bpf_turns, &[]),
];

pub(crate) use kernel::find_module;

/// The only check without built programs; it needs a kernel that loads modules.
pub(crate) const MODULE_CHECK: Check = kernel::check_module;

/// Check each row of the matrix.
fn check_matrix(rig: &Rig) -> Result<()> {
    let directory = TempDir::new().context("failed to make a directory")?;
    let rows = make_rows(directory.path())?;
    let mut ranges = Vec::new();
    for pair in rows.chunks(2) {
        let range = run_rows(pair, directory.path())?;
        ranges.extend(pair.iter().map(|_| range));
    }
    rig.wait_stored(now_ms()?)?;
    let mut wrong = Vec::new();
    for (row, range) in rows.iter().zip(ranges) {
        if let Err(err) = check_row(rig, row, range) {
            wrong.push(format!("{} (`{}`): {err:#}", row.what, row.comm));
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

/// Runs some rows at the same time, to their ends, and returns their windows. It is one window if a file is to be gone before it is
/// named: on a busy machine they run again, each time in a later window.
fn run_rows(rows: &[Row], directory: &Path) -> Result<Range> {
    if rows.iter().all(|row| row.gone.is_none()) {
        return run_once(rows, directory);
    }
    let kept = TempDir::new().context("failed to make a directory")?;
    copy_all(directory, kept.path())?;
    let what = format!("`{}` to end in its window", rows[0].comm);
    wait_for(&what, TIMEOUT, || {
        begin_early_in_window()?;
        let range = run_once(rows, directory)?;
        if range.to_ms - range.from_ms == WINDOW_MS {
            return Ok(Some(range));
        }
        for entry in fs::read_dir(directory)? {
            remove(&entry?.path())?;
        }
        copy_all(kept.path(), directory)?;
        sleep_until(range.to_ms)?;
        Ok(None)
    })
}

fn run_once(rows: &[Row], directory: &Path) -> Result<Range> {
    let started_ms = now_ms()?;
    let children: Result<Vec<Child>> = rows.iter().map(|row| (row.start)(directory)).collect();
    for (mut child, row) in children?.into_iter().zip(rows) {
        let status = child.wait().context("failed to wait for a program")?;
        ensure!(status.success(), "`{}` ended with {status}", row.comm);
        if let Some(path) = &row.gone {
            remove(path)?;
        }
    }
    Ok(range(started_ms, now_ms()?))
}

/// Copies the contents of a directory into another one.
fn copy_all(from: &Path, to: &Path) -> Result<()> {
    run(Command::new("cp")
        .args(["--archive", "--no-target-directory"])
        .args([from, to]))
}

/// Waits for the next window if this one ends soon.
pub(crate) fn begin_early_in_window() -> Result<()> {
    let left_ms = WINDOW_MS - now_ms()? % WINDOW_MS;
    if left_ms < LEAD_MS {
        sleep_until(now_ms()? + left_ms)?;
    }
    Ok(())
}

pub(crate) fn sleep_until(ms: u64) -> Result<()> {
    std::thread::sleep(Duration::from_millis(ms.saturating_sub(now_ms()?)));
    Ok(())
}

fn remove(path: &Path) -> Result<()> {
    let removed = if path.is_dir() {
        fs::remove_dir_all(path)
    } else {
        fs::remove_file(path)
    };
    removed.with_context(|| format!("failed to delete `{}`", path.display()))
}

/// The windows between two times.
pub(crate) fn range(from_ms: u64, ended_ms: u64) -> Range {
    Range {
        from_ms: from_ms / WINDOW_MS * WINDOW_MS,
        to_ms: ended_ms / WINDOW_MS * WINDOW_MS + WINDOW_MS,
    }
}

fn check_row(rig: &Rig, row: &Row, range: Range) -> Result<()> {
    let query = format!(r#"{{comm="{}"}}"#, row.comm);
    let top = rig.get_json("/api/v1/top", &query, range, &[("limit", "20")])?;
    let samples = top["samples"].as_u64().unwrap_or(0);
    ensure!(samples >= 50, "{samples} samples only");
    let share = share_of(&top, row.function) * f64::from(row.sharing);
    ensure!(
        share >= SHARE_MIN || is_chance(&top, row),
        "`{}` has {share:.3} of the samples: {top}",
        row.function
    );
    let unknown = rig.get_json("/api/v1/unknown", &query, range, &[])?;
    let unnamed = unknown["unnamed_samples"]
        .as_u64()
        .context("no number of samples")?;
    println!(
        "{}: `{}` has {:.1} % of {samples} samples, {unnamed} have an unnamed frame",
        row.what,
        row.function,
        share * 100.0
    );
    ensure!(
        unnamed * 50 <= samples,
        "{unnamed} of {samples} have an unnamed frame: {unknown}"
    );
    Ok(())
}

/// Whether a row that shares its process name may have so few samples by chance.
fn is_chance(top: &Value, row: &Row) -> bool {
    let samples = top["samples"].as_u64().unwrap_or(0);
    let p = 1.0 / f64::from(row.sharing);
    binomial_two_sided(self_samples(top, row.function), samples, p) >= FALSE_ALARM
}

/// The share of the samples whose innermost user or kernel frame is the function.
pub(crate) fn share_of(top: &Value, function: &str) -> f64 {
    let samples = top["samples"].as_u64().unwrap_or_default();
    ratio(self_samples(top, function), samples)
}

fn self_samples(top: &Value, function: &str) -> u64 {
    let functions = top["functions"].as_array().map_or(&[][..], Vec::as_slice);
    let found = functions.iter().filter(|row| row["name"] == function);
    found.filter_map(|row| row["self_samples"].as_u64()).sum()
}

pub(crate) fn run(command: &mut Command) -> Result<()> {
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

/// A workload's source.
pub(crate) fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../workloads")
        .join(name)
}

/// Builds `burner.c` with its function called `function`. The name is not part of the build id, so
/// each function also adds a different number.
pub(crate) fn compile(path: &Path, function: &str, options: &[&str]) -> Result<()> {
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

/// Removes all names of its function from a program, and writes them to `debug`.
pub(crate) fn split(path: &Path, debug: &Path) -> Result<()> {
    run(Command::new("objcopy")
        .arg("--only-keep-debug")
        .args([path, debug]))?;
    run(Command::new("strip").arg(path))
}

/// The path of a tool, with links resolved.
pub(crate) fn find_tool(name: &str) -> Result<PathBuf> {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let mut found =
        std::env::split_paths(&paths).flat_map(|folder| fs::canonicalize(folder.join(name)));
    found
        .next()
        .with_context(|| format!("`{name}` is not there"))
}

pub(crate) fn start(path: &Path) -> Result<Child> {
    Command::new(path)
        .arg(SECONDS)
        .stdin(Stdio::null())
        .spawn()
        .with_context(|| format!("failed to start `{}`", path.display()))
}

/// A row whose program's file has the process name.
fn plain(what: &'static str, comm: &'static str, function: &'static str) -> Row {
    Row {
        what,
        comm,
        function,
        sharing: 1,
        start: Box::new(move |directory| start(&directory.join(comm))),
        gone: None,
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
            // Use the machine's own cache; nothing is downloaded.
            .env("GOFLAGS", "-mod=mod")
            .env("GO111MODULE", "off"))?;
        rows.push(plain(what, comm, "main.burnInGo"));
    }

    rows.extend(make_gone_rows(directory)?);
    rows.extend(make_container_rows(directory)?);
    Ok(rows)
}

/// Programs whose files are deleted before they are named.
fn make_gone_rows(directory: &Path) -> Result<Vec<Row>> {
    let at = |name: &str| directory.join(name);
    let mut rows = Vec::new();
    // Both run at the same time with the same path.
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
                start(&path)
            }),
            gone: (comm == "nm-new").then(|| at("replaced/nm-replaced")),
        });
    }

    for (what, comm, function, options) in [
        (
            "a program whose file is deleted while it runs",
            "nm-deleted",
            "burn_deleted",
            &[][..],
        ),
        (
            "one without a build id",
            "nm-nobuild",
            "burn_no_build_id",
            &["-Wl,--build-id=none"],
        ),
    ] {
        fs::create_dir_all(at("deleted").join(comm)).context("failed to make a directory")?;
        compile(&at("deleted").join(comm).join(comm), function, options)?;
        rows.push(Row {
            what,
            comm,
            function,
            sharing: 1,
            start: Box::new(move |directory| {
                let path = directory.join("deleted").join(comm).join(comm);
                let child = start(&path)?;
                fs::remove_file(path).context("failed to delete the program")?;
                Ok(child)
            }),
            gone: Some(at("deleted").join(comm)),
        });
    }

    compile(&at("nm-brief"), "burn_brief", &[])?;
    rows.push(Row {
        what: "a program that lives for 30 ms, again and again",
        comm: "nm-brief",
        function: "burn_brief",
        sharing: 1,
        start: Box::new(|directory| {
            let run = format!("for i in $(seq 60); do \"$0\" {BRIEF_SECONDS}; done");
            Command::new("sh")
                .args(["-c", &run])
                .arg(directory.join("nm-brief"))
                .spawn()
                .context("failed to start a shell")
        }),
        gone: Some(at("nm-brief")),
    });
    Ok(rows)
}

/// Programs in containers, with their own root and PID namespace. The containers and their files
/// are deleted before they are named.
fn make_container_rows(directory: &Path) -> Result<Vec<Row>> {
    let static_program = |root: &Path, comm: &str, function: &str, options: &[&str]| {
        let options: Vec<&str> = options.iter().copied().chain(["-static"]).collect();
        compile(&root.join(comm), function, &options)
    };

    let lasting = Bundle::make(&directory.join("lasting"), &["/nm-container", SECONDS])?;
    static_program(&lasting.root(), "nm-container", "burn_contained", &[])?;

    let linked = Bundle::make(&directory.join("linked"), &["/nm-contlink", SECONDS])?;
    static_program(&linked.root(), "nm-contlink", "burn_cont_link", &["-g"])?;
    let (program, debug) = (
        linked.root().join("nm-contlink"),
        linked.root().join("nm-contlink.debug"),
    );
    split(&program, &debug)?;
    run(Command::new("objcopy")
        .arg(format!("--add-gnu-debuglink={}", debug.display()))
        .arg(&program))?;

    let again = ["/again", "60", "/nm-contbrief", BRIEF_SECONDS];
    let brief = Bundle::make(&directory.join("brief"), &again)?;
    static_program(&brief.root(), "nm-contbrief", "burn_cont_brief", &[])?;
    run(Command::new("cc")
        .args(["-O2", "-static", "-o"])
        .arg(brief.root().join("again"))
        .arg(source("again.c")))?;

    let job = Bundle::make(&directory.join("job"), &["/nm-contjob", BRIEF_SECONDS])?;
    static_program(&job.root(), "nm-contjob", "burn_cont_job", &[])?;
    let row = |what, comm, function, bundle: Bundle, times| Row {
        what,
        comm,
        function,
        sharing: 1,
        gone: Some(bundle.root()),
        start: Box::new(move |_| bundle.start(times)),
    };
    Ok(vec![
        row(
            "a program in a container",
            "nm-container",
            "burn_contained",
            lasting,
            1,
        ),
        row(
            "a stripped program in a container, where its debug information is",
            "nm-contlink",
            "burn_cont_link",
            linked,
            1,
        ),
        row(
            "a program that lives for 30 ms, again and again in one container",
            "nm-contbrief",
            "burn_cont_brief",
            brief,
            1,
        ),
        row(
            "a program that lives for 30 ms, each time in a container of its own",
            "nm-contjob",
            "burn_cont_job",
            job,
            JOBS,
        ),
    ])
}

/// A container for `runc`.
pub(crate) struct Bundle(PathBuf);

impl Bundle {
    /// Makes a directory for a container that runs this command.
    pub(crate) fn make(directory: &Path, arguments: &[&str]) -> Result<Self> {
        fs::create_dir_all(directory.join("rootfs")).context("failed to make a directory")?;
        run(Command::new("runc")
            .args(["spec", "--bundle"])
            .arg(directory))?;
        let bundle = Self(directory.to_owned());
        bundle.change(|config| {
            config["process"]["terminal"] = false.into();
            config["process"]["args"] = serde_json::json!(arguments);
        })?;
        Ok(bundle)
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.0.join("rootfs")
    }

    /// Makes `runc` put the container into this cgroup of each hierarchy.
    pub(crate) fn set_cgroup(&self, path: &str) -> Result<()> {
        self.change(|config| config["linux"]["cgroupsPath"] = path.into())
    }

    /// Changes the configuration.
    fn change(&self, change: impl FnOnce(&mut Value)) -> Result<()> {
        let path = self.0.join("config.json");
        let text = fs::read_to_string(&path).context("failed to read what `runc spec` wrote")?;
        let mut config: Value = serde_json::from_str(&text).context("`runc spec` wrote no JSON")?;
        change(&mut config);
        fs::write(&path, config.to_string()).context("failed to write the bundle")
    }

    /// Runs the command this many times, each time in a new container.
    pub(crate) fn start(&self, times: u32) -> Result<Child> {
        let name = self.0.file_name().unwrap_or_default().to_string_lossy();
        let name = format!("pilotlight-{name}-{}", std::process::id());
        let run = format!(
            "for i in $(seq {times}); do runc run --bundle \"$0\" {name}-$i || exit 1; done"
        );
        Command::new("sh")
            .args(["-c", &run])
            .arg(&self.0)
            .stdin(Stdio::null())
            .spawn()
            .context("failed to start a shell")
    }
}

/// Check that a stripped program's frames have the reason for the missing name, and that the same
/// query returns names after its debug information was uploaded. Before that, a file of another
/// build is refused.
fn check_named_later(rig: &Rig) -> Result<()> {
    let directory = TempDir::new().context("failed to make a directory")?;
    let at = |name: &str| directory.path().join(name);
    compile(&at("nm-later"), "burn_named_later", &["-g"])?;
    split(&at("nm-later"), &at("nm-later.debug"))?;
    let from_ms = now_ms()? / WINDOW_MS * WINDOW_MS;
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
    // An index without names must not block a later one.
    for file in ["nm-later", "nm-later.debug"] {
        let status = upload(rig, build_id, &at(file))?;
        ensure!((200..300).contains(&status), "`{file}`: {status}");
    }
    let row = plain("named later", "nm-later", "burn_named_later");
    check_row(rig, &row, range).context("after the upload")?;
    let list = rig.pprof_list(query, range, "^burn_named_later$")?;
    check_listed(&list).with_context(|| format!("`-list` says: {list}"))
}

/// Checks that the loop of `burner.c` has most of the time in a listing: `     1.2e9ns    1.2e9ns
/// (flat, cum)   9:    x ^= …`.
fn check_listed(list: &str) -> Result<()> {
    let text = fs::read_to_string(source("burner.c")).context("failed to read the source")?;
    let is_source = |line: &str| {
        let (_, rest) = line.rsplit_once(':')?;
        let has_time = line
            .trim_start()
            .starts_with(|first: char| first.is_ascii_digit());
        (has_time && rest.trim().len() > 5 && text.contains(rest.trim())).then_some(())
    };
    ensure!(
        list.lines().any(|line| is_source(line).is_some()),
        "no line of the source has time"
    );
    Ok(())
}

/// Uploads a file like `curl`; returns the status.
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
