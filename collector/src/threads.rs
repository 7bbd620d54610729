//! Starts the collector's threads, and notes whether one of them panicked.

use std::{
    io,
    sync::atomic::{AtomicBool, Ordering},
    thread::{self, JoinHandle},
};

/// Whether any thread of this process has panicked. The others would go on without it: without
/// `unwind`, say, new programs would have incomplete stacks until a restart.
static HAS_PANICKED: AtomicBool = AtomicBool::new(false);

/// Notes the end of a thread that panics.
struct PanicNote;

impl Drop for PanicNote {
    fn drop(&mut self) {
        if thread::panicking() {
            HAS_PANICKED.store(true, Ordering::Relaxed);
        }
    }
}

/// Starts a thread. A panic in it is noted; see [`has_panicked`].
///
/// # Errors
/// The kernel refuses the thread. The error names it.
pub fn spawn<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    let builder = thread::Builder::new().name(name.into());
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that notes the panics of the thread"
    )]
    let thread = builder.spawn(move || {
        let _note = PanicNote;
        work()
    });
    thread.map_err(|err| {
        let text = format!("failed to start the thread `{name}`: {err}");
        io::Error::new(err.kind(), text)
    })
}

/// Whether a thread that [`spawn`] started has panicked.
pub fn has_panicked() -> bool {
    HAS_PANICKED.load(Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that a thread which panics is noted, and one that ends is not.
    #[test]
    fn panics_are_noted() {
        spawn("ends", || ()).unwrap().join().unwrap();
        assert!(!has_panicked());
        let panics = spawn("panics", || panic!("as the test wants it"));
        panics.unwrap().join().unwrap_err();
        assert!(HAS_PANICKED.swap(false, Ordering::Relaxed));
    }
}
