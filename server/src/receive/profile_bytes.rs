//! The bytes of a compressed profile. Pure.
//!
//! A small profile is decompressed once. A large one is decompressed for each walk, through a window of 8 MiB, until
//! it is accepted: zstd makes 256 MiB out of 24 KB.

use std::borrow::Cow;
use std::io::{self, BufReader};

use super::refusal::{Refusal, RefusalReason};
use super::wire::Wire;

/// Profiles up to this length are decompressed at once.
const PLAIN_BYTES_MAX: u64 = 4 << 20;

/// Window of a frame, as a power of two: 8 MiB, what a decoder of zstd should support, and all that levels up to 19 use.
const WINDOW_LOG_MAX: u32 = 23;

/// Bytes decompressed at a time.
const CHUNK_BYTES: usize = 64 << 10;

/// The bytes of a profile.
pub enum ProfileBytes<'a> {
    /// All of them.
    Plain(Cow<'a, [u8]>),
    /// A zstd frame that has them.
    Compressed(Frame<'a>),
}

/// A zstd frame, and the number of bytes in it.
#[derive(Clone, Copy)]
pub struct Frame<'a> {
    zstd: &'a [u8],
    length: u64,
}

impl<'a> ProfileBytes<'a> {
    /// The profile in a zstd frame, of `stated` bytes: a bound for the decompression of a small frame.
    ///
    /// # Errors
    /// The frame has another length.
    pub fn new(zstd: &'a [u8], stated: u64) -> Result<Self, Refusal> {
        if stated > PLAIN_BYTES_MAX {
            return Ok(Self::Compressed(Frame {
                zstd,
                length: stated,
            }));
        }
        Ok(Self::Plain(Cow::Owned(decompress(zstd, stated)?)))
    }

    /// Its length.
    pub fn length(&self) -> u64 {
        match self {
            Self::Plain(bytes) => bytes.len() as u64,
            Self::Compressed(frame) => frame.length,
        }
    }

    /// Decompresses all of it.
    ///
    /// # Errors
    /// The frame has another length.
    pub fn decompress_all(self) -> Result<Self, Refusal> {
        match self {
            Self::Plain(_) => Ok(self),
            Self::Compressed(Frame { zstd, length }) => {
                Ok(Self::Plain(Cow::Owned(decompress(zstd, length)?)))
            }
        }
    }
}

impl<'a> Frame<'a> {
    /// Walks the bytes from their start.
    ///
    /// # Errors
    /// zstd has no memory.
    pub fn walk(&self) -> Result<Wire<Unpacked<'a>>, Refusal> {
        let failed = |err: io::Error| fails_to_decompress(self.length, &err);
        let mut decoder = zstd::stream::read::Decoder::with_buffer(self.zstd).map_err(failed)?;
        decoder.window_log_max(WINDOW_LOG_MAX).map_err(failed)?;
        let source = BufReader::with_capacity(CHUNK_BYTES, decoder);
        Ok(Wire::new(source, self.length))
    }

    /// Checks that nothing follows the stated length.
    ///
    /// # Errors
    /// The frame has more bytes.
    pub fn check_end(&self, wire: &mut Wire<Unpacked<'_>>) -> Result<(), Refusal> {
        let stated = self.length;
        match wire.is_at_end_of_source() {
            Ok(true) => Ok(()),
            Ok(false) => Err(compression(format!(
                "profile_zstd does not decompress to {stated} bytes: it has more"
            ))),
            Err(err) => Err(fails_to_decompress(stated, &err)),
        }
    }
}

/// The bytes in a zstd frame.
pub type Unpacked<'a> = BufReader<zstd::stream::read::Decoder<'a, &'a [u8]>>;

/// The refusal of a frame of which `stated` bytes were to be decompressed.
pub fn fails_to_decompress(stated: u64, err: &io::Error) -> Refusal {
    compression(format!(
        "profile_zstd does not decompress to {stated} bytes: {err}"
    ))
}

fn decompress(zstd: &[u8], stated: u64) -> Result<Vec<u8>, Refusal> {
    let bytes = zstd::bulk::decompress(zstd, stated as usize)
        .map_err(|err| fails_to_decompress(stated, &err))?;
    if bytes.len() as u64 != stated {
        return Err(compression(format!(
            "profile_bytes is {stated}, and profile_zstd decompresses to {}",
            bytes.len()
        )));
    }
    Ok(bytes)
}

fn compression(message: String) -> Refusal {
    Refusal::new(RefusalReason::Compression, message)
}
