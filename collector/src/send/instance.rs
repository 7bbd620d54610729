//! The collector's name in its messages.

use rustix::rand::{GetRandomFlags, getrandom};

use crate::clock::unix_ns;

/// 16 random bytes, or without a source of them the time and the process number,
/// which no other collector has at the same time on the same node.
pub fn draw_instance() -> [u8; 16] {
    let mut instance = [0; 16];
    if getrandom(&mut instance, GetRandomFlags::empty()) != Ok(instance.len()) {
        instance[..8].copy_from_slice(&unix_ns().to_le_bytes());
        instance[8..12].copy_from_slice(&std::process::id().to_le_bytes());
    }
    instance
}
