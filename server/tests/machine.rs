//! The real server process: killed, out of disk, asked by `go tool pprof`, its metrics checked by `promtool`.
//!
//! Tests that this machine cannot run are shown as ignored, with the reason on stderr.

#![allow(clippy::unwrap_used, reason = "a test")]

mod process;
mod running;
#[path = "../src/receive/grpc/test_push.rs"]
mod test_push;
#[path = "../../crates/metrics/tests/formats/validators.rs"]
mod validators;

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use flate2::{Compress, Compression, FlushCompress};
use libtest_mimic::{Arguments, Failed, Trial};
use model::text::{describe, window_at};
use model::{MappingFlags, Window};
use object::{Object, ObjectSegment, ObjectSymbol};
use process::cgroup::MemoryCgroup;
use process::{Process, runtime};
use proto::v1;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use segment::{Effort, Segment, Source, WindowSet, replay};
use test_push::push_request;
use tonic::Code;
use validators::Validators;

const HOUR_MS: i64 = 3_600_000;

/// Time after which a test that waits for a condition fails; no machine needs as long.
const DEADLINE: Duration = Duration::from_secs(60);

fn main() {
    let arguments = Arguments::from_args();
    let has_go = Command::new("go").arg("version").output().is_ok();
    let validators = Validators::find();
    let missing_validator = validators.as_ref().err().copied().unwrap_or_default();
    let is_root = rustix::process::geteuid().is_root();
    let needs = |trial: Trial, name: &str, has: bool| {
        if !has && !arguments.list {
            eprintln!("{} is ignored: this machine has no {name}", trial.name());
        }
        trial.with_ignored_flag(!has)
    };
    let trials = vec![
        Trial::test(
            "kill_9_loses_nothing_acknowledged",
            kill_9_loses_nothing_acknowledged,
        ),
        Trial::test("a_second_server_is_told", a_second_server_is_told),
        Trial::test("a_stop_answers_everybody", a_stop_answers_everybody),
        Trial::test(
            "memory_of_queries_is_given_back",
            memory_of_queries_is_given_back,
        ),
        needs(
            Trial::test(
                "go_tool_pprof_shows_the_profile",
                go_tool_pprof_shows_the_profile,
            ),
            "go",
            has_go,
        ),
        needs(
            Trial::test(
                "go_tool_pprof_disassembles_a_c_and_a_go_program",
                go_tool_pprof_disassembles_a_c_and_a_go_program,
            ),
            "go",
            has_go,
        ),
        needs(
            Trial::test(
                "metrics_pass_promtool_and_an_openmetrics_parser",
                metrics_pass_promtool_and_an_openmetrics_parser,
            ),
            missing_validator,
            validators.is_ok(),
        ),
        needs(
            Trial::test(
                "a_full_disk_refuses_and_recovers",
                a_full_disk_refuses_and_recovers,
            ),
            "root",
            is_root,
        ),
        needs(
            Trial::test(
                "a_file_that_takes_much_memory_costs_its_child_alone",
                a_file_that_takes_much_memory_costs_its_child_alone,
            ),
            "root",
            is_root,
        ),
    ];
    libtest_mimic::run(&arguments, trials).exit();
}

/// A window with some hundred random stacks, some of which recur in the next.
fn random_window(random: &mut StdRng, start_ms: i64, sequence: u64) -> Window {
    let mut lines = String::new();
    for _ in 0..random.random_range(1..200) {
        let comm = random.random_range(0..20);
        let depth = random.random_range(0..12);
        let frames: Vec<String> = (0..depth)
            .map(|_| format!("f{}", random.random_range(0..50)))
            .collect();
        lines += &format!(
            "comm=c{comm} | {} | {}\n",
            frames.join(" "),
            random.random_range(1..9)
        );
    }
    window_at(&lines, start_ms, sequence)
}

/// Check that every acknowledged window is known after each of twenty kills in the middle of writes, and that in the
/// end each is on the disk once, as sent.
fn kill_9_loses_nothing_acknowledged() -> Result<(), Failed> {
    const SENDERS: u8 = 4;
    let folder = tempfile::tempdir()?;
    let now_ms = server::serve::http::routes::now_ms() / HOUR_MS * HOUR_MS;
    let mut acknowledged: BTreeMap<(u8, u64), Window> = BTreeMap::new();
    let mut restored = 0;
    for round in 0..20_u64 {
        let process = Process::start(folder.path(), &[])?;
        restored += process.recovery("windows_read")?;
        let mut random = StdRng::seed_from_u64(round);
        let grpc = process.grpc;
        let windows = runtime().block_on(async {
            let answered = Arc::new(AtomicU64::new(0));
            let senders: Vec<_> = (0..SENDERS)
                .map(|sender| {
                    let last = acknowledged.range((sender, 0)..=(sender, u64::MAX)).last();
                    let first = last.map_or(1, |((_, sequence), _)| sequence + 1);
                    let plan = SendPlan {
                        sender,
                        first,
                        now_ms,
                    };
                    tokio::spawn(send_until_killed(grpc, plan, Arc::clone(&answered)))
                })
                .collect();
            let started = Instant::now();
            let wanted = random.random_range(4..24);
            while answered.load(Ordering::Relaxed) < wanted {
                assert!(started.elapsed() < DEADLINE, "the server does not answer");
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            // Anywhere in the next write, not right after an answer.
            tokio::time::sleep(Duration::from_micros(random.random_range(0..20_000))).await;
            let killed = process.kill();
            let mut windows = Vec::new();
            for sender in senders {
                windows.extend(sender.await?);
            }
            killed.map(|()| windows)
        })?;
        for window in windows {
            acknowledged.insert(
                (window.head.key.instance[0], window.head.key.sequence),
                window,
            );
        }
    }
    assert!(
        acknowledged.len() > 80,
        "only {} windows were acknowledged",
        acknowledged.len()
    );
    assert!(restored > 0, "no kill left a log: the test is too gentle");

    // The server knows them all: a repeat is a duplicate, and a query finds their samples.
    let process = Process::start(folder.path(), &[])?;
    runtime().block_on(async {
        let mut client = running::connect(process.grpc).await.unwrap();
        for window in acknowledged.values() {
            let answer = client
                .push(push_request(window))
                .await
                .unwrap()
                .into_inner();
            assert!(
                answer.duplicate,
                "{} was acknowledged and is not known",
                window.head.key
            );
        }
    });
    let series = process.json(&format!(
        "/api/v1/series?from={}&to={}",
        now_ms - 4 * HOUR_MS,
        now_ms + HOUR_MS
    ))?;
    let found: u64 = series["series"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["samples"].as_u64().unwrap())
        .sum();
    let expected: u64 = acknowledged
        .values()
        .flat_map(|window| &window.rows)
        .map(|row| row.samples)
        .sum();
    assert!(found >= expected, "{found} of {expected} samples are found");
    process.stop()?;

    let stored = read_all_windows(folder.path());
    for window in acknowledged.values() {
        let copies = stored.get(&window.head.key).map_or(&[][..], Vec::as_slice);
        assert_eq!(
            copies.len(),
            1,
            "{} is stored {} times",
            window.head.key,
            copies.len()
        );
        assert_eq!(copies[0].head, window.head);
        assert_eq!(
            describe_samples(&copies[0]),
            describe_samples(window),
            "{}",
            window.head.key
        );
    }
    eprintln!(
        "{} windows acknowledged, {restored} read from logs",
        acknowledged.len()
    );
    Ok(())
}

/// Time that a sender waits for a server that may be killed; then the window counts as not acknowledged.
const ANSWER_TIME: Duration = Duration::from_secs(20);

/// The windows of one sender in a round.
struct SendPlan {
    sender: u8,
    first: u64,
    now_ms: i64,
}

/// Sends one window after the other; returns those that were acknowledged.
async fn send_until_killed(
    grpc: SocketAddr,
    plan: SendPlan,
    answered: Arc<AtomicU64>,
) -> Vec<Window> {
    let mut acknowledged = Vec::new();
    // A connection to a port that was just closed may hang, or even connect to itself.
    let connect = tokio::time::timeout(ANSWER_TIME, running::connect(grpc));
    let Ok(Ok(mut client)) = connect.await else {
        return acknowledged;
    };
    for sequence in plan.first.. {
        // Three hours, so that three segments are written at once.
        let start_ms =
            plan.now_ms - HOUR_MS * (sequence % 3) as i64 - 10_000 * (sequence as i64 % 300);
        // An unanswered window is sent again unchanged, as a collector does.
        let mut random = StdRng::seed_from_u64(sequence << 8 | u64::from(plan.sender));
        let mut window = random_window(&mut random, start_ms, sequence);
        window.head.key.instance = [plan.sender; 16];
        // Two collectors of one node would count once.
        window.head.node = format!("node-{}", plan.sender);
        let answer = tokio::time::timeout(ANSWER_TIME, client.push(push_request(&window)));
        if !matches!(answer.await, Ok(Ok(_))) {
            break;
        }
        answered.fetch_add(1, Ordering::Relaxed);
        acknowledged.push(window);
    }
    acknowledged
}

/// A window's samples, equal rows added up. The flags of a mapping are those of all windows of its file.
fn describe_samples(window: &Window) -> BTreeMap<String, (u64, u64)> {
    let mut window = window.clone();
    for mapping in &mut window.tables.mappings {
        mapping.flags = MappingFlags::default();
    }
    let mut sums = BTreeMap::new();
    for line in describe(&window) {
        let mut fields = line.rsplitn(3, ' ');
        let mut number = || fields.next().unwrap().parse::<u64>().unwrap();
        let (ns, samples) = (number(), number());
        let sum: &mut (u64, u64) = sums.entry(fields.next().unwrap().to_owned()).or_default();
        *sum = (sum.0 + samples, sum.1 + ns);
    }
    sums
}

/// The windows of all segments and logs.
fn read_all_windows(data: &Path) -> HashMap<model::WindowKey, Vec<Window>> {
    let mut windows: HashMap<_, Vec<Window>> = HashMap::new();
    let mut add = |source: &dyn Source| {
        let all = WindowSet::all(source.window_count());
        for window in source.read_whole_windows(&all, Effort::ONE).unwrap() {
            windows.entry(window.head.key).or_default().push(window);
        }
    };
    let files = |folder: &str| {
        let entries = std::fs::read_dir(data.join("default").join(folder)).unwrap();
        entries.map(|entry| entry.unwrap().path())
    };
    for path in files("segments") {
        add(&Segment::open(std::fs::File::open(path).unwrap()).unwrap());
    }
    for path in files("log") {
        add(&replay(&std::fs::read(path).unwrap()).unwrap().builder);
    }
    windows
}

/// Check that a second server on the same directory reports the conflict and leaves the first one alone.
fn a_second_server_is_told() -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    let process = Process::start(folder.path(), &[])?;
    let (status, stderr) = Process::run_to_end(folder.path(), &[])?;
    assert_eq!(status.code(), Some(1));
    assert!(
        stderr.contains("another server uses the data directory"),
        "{stderr}"
    );
    let (status, stderr) = Process::run_to_end(folder.path(), &["--log-format=json"])?;
    assert_eq!(status.code(), Some(1));
    for line in stderr.lines() {
        let line: serde_json::Value = serde_json::from_str(line)?;
        assert_eq!(line["level"], "ERROR");
        let err = line["err"].as_str().ok_or("no error")?;
        assert!(
            err.contains("another server uses the data directory"),
            "{err}"
        );
    }
    assert_eq!(process.get("/readyz")?.status, 200);
    process.stop()?;
    let (status, stderr) = Process::run_to_end(
        folder.path(),
        &["--drain-timeout=never", "--cache-bytes-max=much"],
    )?;
    assert_eq!(status.code(), Some(2));
    assert!(
        stderr.contains("--drain-timeout") && stderr.contains("--cache-bytes-max"),
        "{stderr}"
    );
    Ok(())
}

/// Check that the memory of the process follows the account of queries: many at once take no more than the flag allows and a fixed part
/// besides, and when they are done it goes back to nearly what it was before them.
fn memory_of_queries_is_given_back() -> Result<(), Failed> {
    const MIB: u64 = 1 << 20;
    let folder = tempfile::tempdir()?;
    let process = Process::start(
        folder.path(),
        &["--query-bytes-max=64MiB", "--queries-max=4"],
    )?;
    let mut text = String::new();
    for number in 0_u64..30_000 {
        let digest = blake3::hash(&number.to_le_bytes()).to_hex();
        text += &format!("comm=rustc,node=a | main parse {digest} | 1\n");
    }
    let start_ms = server::serve::http::routes::now_ms() / 10_000 * 10_000 - 60_000;
    let request = push_request(&window_at(&text, start_ms, 1));
    let grpc = process.grpc;
    runtime().block_on(async move {
        let mut client = running::connect(grpc).await?;
        client.push(request).await?;
        Ok::<(), Failed>(())
    })?;
    assert_eq!(process.get("/api/v1/series")?.status, 200);
    let before = process.resident_bytes()?;
    process.forget_peak()?;
    std::thread::scope(|scope| {
        let ask = |number: usize| {
            let routes = ["flamegraph", "top", "pprof?query={}", "folded"];
            let path = format!("/api/v1/{}", routes[number % routes.len()]);
            let http = process.http;
            scope.spawn(move || running::get(http, &path, "test").unwrap().status)
        };
        let asked: Vec<_> = (0..16).map(ask).collect();
        for thread in asked {
            let status = thread.join().unwrap();
            assert!(matches!(status, 200 | 503), "{status}");
        }
    });
    let peak = process.peak_bytes()?;
    let after = process.resident_bytes()?;
    assert!(peak < before + (64 + 64) * MIB, "{before} {peak}");
    assert!(after < before + 48 * MIB, "{before} {after}");
    process.stop()
}

/// Check that SIGTERM ends the server with 0, after the pushes that it was working on.
fn a_stop_answers_everybody() -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    let process = Process::start(folder.path(), &[])?;
    let grpc = process.grpc;
    let acknowledged = runtime().block_on(async {
        let answered = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&answered);
        let sender = tokio::spawn(async move {
            let mut client = running::connect(grpc).await.unwrap();
            let mut random = StdRng::seed_from_u64(1);
            let start_ms = server::serve::http::routes::now_ms();
            for sequence in 1.. {
                let window = random_window(&mut random, start_ms, sequence);
                if client.push(push_request(&window)).await.is_err() {
                    return sequence - 1;
                }
                counted.store(sequence, Ordering::Relaxed);
            }
            0
        });
        let started = Instant::now();
        while answered.load(Ordering::Relaxed) < 20 {
            assert!(started.elapsed() < DEADLINE, "the server does not answer");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        tokio::task::spawn_blocking(move || process.stop().unwrap())
            .await
            .unwrap();
        sender.await.unwrap()
    });
    assert!(acknowledged > 0);
    assert!(read_all_windows(folder.path()).len() as u64 >= acknowledged);
    let process = Process::start(folder.path(), &[])?;
    assert_eq!(process.recovery("tail_bytes_cut")?, 0);
    Ok(())
}

/// Check that Go's tool opens the profile over HTTP and shows the functions, the labels and the errors.
fn go_tool_pprof_shows_the_profile() -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    let process = Process::start(folder.path(), &[])?;
    let lines = "
        comm=rustc,node=a | main parse>inlined read@[kernel] | 120 | thread=worker
        comm=rustc,node=a | main parse | 30 | thread=worker
        comm=sort,node=a | main 0x1f@/lib/libb.so | 50
        comm=sort,node=a | 0x7f00 | 5
    ";
    let start_ms = server::serve::http::routes::now_ms() / 10_000 * 10_000 - 20_000;
    runtime().block_on(async {
        let mut client = running::connect(process.grpc).await.unwrap();
        client
            .push(push_request(&window_at(lines, start_ms, 1)))
            .await
            .unwrap();
    });
    let kept = tempfile::tempdir()?;
    let pprof = |arguments: &[&str], query: &str| {
        let url = format!(
            "http://{}/api/v1/pprof?query={query}&from=now-5m",
            process.http
        );
        let mut command = Command::new("go");
        command.args(["tool", "pprof"]).args(arguments).arg(url);
        // The tool keeps fetched profiles in one folder, and looks for binaries in the other.
        command
            .env("PPROF_TMPDIR", kept.path())
            .env("PPROF_BINARY_PATH", kept.path());
        let output = command.output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned()
            + &String::from_utf8_lossy(&output.stderr);
        (output.status.success(), text)
    };
    let has = |text: &str, words: &[&str]| {
        let line = text
            .lines()
            .find(|line| words.iter().all(|word| line.contains(word)));
        assert!(line.is_some(), "no line with {words:?} in\n{text}");
    };
    let (_, top) = pprof(&["-top"], "{}");
    has(&top, &["Type: cpu"]);
    has(&top, &["Total samples = 2050ms"]);
    has(&top, &["1200ms", "58.54%", "read"]);
    has(&top, &["500ms", "24.39%", "libb.so+0x1f"]);
    has(&top, &["300ms", "1500ms", "73.17%", "parse"]);
    has(&top, &["50ms", "[no symbol]"]);
    has(&top, &["(inline)"]);
    has(
        &pprof(&["-top", "-unit=ms"], "{comm=\"sort\"}").1,
        &["500ms", "90.91%", "libb.so+0x1f"],
    );
    has(
        &pprof(&["-top", "-sample_index=samples"], "{}").1,
        &["120", "58.54%", "read"],
    );
    has(
        &pprof(&["-top", "-tagfocus=comm=sort"], "{}").1,
        &["Showing nodes accounting for 550ms, 26.83% of 2050ms total"],
    );
    let (_, tags) = pprof(&["-tags"], "{}");
    has(&tags, &["1.50s", "rustc"]);
    has(&tags, &["1.50s", "worker"]);
    has(&pprof(&["-raw"], "{}").1, &["/lib/libb.so", "00ff", "[FN]"]);
    let (worked, text) = pprof(&["-top"], "{comm=}");
    assert!(!worked);
    has(
        &text,
        &["400 Bad Request", "expected a quoted value at character 6"],
    );
    // The tool rewrites the URL: a parameter with a `;` is lost, and a `+` is a space.
    let (worked, text) = pprof(&["-top"], "{comm=\"semi;colon\"}");
    assert!(!worked);
    has(&text, &["400 Bad Request", "write query={}"]);
    let (worked, text) = pprof(&["-top"], "{comm=~\"rus.+\"}");
    assert!(!worked);
    has(&text, &["404 Not Found", "{comm=~\"rus. \"}", "write %2B"]);
    has(
        &pprof(&["-top"], "{comm=~\"rus.%2B\"}").1,
        &["Total samples = 1500ms"],
    );
    process.stop()
}

const C_PROGRAM: &str = "__attribute__((noinline)) long work(long n) { volatile long sum = 0; \
    for (long i = 0; i < n; i++) sum += i; return sum; }\nint main(void) { return work(9) == 0; }\n";

const GO_PROGRAM: &str = "package main\n//go:noinline\nfunc work(n int) (sum int) { for i := range n { sum += i }; return }\n\
    func main() { println(work(9)) }\n";

/// A program's load segments, and the file offset of a function.
fn read_program(path: &Path, function: &str) -> Result<(Vec<v1::Segment>, u64), Failed> {
    let bytes = std::fs::read(path)?;
    let file = object::File::parse(&*bytes)?;
    let segments: Vec<_> = file
        .segments()
        .map(|segment| v1::Segment {
            file_offset: segment.file_range().0,
            address: segment.address(),
            bytes: segment.file_range().1,
        })
        .collect();
    let symbol = file.symbol_by_name(function).ok_or("no such function")?;
    let into = |segment: &v1::Segment| {
        let into = symbol.address().checked_sub(segment.address)?;
        (into < segment.bytes).then_some(segment.file_offset + into)
    };
    let offset = segments.iter().find_map(into).ok_or("not in a segment")?;
    Ok((segments, offset))
}

/// Check that Go's tool finds the code of a function, with its samples and no others, in a position-independent C program
/// and in a Go program; that the program is the first file, and that `-seconds` is the length of the profile.
fn go_tool_pprof_disassembles_a_c_and_a_go_program() -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    let (c, go) = (folder.path().join("c.c"), folder.path().join("go.go"));
    std::fs::write(&c, C_PROGRAM)?;
    std::fs::write(&go, GO_PROGRAM)?;
    let mut cc = Command::new("cc");
    cc.args(["-O1", "-fPIE", "-pie", "-o"]);
    let mut go_build = Command::new("go");
    go_build.args(["build", "-o"]);
    for (mut compiler, source, function) in [(cc, c, "work"), (go_build, go, "main.work")] {
        let program = source.with_extension("");
        assert!(compiler.arg(&program).arg(&source).status()?.success());
        let path = program.to_str().ok_or("not a name")?;
        let (segments, offset) = read_program(&program, function)?;
        // Another file has code at the same offset and comes first.
        let lines = format!(
            "comm=app,exe={path},node=a | {function}@{path} other@/lib/other.so | 5\n\
             comm=app,exe={path},node=a | {function}@{path} | 50\n"
        );
        let data = tempfile::tempdir()?;
        let process = Process::start(data.path(), &[])?;
        let start_ms = server::serve::http::routes::now_ms() / 10_000 * 10_000 - 40_000;
        let requests = [1, 2].map(|number| {
            let mut window = window_at(&lines, start_ms + 10_000 * number as i64, number);
            for location in &mut window.tables.locations {
                location.address = offset;
            }
            let layout = v1::FileLayout {
                build_id: "00ff".into(),
                segments: segments.clone(),
                offer: 0,
                ..Default::default()
            };
            v1::PushRequest {
                file_layouts: vec![layout],
                ..push_request(&window)
            }
        });
        runtime().block_on(async {
            let mut client = running::connect(process.grpc).await.unwrap();
            for request in requests {
                client.push(request).await.unwrap();
            }
        });
        let pprof = |arguments: &[&str]| {
            let url = format!("http://{}/api/v1/pprof?query={{}}", process.http);
            let mut command = Command::new("go");
            command.args(["tool", "pprof"]).args(arguments).arg(url);
            command.env("PPROF_TMPDIR", data.path());
            let output = command.output().unwrap();
            String::from_utf8_lossy(&output.stdout).into_owned()
                + &String::from_utf8_lossy(&output.stderr)
        };
        // No `^` and `$`: the tool compares addresses and lines with the pattern too.
        let disassembly = pprof(&["-unit=ms", "-disasm", &function.replace('.', "\\.")]);
        let routine = format!("ROUTINE ======================== {function}\n");
        let (_, sums) = disassembly
            .split_once(&routine)
            .ok_or_else(|| disassembly.clone())?;
        let sums: Vec<_> = sums.split_whitespace().take(4).collect();
        assert_eq!(
            sums,
            ["1000ms", "1100ms", "(flat,", "cum)"],
            "{disassembly}"
        );
        let name = program
            .file_name()
            .and_then(|name| name.to_str())
            .ok_or("no name")?;
        for (seconds, total) in [("1", "550ms"), ("10", "550ms"), ("11", "1100ms")] {
            let top = pprof(&["-unit=ms", "-top", "-seconds", seconds]);
            for words in [format!("File: {name}\n"), format!("of {total} total")] {
                assert!(top.contains(&words), "{seconds} s: no {words:?} in\n{top}");
            }
        }
        process.stop()?;
    }
    Ok(())
}

/// Check that `/metrics` is Prometheus text unless OpenMetrics is asked for, and that each format's validator accepts it:
/// names, units, external labels, and every family of the server.
fn metrics_pass_promtool_and_an_openmetrics_parser() -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    let process = Process::start(folder.path(), &[])?;
    let start_ms = server::serve::http::routes::now_ms() / 10_000 * 10_000 - 20_000;
    let lines = "comm=cart,node=a | main 0x1f@/lib/\"b\\.so | 50";
    runtime().block_on(async {
        let mut client = running::connect(process.grpc).await.unwrap();
        let window = window_at(lines, start_ms, 1);
        client.push(push_request(&window)).await.unwrap();
        // The other results and reasons: a repeat, a refused message, and missing files.
        client.push(push_request(&window)).await.unwrap();
        let empty = v1::PushRequest::default();
        client.push(empty).await.unwrap_err();
    });
    for path in ["/api/v1/top", "/api/v1/top?sort=up", "/api/v1/debuginfo"] {
        process.get(path)?;
    }

    let validators = Validators::find()?;
    let get = |headers: &str| running::get_with(process.http, "/metrics", headers);
    let text = get("")?;
    assert_eq!(
        text.header("content-type"),
        "text/plain; version=0.0.4; charset=utf-8"
    );
    validators.check_text(&text.text())?;
    let openmetrics = get("accept: application/openmetrics-text; version=1.0.0\r\n")?;
    assert_eq!(
        openmetrics.header("content-type"),
        "application/openmetrics-text; version=1.0.0; charset=utf-8"
    );
    validators.check_openmetrics(&openmetrics.text())?;
    for answer in [&text, &openmetrics] {
        assert_eq!(answer.header("vary"), "accept");
        for line in [
            "pilotlight_server_build_info{version=\"",
            "process_start_time_seconds 1",
            "process_cpu_seconds_total 0",
            "pilotlight_server_binary_samples_unnamed_total{binary=\"/lib/\\\"b\\\\.so\",",
        ] {
            assert!(answer.text().contains(line), "{line}\n{}", answer.text());
        }
    }
    process.stop()
}

/// Waits until the health status of the service that takes windows is this one; other services serve all the time.
fn wait_for_state(process: &Process, is_ready: bool) -> Result<(), Failed> {
    use tonic_health::pb::HealthCheckRequest;
    use tonic_health::pb::health_check_response::ServingStatus;
    use tonic_health::pb::health_client::HealthClient;
    let expected = if is_ready {
        ServingStatus::Serving
    } else {
        ServingStatus::NotServing
    };
    runtime().block_on(async {
        let endpoint = tonic::transport::Endpoint::new(format!("http://{}", process.grpc))?;
        let mut health = HealthClient::new(endpoint.connect().await?);
        let mut check = async |service: &str| -> Result<ServingStatus, Failed> {
            let request = HealthCheckRequest {
                service: service.to_owned(),
            };
            Ok(health.check(request).await?.into_inner().status())
        };
        let started = Instant::now();
        while check("pilotlight.v1.Ingest").await? != expected {
            if started.elapsed() > DEADLINE {
                return Err(format!("the health status is not {expected:?}").into());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(check("").await?, ServingStatus::Serving);
        Ok(())
    })
}

/// Check on a small file system of its own that a full disk is a clear status, that queries and probes go on, that nothing is lost, and that the
/// server takes windows again when there is room.
fn a_full_disk_refuses_and_recovers() -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    let disk = process::SmallDisk::mount(folder.path(), "24m")?;
    let process = Process::start(
        disk.path(),
        &["--reserve-bytes=8MiB", "--message-bytes-max=16MiB"],
    )?;
    // Room for a few windows; the reserve is the catalog's.
    let filler = disk.fill((9 << 20) + (512 << 10))?;
    let start_ms = server::serve::http::routes::now_ms();
    // Random names do not compress, so that some thousand of these are a megabyte.
    let big_window = |sequence: u64| {
        let mut random = StdRng::seed_from_u64(sequence);
        let mut name = || {
            (0..200)
                .map(|_| char::from(random.random_range(b'a'..=b'z')))
                .collect::<String>()
        };
        let lines: String = (0..4000)
            .map(|_| format!("comm=a,node=a | main {} | 1\n", name()))
            .collect();
        window_at(&lines, start_ms, sequence)
    };
    let mut acknowledged = 0;
    let refusal = runtime().block_on(async {
        let mut client = running::connect(process.grpc).await.unwrap();
        loop {
            match client
                .push(push_request(&big_window(acknowledged + 1)))
                .await
            {
                Ok(_) => acknowledged += 1,
                Err(status) => return status,
            }
        }
    });
    assert!(acknowledged > 0, "{refusal}");
    assert_eq!(refusal.code(), Code::ResourceExhausted, "{refusal}");
    assert!(refusal.message().contains("the disk is full"), "{refusal}");
    // Queries are answered as before; only what stores windows is not ready.
    let state = |process: &Process, is_ready: bool| -> Result<String, Failed> {
        wait_for_state(process, is_ready)?;
        let status = process.json("/api/v1/status")?;
        assert_eq!(status["ingest"]["ready"], is_ready);
        let reason = status["ingest"]["reason"].as_str().unwrap_or_default();
        let ready = process.get("/readyz")?;
        assert_eq!(ready.status, 200);
        let degraded = format!("ready\ndegraded: windows are not stored: {reason}\n");
        let expected = if is_ready { "ready\n" } else { &degraded };
        assert_eq!(ready.text(), expected);
        assert_eq!(process.get("/healthz")?.status, 200);
        assert_eq!(process.get("/")?.status, 200);
        let metrics = process.get("/metrics")?.text();
        for (name, value) in [
            ("ingest_ready", u64::from(is_ready)),
            (
                "disk_size_bytes",
                status["disk"]["size_bytes"].as_u64().unwrap(),
            ),
            ("disk_reserve_bytes", 8 << 20),
        ] {
            let line = format!("pilotlight_server_{name} {value}\n");
            assert!(metrics.contains(&line), "{line}{metrics}");
        }
        Ok(reason.to_owned())
    };
    let reason = state(&process, false)?;
    assert!(
        reason.contains("MiB free, and --reserve-bytes keeps 8.0 MiB"),
        "{reason}"
    );
    // Another program fills the rest, so that the writes themselves fail.
    let rest = disk.fill(0)?;
    let small = |sequence| push_request(&window_at("comm=a,node=a | main | 1", start_ms, sequence));
    runtime().block_on(async {
        let mut client = running::connect(process.grpc).await.unwrap();
        let refusal = client.push(small(900)).await.unwrap_err();
        assert_eq!(refusal.code(), Code::ResourceExhausted, "{refusal}");
        // A report would be a write of the catalog, which does not recover from one that fails.
        let report = v1::ReportRequest {
            collector_instance: vec![7; 16],
            node: "a".to_owned(),
            ..Default::default()
        };
        let refusal = client.report(report).await.unwrap_err();
        assert_eq!(refusal.code(), Code::ResourceExhausted, "{refusal}");
    });
    let count = |process: &Process| -> Result<u64, Failed> {
        Ok(process.json("/api/v1/nodes")?["nodes"][0]["windows"]
            .as_u64()
            .unwrap())
    };
    assert_eq!(
        count(&process)?,
        acknowledged,
        "a full disk still answers queries"
    );
    state(&process, false)?;
    // So does a server that starts there.
    let process = process.kill_and_restart(disk.path())?;
    assert_eq!(count(&process)?, acknowledged);
    state(&process, false)?;
    std::fs::remove_file(rest)?;
    std::fs::remove_file(filler)?;
    state(&process, true)?;
    runtime().block_on(async {
        let mut client = running::connect(process.grpc).await.unwrap();
        client.push(small(901)).await.unwrap();
    });
    let process = process.kill_and_restart(disk.path())?;
    assert_eq!(count(&process)?, acknowledged + 1);
    process.stop()?;
    Ok(())
}

/// Check that a file whose index takes more memory than the server's container has does not end the container: the child ends itself
/// within its share, and the answer says so.
fn a_file_that_takes_much_memory_costs_its_child_alone() -> Result<(), Failed> {
    const MIB: u64 = 1 << 20;
    let folder = tempfile::tempdir()?;
    // What the server may take with these flags is 800 MiB, 128 MiB of it for the child.
    let cgroup = MemoryCgroup::make(928 * MIB)?;
    let data = folder.path().join("data");
    std::fs::create_dir(&data)?;
    let flags = ["--cache-bytes-max=16MiB", "--ingest-bytes-max=16MiB"];
    let process = Process::start_by(&cgroup.words(), &data, &flags)?;
    let file = compile_with_section(folder.path(), ".zdebug_info", &zeros_compressed(1024))?;
    let uploaded = Command::new(env!("CARGO_BIN_EXE_pilotlight-server"))
        .args(["debuginfo", "upload", "--server"])
        .arg(format!("http://{}", process.http))
        .arg(&file)
        .output()?;
    let said = String::from_utf8(uploaded.stdout)?;
    let metrics = process.get("/metrics")?.text();
    println!("{} processes ended: {said}", cgroup.ends()?);
    assert_eq!(cgroup.ends()?, 0, "{said}");
    assert!(!uploaded.status.success(), "{said}");
    assert!(said.contains("more memory than the 224 MiB"), "{said}");
    let share = format!("symbol_limits{{kind=\"child_bytes\"}} {}\n", 224 * MIB);
    assert!(metrics.contains(&share), "{metrics}");
    process.stop()
}

/// A section of so many MiB of zeros in the form of GNU's `.zdebug` sections: `ZLIB`, the size in big endian, and a zlib stream.
fn zeros_compressed(mib: u64) -> Vec<u8> {
    let mut section = b"ZLIB".to_vec();
    section.extend((mib << 20).to_be_bytes());
    // A flush ends at a byte's border, and each MiB is the same after it: one is compressed.
    let mut stream = Compress::new(Compression::fast(), true);
    let mut flush = || {
        let mut bytes = Vec::with_capacity(64 << 10);
        let flushed = stream.compress_vec(&vec![0; 1 << 20], &mut bytes, FlushCompress::Full);
        flushed.map(|_| bytes)
    };
    section.extend(flush().unwrap());
    section.extend(flush().unwrap().repeat(mib as usize - 1));
    section
}

/// Compiles a program and adds a section to it.
fn compile_with_section(folder: &Path, name: &str, contents: &[u8]) -> Result<PathBuf, Failed> {
    let [source, program, section] = ["a.c", "a", "section"].map(|file| folder.join(file));
    std::fs::write(&source, "int main(void) { return 0; }")?;
    std::fs::write(&section, contents)?;
    let added = format!("{name}={}", section.display());
    for command in [
        Command::new("gcc")
            .args(["-Wl,--build-id=sha1", "-o"])
            .args([&program, &source]),
        Command::new("objcopy")
            .args(["--add-section", &added])
            .arg(&program),
    ] {
        let status = command.status()?;
        assert!(status.success(), "{command:?}");
    }
    Ok(program)
}
