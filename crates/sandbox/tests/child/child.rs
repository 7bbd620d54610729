//! The child of the tests: confined as told, then good or bad as asked.

use std::fs::{self, File};
use std::hint::black_box;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{self, Command, ExitCode, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Signal, dumpable_behavior, parent_process_death_signal};
use rustix::thread::set_name;
use sandbox::{
    CapabilitySet, Channel, ChildProgram, Confinement, FileRoot, FrameLimits, Received,
    RestartLimits, RestartingChild,
};

/// First argument that makes the test program a child; the second says which.
pub(crate) const ARGUMENT: &str = "child";

pub(crate) const FRAMES: FrameLimits = FrameLimits {
    bytes_max: 1 << 20,
    files_max: 4,
};

pub(crate) const CONFINEMENT: Confinement = Confinement {
    capabilities: CapabilitySet::DAC_READ_SEARCH,
    data_bytes_max: 64 << 20,
    open_files_max: 32,
    cpu_seconds_max: None,
    file_bytes_max: None,
    nice: 3,
};

/// This program as a child of the given kind.
pub(crate) fn program(kind: &str) -> ChildProgram {
    ChildProgram {
        path: ChildProgram::OWN.into(),
        arguments: vec![ARGUMENT.into(), kind.into()],
        environment: vec![("KEPT".into(), "yes".into())],
    }
}

pub(crate) fn run(kind: &str) -> ExitCode {
    let result = match kind {
        "serve" => serve(),
        "parent" => start_and_wait(),
        kind => run_once(kind),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            eprintln!("child: {err}");
            ExitCode::FAILURE
        }
    }
}

/// Answers requests, which are words, with text.
fn serve() -> io::Result<()> {
    let channel = Channel::to_parent(FRAMES)?;
    let root = CONFINEMENT.enter()?;
    let (mut request, mut files) = (Vec::new(), Vec::new());
    loop {
        let received = channel.receive_with_files(&mut request, &mut files, None)?;
        if received == Received::Closed {
            return Ok(());
        }
        let request = str::from_utf8(&request).map_err(io::Error::other)?;
        let answer = answer(request, root, &files)?;
        let beside = if request == "descriptor" {
            vec![io::stdin().as_fd().try_clone_to_owned()?]
        } else {
            Vec::new()
        };
        let beside: Vec<_> = beside.iter().map(AsFd::as_fd).collect();
        channel.send(answer.as_bytes(), &beside, None)?;
    }
}

fn answer(request: &str, root: FileRoot, files: &[OwnedFd]) -> io::Result<String> {
    Ok(match request {
        "state" => format!(
            "{root:?} {:?} {} {:?}",
            dumpable_behavior()?,
            parent_process_death_signal()?.map_or(0, Signal::as_raw),
            std::env::vars().collect::<Vec<_>>()
        ),
        "contents" => {
            let contents = files.iter().map(|file| {
                let mut text = String::new();
                File::from(file.try_clone()?).read_to_string(&mut text)?;
                Ok(text)
            });
            contents.collect::<io::Result<Vec<_>>>()?.join(",")
        }
        "descriptors" => {
            // One of them is that of the listing.
            let listed = fs::read_dir(root.path_of(0).parent().ok_or(io::ErrorKind::NotFound)?)?;
            (listed.count() - 1).to_string()
        }
        "reopen" => fs::read_to_string(root.path_of(files[0].as_raw_fd()))?,
        "files" => {
            let paths = [
                "/etc/passwd",
                "/proc/self/mem",
                "../etc/passwd",
                "/dev/null",
            ];
            let opened = paths.map(|path| File::open(path).is_ok());
            format!("{opened:?}")
        }
        "fork" => {
            let started = Command::new(root.path_of(0)).spawn();
            format!("{:?}", started.err().and_then(|err| err.raw_os_error()))
        }
        "sleep" => {
            set_name(c"asleep")?;
            thread::sleep(Duration::MAX);
            String::new()
        }
        "spin" => spin(),
        "exit" => process::exit(3),
        "abort" => process::abort(),
        "close" => {
            io::stdin()
                .as_fd()
                .try_clone_to_owned()
                .map(UnixStream::from)?
                .shutdown(std::net::Shutdown::Both)?;
            thread::sleep(Duration::MAX);
            String::new()
        }
        "allocate" => allocate(),
        "huge" => send_raw(&u32::MAX.to_le_bytes())?,
        "half" => send_raw(&[8, 0, 0, 0, 1, 2, 3])?,
        _ => request.to_owned(),
    })
}

/// Sends bytes that are no whole frame, and ends.
fn send_raw(bytes: &[u8]) -> io::Result<String> {
    let mut socket = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    socket.write_all(bytes)?;
    process::exit(0);
}

fn spin() -> ! {
    loop {
        black_box(Instant::now());
    }
}

fn allocate() -> ! {
    let mut kept = Vec::new();
    loop {
        kept.push(vec![1_u8; 1 << 20]);
        black_box(&kept);
    }
}

/// Starts a child, prints its PID, and waits for an answer that does not come.
fn start_and_wait() -> io::Result<()> {
    let limits = RestartLimits {
        failures_at_once: 1,
        failure_period: Duration::MAX,
        stuck_max: 1,
    };
    let mut children = RestartingChild::new(program("serve"), FRAMES, limits);
    let child = children.start().map_err(io::Error::other)?;
    println!("{}", child.pid());
    let deadline = Instant::now() + Duration::from_secs(3600);
    child
        .ask(b"sleep", &[], deadline)
        .map_err(io::Error::other)?;
    Ok(())
}

/// One task: standard input to standard output, or worse.
fn run_once(kind: &str) -> io::Result<()> {
    if kind == "orphan" {
        // Holds standard error open for longer than the parent waits.
        Command::new("/bin/sleep")
            .arg("100")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()?;
        eprintln!("parent of an orphan");
        return Ok(());
    }
    let root = Confinement {
        cpu_seconds_max: Some(1),
        file_bytes_max: Some(1 << 20),
        ..CONFINEMENT
    }
    .enter()?;
    match kind {
        "copy" => {
            io::copy(&mut io::stdin(), &mut io::stdout())?;
            eprintln!("copied by {root:?}");
        }
        "noise" => {
            for _ in 0..1000 {
                eprintln!("{}", "x".repeat(1000));
            }
        }
        "spin" => spin(),
        "write" => loop {
            io::stdout().write_all(&[b'x'; 1 << 16])?;
        },
        "allocate" => allocate(),
        "sleep" => thread::sleep(Duration::MAX),
        kind => return Err(io::Error::other(format!("no such child: {kind}"))),
    }
    Ok(())
}
