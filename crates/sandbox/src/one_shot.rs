//! A child with one task: one file.

use std::fs::File;
use std::io::{self, Read};
use std::process::{ChildStderr, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::end::{END_TIME_MAX, wait_shortly, wait_until};
use crate::program::ChildProgram;

/// Pause between checks whether the child has ended. The smallest file takes some 5 ms.
const LOOK_PAUSE: Duration = Duration::from_millis(3);

/// A task for a child.
#[derive(Debug)]
pub struct OneShot<'a> {
    /// The program to start.
    pub program: &'a ChildProgram,
    /// Its standard input.
    pub input: File,
    /// Its standard output.
    pub output: File,
    /// Time that it may take.
    pub time_max: Duration,
    /// Bytes kept of its standard error. The rest is read and dropped.
    pub message_bytes_max: u64,
}

/// The end of a child with one task.
#[derive(Debug)]
pub struct Finished {
    /// `None`: it took too long and was killed.
    pub status: Option<ExitStatus>,
    /// Its standard error.
    pub message: String,
}

impl OneShot<'_> {
    /// Starts the child and waits for its end, at most a few seconds longer than [`time_max`](Self::time_max).
    ///
    /// # Errors
    /// The child could not be started.
    pub fn run(self) -> io::Result<Finished> {
        let deadline = Instant::now() + self.time_max;
        let mut child = self
            .program
            .command()
            .stdin(self.input)
            .stdout(self.output)
            .stderr(Stdio::piped())
            .spawn()?;
        let message = child
            .stderr
            .take()
            .map(|stderr| read_message(stderr, self.message_bytes_max));
        let status = wait_until(&mut child, deadline, LOOK_PAUSE)?;
        if status.is_none() {
            // Killing only fails after the child has ended.
            let _ = child.kill();
            if wait_shortly(&mut child).is_none() {
                // It waits in the kernel. Another thread waits for it, so that it does not stay a zombie.
                thread::spawn(move || child.wait());
            }
        }
        // A descendant of the child may hold standard error open for any time.
        let message = message.and_then(|message| message.recv_timeout(END_TIME_MAX).ok());
        Ok(Finished {
            status,
            message: message.unwrap_or_default(),
        })
    }
}

/// Reads in a thread: a child that writes more than a pipe holds would wait for ever.
fn read_message(mut stderr: ChildStderr, bytes_max: u64) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut text = Vec::new();
        // After an error, the message is the bytes before it.
        let _ = stderr.by_ref().take(bytes_max).read_to_end(&mut text);
        let _ = io::copy(&mut stderr, &mut io::sink());
        // The receiver gives up if the child's descendants take too long.
        let _ = sender.send(String::from_utf8_lossy(&text).into_owned());
    });
    receiver
}
