//! Frames over a socket, with descriptors beside them, for parent and child.
//!
//! A frame is a length (`u32`, little-endian, without itself) and that many bytes. Descriptors travel beside the length. A deadline of
//! `None` waits as long as it takes.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::cmsg_space;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use thiserror::Error;

/// Descriptors beside one message that the kernel takes (`SCM_MAX_FD`).
const KERNEL_FILES_MAX: usize = 253;

/// A frame's buffer grows by so many bytes as they arrive: a large length alone costs no memory.
const GROWTH_BYTES: usize = 64 << 10;

/// Limits on the frames of a channel, sent or received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameLimits {
    /// Bytes, without those of the length.
    pub bytes_max: usize,
    /// Descriptors beside it, at most 253.
    pub files_max: usize,
}

/// Why a frame was not sent or received. The channel cannot be used after that.
#[derive(Debug, Error)]
pub enum FrameError {
    /// Its length is above the limit.
    #[error("frame of {bytes} bytes is over the limit of {max}")]
    TooLarge {
        /// Its length.
        bytes: usize,
        /// [`FrameLimits::bytes_max`].
        max: usize,
    },
    /// The descriptors beside it are too many.
    #[error("frame has more than {max} descriptors beside it")]
    TooManyFiles {
        /// [`FrameLimits::files_max`].
        max: usize,
    },
    /// The other side closed the socket within the frame.
    #[error("frame is truncated")]
    Truncated,
    /// The deadline passed.
    #[error("frame was not sent or received in time")]
    TimedOut,
    /// The socket failed, mostly since the other side is gone.
    #[error("failed to use the socket: {0}")]
    Io(#[from] io::Error),
}

impl From<FrameError> for io::Error {
    fn from(err: FrameError) -> Self {
        match err {
            FrameError::Io(err) => err,
            err => Self::other(err),
        }
    }
}

/// The end of a wait for a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Received {
    /// A whole frame.
    Frame,
    /// The other side closed the socket between two frames.
    Closed,
}

/// One end of a socket that carries frames.
#[derive(Debug)]
pub struct Channel {
    socket: UnixStream,
    limits: FrameLimits,
}

impl Channel {
    /// A channel over `socket`.
    pub fn new(socket: UnixStream, limits: FrameLimits) -> Self {
        let files_max = limits.files_max.min(KERNEL_FILES_MAX);
        Self {
            socket,
            limits: FrameLimits {
                files_max,
                ..limits
            },
        }
    }

    /// The child's channel to its parent: its standard input.
    ///
    /// # Errors
    /// Standard input is no socket: a user tried the hidden argument.
    pub fn to_parent(limits: FrameLimits) -> io::Result<Self> {
        let socket = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
        socket.peer_addr()?;
        Ok(Self::new(socket, limits))
    }

    /// Sends one frame with descriptors beside it.
    ///
    /// # Errors
    /// The frame is over a limit, the other side is gone, or the deadline passed.
    pub fn send(
        &self,
        frame: &[u8],
        files: &[BorrowedFd<'_>],
        deadline: Option<Instant>,
    ) -> Result<(), FrameError> {
        let FrameLimits {
            bytes_max,
            files_max,
        } = self.limits;
        let bytes = frame.len();
        let length = u32::try_from(bytes).ok().filter(|_| bytes <= bytes_max);
        let length = length.ok_or(FrameError::TooLarge {
            bytes,
            max: bytes_max,
        })?;
        if files.len() > files_max {
            return Err(FrameError::TooManyFiles { max: files_max });
        }
        let length = length.to_le_bytes();
        let mut sent = if files.is_empty() {
            0
        } else {
            self.socket.set_write_timeout(time_left(deadline)?)?;
            send_with_files(&self.socket, &length, files)?
        };
        for bytes in [&length[..], frame] {
            let mut left = bytes.get(sent..).unwrap_or_default();
            sent = sent.saturating_sub(bytes.len());
            while !left.is_empty() {
                self.socket.set_write_timeout(time_left(deadline)?)?;
                match (&self.socket).write(left) {
                    Ok(0) => return Err(FrameError::Truncated),
                    Ok(written) => left = &left[written..],
                    Err(err) => ignore_interruption(err)?,
                }
            }
        }
        Ok(())
    }

    /// Receives one frame into `frame`. The kernel closes descriptors beside it, so that this side never holds a file of the other's
    /// choice.
    ///
    /// # Errors
    /// The frame is over the limit or truncated, or the deadline passed.
    pub fn receive(
        &self,
        frame: &mut Vec<u8>,
        deadline: Option<Instant>,
    ) -> Result<Received, FrameError> {
        let read = |bytes: &mut [u8]| Ok((&self.socket).read(bytes)?);
        self.receive_by(read, frame, deadline)
    }

    /// Receives one frame into `frame`, and the descriptors beside it into `files`.
    ///
    /// # Errors
    /// The frame is over a limit or truncated, or the deadline passed.
    pub fn receive_with_files(
        &self,
        frame: &mut Vec<u8>,
        files: &mut Vec<OwnedFd>,
        deadline: Option<Instant>,
    ) -> Result<Received, FrameError> {
        let max = self.limits.files_max;
        files.clear();
        // Each byte of the length could bring descriptors, so they are counted together.
        let read = |bytes: &mut [u8]| {
            let read = read_with_files(&self.socket, bytes, files)?;
            if files.len() > max {
                files.clear();
                return Err(FrameError::TooManyFiles { max });
            }
            Ok(read)
        };
        self.receive_by(read, frame, deadline)
    }

    /// Receives a frame whose length `read_length` reads.
    fn receive_by(
        &self,
        mut read_length: impl FnMut(&mut [u8]) -> Result<usize, FrameError>,
        frame: &mut Vec<u8>,
        deadline: Option<Instant>,
    ) -> Result<Received, FrameError> {
        let mut length = [0; 4];
        let mut filled = 0;
        while filled < length.len() {
            self.socket.set_read_timeout(time_left(deadline)?)?;
            match read_length(&mut length[filled..]) {
                Ok(0) if filled == 0 => return Ok(Received::Closed),
                Ok(0) => return Err(FrameError::Truncated),
                Ok(read) => filled += read,
                Err(FrameError::Io(err)) => ignore_interruption(err)?,
                Err(err) => return Err(err),
            }
        }
        let length = u32::from_le_bytes(length) as usize;
        let max = self.limits.bytes_max;
        if length > max {
            return Err(FrameError::TooLarge { bytes: length, max });
        }
        frame.clear();
        while frame.len() < length {
            let start = frame.len();
            frame.resize(length.min(start + GROWTH_BYTES), 0);
            self.socket.set_read_timeout(time_left(deadline)?)?;
            match (&self.socket).read(&mut frame[start..]) {
                Ok(0) => return Err(FrameError::Truncated),
                Ok(read) => frame.truncate(start + read),
                Err(err) => {
                    frame.truncate(start);
                    ignore_interruption(err)?;
                }
            }
        }
        Ok(Received::Frame)
    }
}

/// The time until a deadline, as sockets take it.
fn time_left(deadline: Option<Instant>) -> Result<Option<Duration>, FrameError> {
    let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
    if left == Some(Duration::ZERO) {
        return Err(FrameError::TimedOut);
    }
    Ok(left)
}

/// A system call that a signal interrupted is made again. A socket's own time-out reads as `WouldBlock`.
fn ignore_interruption(err: io::Error) -> Result<(), FrameError> {
    match err.kind() {
        io::ErrorKind::Interrupted => Ok(()),
        io::ErrorKind::WouldBlock => Err(FrameError::TimedOut),
        _ => Err(err.into()),
    }
}

fn send_with_files(
    socket: &UnixStream,
    bytes: &[u8],
    files: &[BorrowedFd<'_>],
) -> Result<usize, FrameError> {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(KERNEL_FILES_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(files)) {
        let max = KERNEL_FILES_MAX;
        return Err(FrameError::TooManyFiles { max });
    }
    loop {
        let parts = [IoSlice::new(bytes)];
        match sendmsg(socket, &parts, &mut control, SendFlags::NOSIGNAL) {
            Ok(sent) => return Ok(sent),
            Err(err) => ignore_interruption(err.into())?,
        }
    }
}

fn read_with_files(
    socket: &UnixStream,
    bytes: &mut [u8],
    files: &mut Vec<OwnedFd>,
) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(KERNEL_FILES_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [IoSliceMut::new(bytes)];
    let received = recvmsg(socket, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC)?;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            files.extend(received);
        }
    }
    Ok(received.bytes)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::thread;

    use super::*;

    const LIMITS: FrameLimits = FrameLimits {
        bytes_max: 1 << 20,
        files_max: 2,
    };

    fn pair() -> (Channel, Channel) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (Channel::new(ours, LIMITS), Channel::new(theirs, LIMITS))
    }

    /// Receives from a socket that is closed after `bytes`.
    fn receive(bytes: &[u8]) -> Result<Received, FrameError> {
        let (ours, theirs) = pair();
        (&theirs.socket).write_all(bytes).unwrap();
        drop(theirs);
        ours.receive(&mut Vec::new(), None)
    }

    /// Check that frames of all sizes arrive as they were sent, also when the socket takes them in parts.
    #[test]
    fn frames_arrive_as_they_were_sent() {
        let (ours, theirs) = pair();
        let frames = [0, 1, GROWTH_BYTES, LIMITS.bytes_max].map(|bytes| vec![7; bytes]);
        thread::scope(|scope| {
            scope.spawn(|| {
                for frame in &frames {
                    ours.send(frame, &[], None).unwrap();
                }
            });
            let mut received = Vec::new();
            for frame in &frames {
                let result = theirs.receive(&mut received, None);
                assert_eq!(result.unwrap(), Received::Frame);
                assert!(received == *frame);
            }
        });
    }

    /// Check each end of a stream: between frames, within a length, within a frame; and a length over the limit.
    #[test]
    fn bad_frames_are_refused() {
        assert_eq!(receive(&[]).unwrap(), Received::Closed);
        for bytes in [&[1, 0][..], &[4, 0, 0, 0], &[4, 0, 0, 0, 1, 2, 3]] {
            let err = receive(bytes).unwrap_err();
            assert!(matches!(err, FrameError::Truncated), "{bytes:?}: {err}");
        }
        let err = receive(&[0xff; 8]).unwrap_err();
        assert_eq!(
            err.to_string(),
            "frame of 4294967295 bytes is over the limit of 1048576"
        );
    }

    /// Check that a frame over a limit is not sent.
    #[test]
    fn own_frames_keep_the_limits() {
        let (ours, _theirs) = pair();
        let file = File::open("/dev/null").unwrap();
        let large = vec![0; LIMITS.bytes_max + 1];
        let err = ours.send(&large, &[], None).unwrap_err();
        assert!(matches!(err, FrameError::TooLarge { .. }), "{err}");
        let files = [file.as_fd(); 3];
        let err = ours.send(&[], &files, None).unwrap_err();
        assert!(matches!(err, FrameError::TooManyFiles { max: 2 }), "{err}");
    }

    /// Check that a length whose bytes do not come costs neither its memory nor more than the time.
    #[test]
    fn a_length_alone_costs_nothing() {
        let (ours, theirs) = pair();
        let length = u32::try_from(LIMITS.bytes_max).unwrap();
        (&theirs.socket).write_all(&length.to_le_bytes()).unwrap();
        let mut frame = Vec::new();
        let deadline = Some(Instant::now() + Duration::from_millis(20));
        let err = ours.receive(&mut frame, deadline).unwrap_err();
        assert!(matches!(err, FrameError::TimedOut), "{err}");
        assert!(frame.capacity() <= GROWTH_BYTES);
        let err = ours.receive(&mut frame, deadline).unwrap_err();
        assert!(matches!(err, FrameError::TimedOut), "{err}");
    }

    /// Check that sending ends at its deadline when nobody receives.
    #[test]
    fn sending_ends_at_its_deadline() {
        let (ours, _theirs) = pair();
        let deadline = Some(Instant::now() + Duration::from_millis(20));
        let frame = vec![0; LIMITS.bytes_max];
        let err = ours.send(&frame, &[], deadline).unwrap_err();
        assert!(matches!(err, FrameError::TimedOut), "{err}");
    }

    /// Check that descriptors arrive with their frame, in their order and closed on exec.
    #[test]
    fn descriptors_arrive_with_their_frame() {
        let (ours, theirs) = pair();
        let [null, zero] = ["/dev/null", "/dev/zero"].map(|path| File::open(path).unwrap());
        let (mut frame, mut files) = (Vec::new(), Vec::new());
        let both = [zero.as_fd(), null.as_fd()];
        for sent in [&both[..], &[], &both[1..]] {
            ours.send(b"frame", sent, None).unwrap();
        }
        for count in [2, 0, 1] {
            let received = theirs.receive_with_files(&mut frame, &mut files, None);
            assert_eq!(received.unwrap(), Received::Frame);
            assert_eq!(files.len(), count);
            for file in &files {
                let flags = rustix::io::fcntl_getfd(file).unwrap();
                assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
            }
        }
        let is_null = rustix::fs::fstat(&files[0]).unwrap().st_rdev
            == rustix::fs::fstat(&null).unwrap().st_rdev;
        assert!(is_null);
    }

    /// Check that more descriptors than allowed are refused and closed, also when each byte of the length brings some.
    #[test]
    fn too_many_descriptors_are_refused() {
        let (ours, theirs) = pair();
        let (mut read, write) = io::pipe().unwrap();
        for byte in [1, 0, 0, 0] {
            send_with_files(&ours.socket, &[byte], &[write.as_fd()]).unwrap();
        }
        drop(write);
        let (mut frame, mut files) = (Vec::new(), Vec::new());
        let err = theirs.receive_with_files(&mut frame, &mut files, None);
        assert!(matches!(err, Err(FrameError::TooManyFiles { max: 2 })));
        assert!(files.is_empty());
        drop((ours, theirs));
        let read = read.read(&mut [0]).unwrap();
        assert_eq!(read, 0, "a copy of the write end is open");
    }

    /// Check that the kernel closes descriptors beside a frame that is received without them.
    #[test]
    fn unwanted_descriptors_are_closed() {
        let (ours, theirs) = pair();
        let (mut read, write) = io::pipe().unwrap();
        ours.send(b"frame", &[write.as_fd()], None).unwrap();
        drop(write);
        let received = theirs.receive(&mut Vec::new(), None);
        assert_eq!(received.unwrap(), Received::Frame);
        let read = read.read(&mut [0]).unwrap();
        assert_eq!(read, 0, "a copy of the write end is open");
    }
}
