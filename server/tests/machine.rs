//! The real server process: killed, out of disk, asked by `go tool pprof`.
//!
//! Tests that this machine cannot run are shown as ignored, with the reason on stderr.

#![allow(clippy::unwrap_used, reason = "a test")]

mod process;
mod running;
#[path = "../src/profile/text.rs"]
mod text;

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Failed, Trial};
use process::{Process, runtime};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use server::profile::Window;
use server::store::record::read_window;
use server::store::segment::scan_segment;
use text::{describe, push_request, window_at};
use tonic::Code;

const HOUR_MS: i64 = 3_600_000;

fn main() {
    let arguments = Arguments::from_args();
    let has_go = Command::new("go").arg("version").output().is_ok();
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
        needs(
            Trial::test(
                "go_tool_pprof_shows_what_was_sent",
                go_tool_pprof_shows_what_was_sent,
            ),
            "go",
            has_go,
        ),
        needs(
            Trial::test(
                "a_full_disk_refuses_and_recovers",
                a_full_disk_refuses_and_recovers,
            ),
            "root",
            is_root,
        ),
    ];
    libtest_mimic::run(&arguments, trials).exit();
}

/// A window with some hundred random stacks, some of which come again in the next.
fn random_window(random: &mut StdRng, start_ms: i64, sequence: u64) -> Window {
    let mut lines = String::new();
    for _ in 0..random.random_range(1..200) {
        let comm = random.random_range(0..20);
        let depth = random.random_range(0..12);
        let frames: Vec<String> = (0..depth)
            .map(|_| format!("f{}", random.random_range(0..50)))
            .collect();
        lines += &format!(
            "comm=c{comm},node=a | {} | {}\n",
            frames.join(" "),
            random.random_range(1..9)
        );
    }
    window_at(&lines, start_ms, sequence)
}

/// Check that after each of twenty kills in the middle of writes every acknowledged window is known, and that in the
/// end each is on the disk once, as it was sent.
fn kill_9_loses_nothing_acknowledged() -> Result<(), Failed> {
    const SENDERS: u8 = 4;
    let folder = tempfile::tempdir()?;
    let now_ms = server::http::routes::now_ms() / HOUR_MS * HOUR_MS;
    let mut acknowledged: BTreeMap<(u8, u64), Window> = BTreeMap::new();
    let mut restored = 0;
    for round in 0..20_u64 {
        let process = Process::start(folder.path(), &[])?;
        restored += process.recovery("windows_restored")?;
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
                assert!(
                    started.elapsed() < Duration::from_secs(30),
                    "the server does not answer"
                );
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
    assert!(
        restored > 0,
        "no kill met the catalog behind the segments: the test is too gentle"
    );

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
            describe(&copies[0]),
            describe(window),
            "{}",
            window.head.key
        );
    }
    eprintln!(
        "{} windows acknowledged, {restored} restored from segments",
        acknowledged.len()
    );
    Ok(())
}

/// How long a sender waits for a server that may be killed. What is not answered by then counts as not acknowledged.
const ANSWER_TIME: Duration = Duration::from_secs(20);

/// What one sender of a round sends.
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
    // One who asks for a port that was just closed can be answered by nobody, and even by itself.
    let connect = tokio::time::timeout(ANSWER_TIME, running::connect(grpc));
    let Ok(Ok(mut client)) = connect.await else {
        return acknowledged;
    };
    for sequence in plan.first.. {
        // Three hours, so that three segments are written at once.
        let start_ms =
            plan.now_ms - HOUR_MS * (sequence % 3) as i64 - 10_000 * (sequence as i64 % 300);
        // What was sent and not answered is sent again as it was, as a collector does it.
        let mut random = StdRng::seed_from_u64(sequence << 8 | u64::from(plan.sender));
        let mut window = random_window(&mut random, start_ms, sequence);
        window.head.key.instance = [plan.sender; 16];
        let answer = tokio::time::timeout(ANSWER_TIME, client.push(push_request(&window)));
        if !matches!(answer.await, Ok(Ok(_))) {
            break;
        }
        answered.fetch_add(1, Ordering::Relaxed);
        acknowledged.push(window);
    }
    acknowledged
}

fn read_all_windows(data: &Path) -> HashMap<server::profile::WindowKey, Vec<Window>> {
    let mut windows: HashMap<_, Vec<Window>> = HashMap::new();
    for block in std::fs::read_dir(data.join("segments")).unwrap() {
        for segment in std::fs::read_dir(block.unwrap().path()).unwrap() {
            let bytes = std::fs::read(segment.unwrap().path()).unwrap();
            for (offset, length) in scan_segment(&bytes).unwrap().records {
                let (window, _) =
                    read_window(&bytes[offset as usize..][..length as usize]).unwrap();
                windows.entry(window.head.key).or_default().push(window);
            }
        }
    }
    windows
}

/// Check that a second server on the same directory says what is wrong and leaves the first one alone.
fn a_second_server_is_told() -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    let process = Process::start(folder.path(), &[])?;
    let (status, stderr) = Process::run_to_end(folder.path(), &[])?;
    assert_eq!(status.code(), Some(1));
    assert!(
        stderr.contains("another server uses the data directory"),
        "{stderr}"
    );
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

/// Check that SIGTERM ends the server with 0, after the pushes that it was working on.
fn a_stop_answers_everybody() -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    let process = Process::start(folder.path(), &[])?;
    let grpc = process.grpc;
    let acknowledged = runtime().block_on(async {
        let sender = tokio::spawn(async move {
            let mut client = running::connect(grpc).await.unwrap();
            let mut random = StdRng::seed_from_u64(1);
            let start_ms = server::http::routes::now_ms();
            for sequence in 1.. {
                let window = random_window(&mut random, start_ms, sequence);
                if client.push(push_request(&window)).await.is_err() {
                    return sequence - 1;
                }
            }
            0
        });
        tokio::time::sleep(Duration::from_millis(200)).await;
        tokio::task::spawn_blocking(move || process.stop().unwrap())
            .await
            .unwrap();
        sender.await.unwrap()
    });
    assert!(acknowledged > 0);
    assert!(read_all_windows(folder.path()).len() as u64 >= acknowledged);
    let process = Process::start(folder.path(), &[])?;
    assert_eq!(process.recovery("tails_cut")?, 0);
    Ok(())
}

/// Check that Go's tool opens the profile over HTTP and shows the functions, the labels and the errors.
fn go_tool_pprof_shows_what_was_sent() -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    let process = Process::start(folder.path(), &[])?;
    let lines = "
        comm=rustc,node=a | main parse>inlined read@[kernel] | 120 | thread=worker
        comm=rustc,node=a | main parse | 30 | thread=worker
        comm=sort,node=a | main 0x1f@/lib/libb.so | 50
        comm=sort,node=a | 0x7f00 | 5
    ";
    let start_ms = server::http::routes::now_ms() / 10_000 * 10_000 - 20_000;
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
        // The tool keeps what it fetched in the one folder, and looks for binaries in the other.
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
    process.stop()
}

/// Check on a small file system of its own that a full disk is a clear status, that nothing is lost, and that the
/// server takes windows again when there is room.
fn a_full_disk_refuses_and_recovers() -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    let disk = process::SmallDisk::mount(folder.path(), "24m")?;
    let process = Process::start(
        disk.path(),
        &["--reserve-bytes=8MiB", "--message-bytes-max=16MiB"],
    )?;
    // Room for a few windows; what is below the reserve is the catalog's.
    let filler = disk.fill((9 << 20) + (512 << 10))?;
    let start_ms = server::http::routes::now_ms();
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
    let ready = process.get("/readyz")?;
    assert!(
        ready.text().contains("the disk is full"),
        "{}",
        ready.text()
    );
    assert_eq!(ready.status, 503);
    // Somebody else fills the rest, so that the writes themselves fail.
    let rest = disk.fill(0)?;
    let small = |sequence| push_request(&window_at("comm=a,node=a | main | 1", start_ms, sequence));
    runtime().block_on(async {
        let mut client = running::connect(process.grpc).await.unwrap();
        let refusal = client.push(small(900)).await.unwrap_err();
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
    std::fs::remove_file(rest)?;
    std::fs::remove_file(filler)?;
    assert_eq!(process.get("/readyz")?.status, 200);
    runtime().block_on(async {
        let mut client = running::connect(process.grpc).await.unwrap();
        client.push(small(901)).await.unwrap();
    });
    let process = process.kill_and_restart(disk.path())?;
    assert_eq!(count(&process)?, acknowledged + 1);
    process.stop()?;
    Ok(())
}
