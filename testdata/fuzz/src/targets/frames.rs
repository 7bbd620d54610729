//! Frames between a program and its confined child: whatever one side writes, the other reads whole frames or refuses.

use std::io::Write;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;

use sandbox::{Channel, FrameLimits, Received};

const LIMITS: FrameLimits = FrameLimits { bytes_max: 4096, files_max: 2 };

pub(crate) fn run(input: &[u8]) {
    let (ours, mut theirs) = UnixStream::pair().expect("there are descriptors left");
    // Less than a socket holds: nobody reads yet.
    let input = &input[..input.len().min(64 << 10)];
    theirs.write_all(input).expect("the socket has room");
    theirs.shutdown(Shutdown::Write).expect("the socket is open");
    let ours = Channel::new(ours, LIMITS);
    let (mut frame, mut files) = (Vec::new(), Vec::new());
    let mut left = input;
    loop {
        match ours.receive_with_files(&mut frame, &mut files, None) {
            Ok(Received::Frame) => {
                let (length, rest) = left.split_first_chunk().expect("a frame has a length");
                let (sent, rest) = rest.split_at(u32::from_le_bytes(*length) as usize);
                assert!(frame == sent && frame.len() <= LIMITS.bytes_max && files.is_empty());
                left = rest;
            }
            Ok(Received::Closed) => return assert!(left.is_empty()),
            Err(_) => return assert!(!left.is_empty()),
        }
    }
}

pub(crate) fn make_seeds() -> Vec<Vec<u8>> {
    let frame = |bytes: &[u8]| [&(bytes.len() as u32).to_le_bytes(), bytes].concat();
    vec![[frame(b"first"), frame(b""), frame(&[7; 4096])].concat(), frame(&[7; 4097]), b"\x05\0\0\0cut".to_vec()]
}
