//! Digests of windows.

use std::hash::{Hash, Hasher};

use crate::window::{Window, WindowHead};

/// Bytes that are hashed at a time: BLAKE3 is many times faster with several KiB than with the four bytes of a number.
const BUFFER_BYTES: usize = 16 << 10;

/// A hasher whose result depends on the bytes alone, and is long enough to tell contents apart.
struct ContentHasher {
    hasher: blake3::Hasher,
    buffer: Vec<u8>,
}

impl ContentHasher {
    fn new() -> Self {
        Self {
            hasher: blake3::Hasher::new(),
            buffer: Vec::with_capacity(BUFFER_BYTES),
        }
    }

    fn digest(&mut self) -> [u8; 16] {
        self.hasher.update(&self.buffer);
        self.buffer.clear();
        let digest = self.hasher.finalize();
        *digest.as_bytes().first_chunk().unwrap_or(&[0; 16])
    }
}

impl Hasher for ContentHasher {
    /// Of what was hashed by now; nobody asks for it.
    fn finish(&self) -> u64 {
        let digest = self.hasher.finalize();
        u64::from_le_bytes(*digest.as_bytes().first_chunk().unwrap_or(&[0; 8]))
    }

    fn write(&mut self, bytes: &[u8]) {
        if self.buffer.len() + bytes.len() > BUFFER_BYTES {
            self.hasher.update(&self.buffer);
            self.buffer.clear();
        }
        if bytes.len() >= BUFFER_BYTES {
            self.hasher.update(bytes);
        } else {
            self.buffer.extend_from_slice(bytes);
        }
    }
}

impl Window {
    /// A digest of all that the window has: equal for a message that is sent again, and different for another content. 128 bits of
    /// BLAKE3. A later version of this crate may give another digest.
    pub fn digest(&self) -> [u8; 16] {
        let Self {
            head,
            series,
            tables,
            rows,
            containers,
        } = self;
        let WindowHead {
            key,
            node,
            window_ms,
            account,
            profile,
        } = head;
        let mut hasher = ContentHasher::new();
        (key, node, window_ms, account, profile).hash(&mut hasher);
        (series, tables, rows, containers).hash(&mut hasher);
        hasher.digest()
    }
}

#[cfg(test)]
mod tests {
    use crate::text::window;

    /// Check that equal windows have equal digests, and that each part of a window is in it.
    #[test]
    fn digests_are_of_the_content() {
        let text = "comm=a | main 0x1f@/lib/b.so | 3 | thread=x";
        let first = window(text);
        assert_eq!(first.digest(), window(text).digest());
        for other in [
            "comm=a | main 0x1f@/lib/b.so | 4 | thread=x",
            "comm=a | main 0x1f@/lib/b.so | 3 | thread=y",
            "comm=a | main 0x2f@/lib/b.so | 3 | thread=x",
            "comm=b | main 0x1f@/lib/b.so | 3 | thread=x",
        ] {
            assert_ne!(first.digest(), window(other).digest(), "{other}");
        }
        let mut other = first.clone();
        other.head.account.stolen_ns = 1;
        assert_ne!(first.digest(), other.digest());
        let mut other = first.clone();
        other.head.key.sequence += 1;
        assert_ne!(first.digest(), other.digest());
    }
}
