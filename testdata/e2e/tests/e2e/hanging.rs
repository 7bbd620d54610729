//! A program on a file system that hangs: a network file system whose server is gone, or, as here,
//! a FUSE file system whose process is stopped. Nothing else may wait for it or be lost.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use e2e::wait::wait_for_answer;
use run::child::{Child, Privilege, Start};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::names::{SHARE_MIN, begin_early_in_window, compile, find_tool, range, share_of, start};
use crate::rig::{self, Range, Rig, now_ms};

/// Tools that only this check needs.
pub(crate) const TOOLS: [&str; 2] = ["bindfs", "umount"];

/// The program runs until it is killed.
const FOREVER: &str = "100000";

/// The minimum for a verdict; both programs use seconds of CPU time.
const SAMPLES_MIN: u64 = 50;

/// Tries to hang while a file is held. One fails if a busy machine takes the rest of a window, 8 s at least, to sample the program.
const TRIES: usize = 10;

/// Returns a missing requirement, if any.
pub(crate) fn find_missing() -> Option<String> {
    let is_there = Path::new("/dev/fuse").exists();
    (!is_there).then(|| "needs file systems that processes serve: /dev/fuse is missing".to_owned())
}

/// Check that a collector starts, samples, sends and stops while a program runs on a file system
/// that hangs; that the program's frames have the reason; and that they have names in the first
/// windows after the file system answers again.
pub(crate) fn check() -> Result<()> {
    let directory = TempDir::new().context("failed to make a directory")?;
    let at = |name: &str| directory.path().join(name);
    for name in ["source", "mount"] {
        fs::create_dir(at(name)).context("failed to make a directory")?;
    }
    compile(&at("source/nm-hanging"), "burn_behind", &["-g"])?;
    compile(&at("nm-later"), "burn_later", &["-g"])?;
    compile(&at("nm-beside"), "burn_beside", &["-g"])?;
    let mount = Mount::serve(&at("source"), at("mount"))?;
    let hanging = mount.start("nm-hanging")?;
    // The program must have reached its loop, whose pages are then in memory.
    wait_for_answer("a program to have its time", || {
        let stat = fs::read_to_string(format!("/proc/{}/schedstat", hanging.pid()))?;
        let ran_ns: u64 = stat.split(' ').next().unwrap_or_default().parse()?;
        Ok((ran_ns > 200_000_000).then_some(()))
    })?;

    mount.signal(Signal::STOP)?;
    let mut rig = Rig::start("hanging")?;
    let from_ms = now_ms()?;
    let status = start(&at("nm-beside"))?.wait()?;
    ensure!(status.success(), "`nm-beside` ended with {status}");
    let ended_ms = now_ms()?;
    rig.wait_stored(ended_ms)?;
    let sampled = range(from_ms / 10_000 * 10_000, ended_ms);
    let top = rig.get_json("/api/v1/top", r#"{comm="nm-beside"}"#, sampled, &[])?;
    let share = share_of(&top, "burn_beside");
    ensure!(share >= SHARE_MIN, "what is beside has no names: {top}");
    let query = r#"{comm="nm-hanging"}"#;
    check_says_so(&rig, query, sampled)?;

    mount.signal(Signal::CONT)?;
    let mut begun_ms = now_ms()?;
    wait_for_answer("the program to have names", || {
        let ended_ms = now_ms()?;
        rig.wait_stored(ended_ms)?;
        let top = rig.get_json("/api/v1/top", query, range(begun_ms, ended_ms), &[])?;
        begun_ms = ended_ms;
        Ok((share_of(&top, "burn_behind") >= SHARE_MIN).then_some(()))
    })?;

    // A file that is open when the file system begins to hang: the child hangs on it.
    for number in 0..TRIES {
        // No name of an earlier one is known.
        let name = format!("nm-later-{number}");
        fs::copy(at("nm-later"), at("source").join(&name)).context("failed to copy a program")?;
        if let Some(_program) = hang_when_held(&rig, &mount, &name)? {
            rig.stop_collectors()?;
            rig.check_accounting()?;
            return rig.stop_server();
        }
    }
    bail!("in {TRIES} tries no file was held before its window ended")
}

/// Starts a program, stops the file system when the collector holds the program's file, and checks that the program's frames have the
/// reason. Returns the program, unless its first window ended meanwhile: a file is named then.
fn hang_when_held(rig: &Rig, mount: &Mount, name: &str) -> Result<Option<Child>> {
    begin_early_in_window()?;
    let begun_ms = now_ms()? / 10_000 * 10_000;
    let program = mount.start(name)?;
    let file = mount.path.join(name);
    let files = format!("/proc/{}/fd", rig.collector_pid(0)?);
    let mut looks = 0;
    wait_for_answer("the collector to hold a file", || {
        let mut held = fs::read_dir(&files)?.flatten();
        let is_held = held.any(|held| fs::read_link(held.path()).is_ok_and(|path| path == file));
        looks = if is_held { looks + 1 } else { 0 };
        // The unwinder opens it for a moment only.
        Ok((looks >= 3).then_some(()))
    })?;
    mount.signal(Signal::STOP)?;
    if now_ms()? / 10_000 * 10_000 != begun_ms {
        mount.signal(Signal::CONT)?;
        return Ok(None);
    }
    let query = format!(r#"{{comm="{name}"}}"#);
    let sampled = rig.wait_samples(&query, begun_ms, SAMPLES_MIN)?;
    check_says_so(rig, &query, sampled)?;
    Ok(Some(program))
}

/// Check that nearly all samples of a program have no name, with the reason.
fn check_says_so(rig: &Rig, query: &str, sampled: Range) -> Result<()> {
    let unknown = rig.get_json("/api/v1/unknown", query, sampled, &[])?;
    let count = |key: &str| unknown[key].as_u64().unwrap_or_default();
    let (samples, unnamed) = (count("samples"), count("unnamed_self_samples"));
    let reason = &unknown["reasons"][0]["reason"];
    ensure!(
        samples >= SAMPLES_MIN && unnamed * 10 >= samples * 9 && reason == "not_answering",
        "what hangs does not say so: {unknown}"
    );
    Ok(())
}

/// A FUSE file system.
struct Mount {
    server: Child,
    path: PathBuf,
}

impl Mount {
    /// Mounts `source` at `path`, and waits until it is mounted.
    fn serve(source: &Path, path: PathBuf) -> Result<Self> {
        let folders = [source, &path].map(|folder| folder.display().to_string());
        let options = ["-f", "--no-allow-other"].map(str::to_owned);
        let server = rig::start(Start {
            name: "bindfs",
            program: &find_tool("bindfs")?,
            arguments: [options, folders].concat(),
            privilege: Privilege::Same,
            log: path.with_extension("log"),
        })?;
        let mount = Self { server, path };
        wait_for_answer("a file system to be there", || {
            let is_there = mount.path.join("nm-hanging").exists();
            Ok(is_there.then_some(()))
        })?;
        Ok(mount)
    }

    /// Starts a program of the file system.
    fn start(&self, name: &str) -> Result<Child> {
        rig::start(Start {
            name: "program of the file system",
            program: &self.path.join(name),
            arguments: vec![FOREVER.to_owned()],
            privilege: Privilege::Same,
            log: self.path.with_extension(name),
        })
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.server.pid())
            .ok()
            .and_then(Pid::from_raw);
        let pid = pid.context("a process without a number")?;
        kill_process(pid, signal).context("failed to signal `bindfs`")
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Killing the FUSE process wakes all waiting threads.
        let _ = self.server.kill();
        let _ = Command::new("umount").arg("-l").arg(&self.path).status();
    }
}
