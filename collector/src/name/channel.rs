//! Frames over a socket, with open files beside them; both sides use it.
//!
//! In and out: whole frames of at most [`FRAME_BYTES_MAX`] bytes. Never looks
//! into them.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

use super::protocol::{FRAME_BYTES_MAX, SPLIT_FILES_MAX};

/// Until when a frame must have gone or come.
#[derive(Clone, Copy, Debug)]
pub(super) enum Deadline {
    /// Wait as long as it takes.
    Never,
    /// Give up then.
    At(Instant),
}

impl Deadline {
    /// The time that is left, as sockets take it.
    fn left(self) -> io::Result<Option<Duration>> {
        match self {
            Self::Never => Ok(None),
            Self::At(at) => match at.checked_duration_since(Instant::now()) {
                Some(left) if !left.is_zero() => Ok(Some(left)),
                _ => Err(io::ErrorKind::TimedOut.into()),
            },
        }
    }
}

/// Files beside one frame: an executable, the one with its debug information, the one that shares some with others, a
/// package of split parts, and single ones. The kernel takes 253.
pub(super) const FILES_MAX: usize = 4 + SPLIT_FILES_MAX;

/// Sends one frame, with at most [`FILES_MAX`] files beside its first byte.
pub(super) fn send_frame(
    socket: &UnixStream,
    frame: &[u8],
    files: &[BorrowedFd<'_>],
    deadline: Deadline,
) -> io::Result<()> {
    let length = u32::try_from(frame.len())
        .ok()
        .filter(|_| frame.len() <= FRAME_BYTES_MAX)
        .ok_or(io::ErrorKind::InvalidInput)?
        .to_le_bytes();
    socket.set_write_timeout(deadline.left()?)?;
    let mut sent = match files {
        [] => 0,
        files => send_with_files(socket, &length, files)?,
    };
    for bytes in [&length[..], frame] {
        let mut left = bytes.get(sent..).unwrap_or_default();
        sent = sent.saturating_sub(bytes.len());
        while !left.is_empty() {
            socket.set_write_timeout(deadline.left()?)?;
            match (&mut &*socket).write(left) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => left = &left[written..],
                Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
                Err(err) => return Err(as_timed_out(err)),
            }
        }
    }
    Ok(())
}

/// Receives one frame into `frame`, and the files beside it into `files`. `false`: the other
/// side closed the socket between two frames.
pub(super) fn receive_frame(
    socket: &UnixStream,
    frame: &mut Vec<u8>,
    files: &mut Vec<OwnedFd>,
    deadline: Deadline,
) -> io::Result<bool> {
    let mut length = [0; 4];
    let mut filled = 0;
    while filled < length.len() {
        socket.set_read_timeout(deadline.left()?)?;
        match receive_with_files(socket, &mut length[filled..], files) {
            Ok(0) if filled == 0 => return Ok(false),
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => filled += read,
            Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
            Err(err) => return Err(as_timed_out(err)),
        }
    }
    let length = u32::from_le_bytes(length) as usize;
    if length > FRAME_BYTES_MAX {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("frame of {length} bytes is over the limit of {FRAME_BYTES_MAX}"),
        ));
    }
    frame.clear();
    while frame.len() < length {
        // Grown as the bytes come, so that a length alone costs nothing.
        let start = frame.len();
        frame.resize(length.min(start + (64 << 10)), 0);
        socket.set_read_timeout(deadline.left()?)?;
        match (&mut &*socket).read(&mut frame[start..]) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => frame.truncate(start + read),
            Err(err) if err.kind() == io::ErrorKind::Interrupted => frame.truncate(start),
            Err(err) => return Err(as_timed_out(err)),
        }
    }
    Ok(true)
}

/// A socket's own time-out reads as `WouldBlock`.
fn as_timed_out(err: io::Error) -> io::Error {
    match err.kind() {
        io::ErrorKind::WouldBlock => io::ErrorKind::TimedOut.into(),
        _ => err,
    }
}

fn send_with_files(
    socket: &UnixStream,
    bytes: &[u8],
    files: &[BorrowedFd<'_>],
) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FILES_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(files)) {
        return Err(io::ErrorKind::OutOfMemory.into());
    }
    sendmsg(
        socket,
        &[IoSlice::new(bytes)],
        &mut control,
        SendFlags::NOSIGNAL,
    )
    .map_err(|err| as_timed_out(err.into()))
}

fn receive_with_files(
    socket: &UnixStream,
    bytes: &mut [u8],
    files: &mut Vec<OwnedFd>,
) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FILES_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(
        socket,
        &mut [IoSliceMut::new(bytes)],
        &mut control,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            // There is room for so many; further ones are closed by the kernel.
            files.extend(received);
        }
    }
    Ok(received.bytes)
}
