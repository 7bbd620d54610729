//! Bytes that are written on the account of a question.

use std::io::{self, Write};

use crate::question::{Charge, Stop};

/// The least growth: a small answer is one.
const GROWTH_MIN: usize = 16 << 10;

/// A buffer that grows on the account of a question. Writing to it fails when the question is stopped, and stops it beyond its limit.
#[derive(Debug)]
pub struct ChargedBuffer {
    bytes: Vec<u8>,
    bytes_max: usize,
    charge: Charge,
}

impl ChargedBuffer {
    /// At most so many bytes, on the account of this charge.
    pub fn new(charge: Charge, bytes_max: usize) -> Self {
        Self {
            bytes: Vec::new(),
            bytes_max,
            charge,
        }
    }

    /// Gives back the memory that is not needed for what was written.
    pub fn shrink(&mut self) {
        self.bytes.shrink_to_fit();
        // It never grows by this.
        let _shrunk = self.charge.set(self.bytes.capacity());
    }

    fn make_room(&mut self, length: usize) -> Result<(), Stop> {
        if self.bytes.len() + length > self.bytes_max {
            let bytes_max = self.bytes_max;
            return Err(self.charge.stop(Stop::LongAnswer { bytes_max }));
        }
        if self.bytes.capacity() - self.bytes.len() < length {
            let growth = length.max(self.bytes.capacity()).max(GROWTH_MIN);
            let growth = growth.min(self.bytes_max - self.bytes.len());
            self.charge.set(self.bytes.len() + growth)?;
            self.bytes.reserve_exact(growth);
        }
        Ok(())
    }
}

impl AsRef<[u8]> for ChargedBuffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Write for ChargedBuffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.make_room(bytes.len()).map_err(io::Error::other)?;
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.charge.check().map_err(io::Error::other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::question::{Question, QuestionMemory};

    #[test]
    fn bytes_are_charged_until_they_are_dropped() {
        let memory = QuestionMemory::new(1 << 20);
        let question = Question::new(memory.clone());
        let mut buffer = ChargedBuffer::new(question.charge(0).unwrap(), 1 << 20);
        for _ in 0..100 {
            buffer.write_all(&[7; 1000]).unwrap();
        }
        assert!(memory.used() > 100_000 && memory.used() < 300_000);
        buffer.shrink();
        assert_eq!(
            (buffer.as_ref(), memory.used()),
            (&[7; 100_000][..], 100_000)
        );
        drop(buffer);
        assert_eq!(memory.used(), 0);
    }

    #[test]
    fn a_long_answer_and_one_without_memory_stop_the_question() {
        for (memory_max, bytes_max) in [(1 << 20, 100_000), (50_000, 1 << 20)] {
            let question = Question::new(QuestionMemory::new(memory_max));
            let mut buffer = ChargedBuffer::new(question.charge(0).unwrap(), bytes_max);
            let written = (0..200).take_while(|_| buffer.write_all(&[7; 1000]).is_ok());
            assert!(written.count() <= 100);
            let stop = question.stopped().unwrap();
            match memory_max {
                50_000 => assert!(matches!(stop, Stop::TooLarge { .. }), "{stop}"),
                _ => assert_eq!(stop, Stop::LongAnswer { bytes_max }),
            }
        }
    }
}
