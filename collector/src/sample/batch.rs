//! Bytes of the ring -> samples.

use std::{mem, ops::Range, sync::Arc};

use profiler_bpf::{
    outcome::Outcome,
    record::{
        FLAG_PROOF, FLAG_STACK_COPIED, FLAG_USER_LEAF_EXACT, HEADER_BYTES, KIND_SAMPLE, KIND_STACK,
        STACK_HEADER_BYTES,
    },
    settings::{
        KERNEL_FRAMES_MAX, STACK_COPY_BYTES_MAX, STACK_END_BYTES, USER_FRAMES_MAX,
        WALKED_FRAMES_MAX,
    },
};
use thiserror::Error;

use crate::unwind::{AllRegisters, StackCopy};

/// Samples that were drained together. Their frames lie in one vector, so that a
/// drain allocates nothing once the vectors have grown.
#[derive(Debug, Default)]
pub struct Batch {
    samples: Vec<Sample>,
    frames: Vec<u64>,
    /// Copies whose sample has not been decoded yet, by processor and time. The sample is the next
    /// record of the processor, unless the ring was full.
    unpaired: Vec<((u32, u64), Arc<CopiedStack>)>,
    evicted_stacks: u64,
}

/// A copy of the top of a stack, and the registers of the code that it belongs to.
#[derive(Debug, PartialEq, Eq)]
pub struct CopiedStack {
    /// By their DWARF numbers; the last is the instruction pointer.
    pub registers: AllRegisters,
    /// Address of the first byte, a little below the stack pointer.
    pub address: u64,
    /// The stack's bytes.
    pub bytes: Box<[u8]>,
    /// Address of the first byte that was copied from the end of a large stack.
    pub end_address: u64,
    /// The bytes of that end; empty for a small stack.
    pub end_bytes: Box<[u8]>,
}

impl CopiedStack {
    /// The word at an address, if it was copied.
    pub fn read(&self, address: u64) -> Option<u64> {
        let parts = [
            (self.address, &self.bytes),
            (self.end_address, &self.end_bytes),
        ];
        parts.into_iter().find_map(|(address_of_first, bytes)| {
            StackCopy {
                address: address_of_first,
                bytes,
            }
            .read(address)
        })
    }

    /// Bytes of memory.
    pub fn len(&self) -> usize {
        self.bytes.len() + self.end_bytes.len()
    }

    /// Whether nothing was copied.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the stack may be larger than its copy.
    pub fn is_cut(&self) -> bool {
        self.bytes.len() >= STACK_COPY_BYTES_MAX
    }
}

/// Bytes of copies that wait for their samples: 21 of the largest. Usually no copy waits at the end of a drain.
const UNPAIRED_BYTES_MAX: usize = 4 << 20;

/// How long a copy waits for its sample. The program sends both in one run, which takes long only if the hypervisor stops the
/// virtual processor in the middle of it.
const UNPAIRED_KEPT_NS: u64 = 1_000_000_000;

/// One sample.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Nanoseconds of CLOCK_MONOTONIC.
    pub time_ns: u64,
    /// Process id in the initial PID namespace.
    pub pid: u32,
    /// Thread id in the initial PID namespace.
    pub tid: u32,
    /// Id of the cgroup, 0 if not known.
    pub cgroup_id: u64,
    /// The thread's name, padded with zeros.
    pub comm: [u8; 16],
    /// The outcome of the user stack.
    pub outcome: Outcome,
    /// Whether the first user frame is the interrupted instruction itself.
    pub user_leaf_exact: bool,
    /// User frames walked. Beyond [`USER_FRAMES_MAX`], each frame overwrites the oldest one, as in a ring.
    pub user_walked: usize,
    /// Identity of the address space. It tells apart two processes that had the same id one after the other.
    pub identity: u64,
    /// Version of the mappings that the eBPF program walked with, 0 for none.
    pub version: u32,
    /// The copy of its stack, if there is one.
    pub stack: Option<Arc<CopiedStack>>,
    /// Whether the copy serves to check the walk with the second unwinder.
    pub is_proof: bool,
    user: Range<usize>,
    kernel: Range<usize>,
}

impl Sample {
    /// The sample without the copy of its stack.
    pub fn without_stack(&self) -> Self {
        Self {
            stack: None,
            ..self.clone()
        }
    }

    /// The thread's name, as text.
    pub fn thread_name(&self) -> Arc<str> {
        let end = self.comm.iter().position(|byte| *byte == 0);
        String::from_utf8_lossy(&self.comm[..end.unwrap_or(self.comm.len())]).into()
    }
}

/// Why bytes are no record.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum DecodeError {
    /// The record is shorter than its header or than its frames.
    #[error("the record has {got} bytes and needs {need}")]
    Short {
        /// Bytes that a record of this shape needs.
        need: usize,
        /// Bytes that are there.
        got: usize,
    },
    /// A kind of record, an outcome or a length that this version does not know.
    #[error("the record's {field} is {value}")]
    Unknown {
        /// The header's field.
        field: &'static str,
        /// Its value.
        value: u64,
    },
}

impl Batch {
    /// Decodes one record and adds it.
    ///
    /// # Errors
    /// Bytes that are no record change nothing.
    pub fn push_record(&mut self, bytes: &[u8]) -> Result<(), DecodeError> {
        let short = |need| DecodeError::Short {
            need,
            got: bytes.len(),
        };
        if bytes.first() == Some(&KIND_STACK) {
            return self.push_stack(bytes);
        }
        let header: &[u8; HEADER_BYTES] = bytes.first_chunk().ok_or_else(|| short(HEADER_BYTES))?;
        let known = |field, value: u64, ok: bool| {
            ok.then_some(())
                .ok_or(DecodeError::Unknown { field, value })
        };
        known("kind", header[0].into(), header[0] == KIND_SAMPLE)?;
        let outcome = Outcome::from_number(header[1]).ok_or(DecodeError::Unknown {
            field: "outcome",
            value: header[1].into(),
        })?;
        let user_len = usize::from(u16_at(header, 56));
        let kernel_len = usize::from(u16_at(header, 58));
        let user_walked = usize::from(u16_at(header, 60));
        known("user_len", user_len as u64, user_len <= USER_FRAMES_MAX)?;
        known(
            "user_walked",
            user_walked as u64,
            (user_len..=WALKED_FRAMES_MAX).contains(&user_walked),
        )?;
        known(
            "kernel_len",
            kernel_len as u64,
            kernel_len <= KERNEL_FRAMES_MAX,
        )?;
        let need = HEADER_BYTES + (user_len + kernel_len) * 8;
        let frames = bytes.get(HEADER_BYTES..need).ok_or_else(|| short(need))?;

        let begin = self.frames.len();
        let (frames, _) = frames.as_chunks();
        self.frames
            .extend(frames.iter().map(|frame| u64::from_ne_bytes(*frame)));
        let mut comm = [0; 16];
        comm.copy_from_slice(&header[40..56]);
        let (cpu, time_ns) = (u32_at(header, 4), u64_at(header, 8));
        let stack = match header[2] & FLAG_STACK_COPIED {
            0 => None,
            _ => self.take_stack(cpu, time_ns),
        };
        self.evict_stacks_before((cpu, time_ns));
        self.samples.push(Sample {
            time_ns,
            cgroup_id: u64_at(header, 24),
            pid: u32_at(header, 32),
            tid: u32_at(header, 36),
            comm,
            outcome,
            user_leaf_exact: header[2] & FLAG_USER_LEAF_EXACT != 0,
            user_walked,
            identity: u64_at(header, 64),
            version: u32_at(header, 72),
            is_proof: stack.is_some() && header[2] & FLAG_PROOF != 0,
            stack,
            user: begin..begin + user_len,
            kernel: begin + user_len..begin + user_len + kernel_len,
        });
        Ok(())
    }

    /// Decodes the copy of a stack, which waits for its sample.
    fn push_stack(&mut self, bytes: &[u8]) -> Result<(), DecodeError> {
        let short = |need| DecodeError::Short {
            need,
            got: bytes.len(),
        };
        let header: &[u8; STACK_HEADER_BYTES] = bytes
            .first_chunk()
            .ok_or_else(|| short(STACK_HEADER_BYTES))?;
        let len = u32_at(header, 16) as usize;
        if len > STACK_COPY_BYTES_MAX {
            return Err(DecodeError::Unknown {
                field: "stack_bytes",
                value: len as u64,
            });
        }
        let need = STACK_HEADER_BYTES + len;
        let stack = bytes
            .get(STACK_HEADER_BYTES..need)
            .ok_or_else(|| short(need))?;
        let end_len = u32_at(header, 32) as usize;
        if end_len > STACK_END_BYTES {
            return Err(DecodeError::Unknown {
                field: "end_bytes",
                value: end_len as u64,
            });
        }
        let end_at = STACK_HEADER_BYTES + STACK_COPY_BYTES_MAX;
        let end = match end_len {
            0 => &[],
            _ => bytes
                .get(end_at..end_at + end_len)
                .ok_or_else(|| short(end_at + end_len))?,
        };
        let registers: AllRegisters = std::array::from_fn(|place| u64_at(header, 40 + 8 * place));
        let stack = CopiedStack {
            registers,
            address: registers[7].wrapping_sub(u32_at(header, 20).into()),
            bytes: stack.into(),
            end_address: u64_at(header, 24),
            end_bytes: end.into(),
        };
        let key = (u32_at(header, 4), u64_at(header, 8));
        self.evict_stacks_before(key);
        self.unpaired.push((key, Arc::new(stack)));
        let mut bytes: usize = self.unpaired.iter().map(|(_, stack)| stack.len()).sum();
        self.evict_stacks(|_, stack| {
            let is_evicted = bytes > UNPAIRED_BYTES_MAX;
            if is_evicted {
                bytes -= stack.len();
            }
            is_evicted
        });
        Ok(())
    }

    /// Drops the copies whose samples were lost: a later record of their processor has come.
    fn evict_stacks_before(&mut self, (cpu, time_ns): (u32, u64)) {
        self.evict_stacks(|key, _| key.0 == cpu && key.1 < time_ns);
    }

    fn evict_stacks(&mut self, mut is_evicted: impl FnMut((u32, u64), &CopiedStack) -> bool) {
        let before = self.unpaired.len();
        self.unpaired
            .retain(|(key, stack)| !is_evicted(*key, stack));
        self.evicted_stacks += (before - self.unpaired.len()) as u64;
    }

    /// Number of copies that were dropped since the last call, as their samples did not come.
    pub fn take_evicted_stacks(&mut self) -> u64 {
        mem::take(&mut self.evicted_stacks)
    }

    fn take_stack(&mut self, cpu: u32, time_ns: u64) -> Option<Arc<CopiedStack>> {
        let key = (cpu, time_ns);
        let place = self
            .unpaired
            .iter()
            .position(|(unpaired, _)| *unpaired == key)?;
        Some(self.unpaired.swap_remove(place).1)
    }

    /// Samples in this batch.
    pub fn samples(&self) -> &[Sample] {
        &self.samples
    }

    /// A sample's user frames, innermost first.
    pub fn user_frames(&self, sample: &Sample) -> &[u64] {
        &self.frames[sample.user.clone()]
    }

    /// A sample's kernel frames, innermost first.
    pub fn kernel_frames(&self, sample: &Sample) -> &[u64] {
        &self.frames[sample.kernel.clone()]
    }

    /// Sorts the samples by time.
    pub fn sort_by_time(&mut self) {
        self.samples.sort_by_key(|sample| sample.time_ns);
    }

    /// Moves the samples after `time_ns` into a batch of their own.
    pub fn split_after(&mut self, time_ns: u64) -> Self {
        // The next drain is about as large.
        let mut later = Self {
            samples: Vec::with_capacity(self.samples.len()),
            frames: Vec::with_capacity(self.frames.len()),
            ..Self::default()
        };
        self.samples.retain(|sample| {
            let is_kept = sample.time_ns <= time_ns;
            if !is_kept {
                later.push_copy(sample, &self.frames);
            }
            is_kept
        });
        // Copies stay queued with the later samples: their own samples may come with the next drain.
        self.evict_stacks(|(_, copied_ns), _| copied_ns.saturating_add(UNPAIRED_KEPT_NS) < time_ns);
        later.unpaired = mem::take(&mut self.unpaired);
        later.evicted_stacks = mem::take(&mut self.evicted_stacks);
        later
    }

    /// Adds a sample of another batch.
    pub fn push_sample(&mut self, other: &Self, sample: &Sample) {
        self.push_copy(sample, &other.frames);
    }

    fn push_copy(&mut self, sample: &Sample, frames: &[u64]) {
        let begin = self.frames.len();
        let user_len = sample.user.len();
        self.frames.extend_from_slice(&frames[sample.user.clone()]);
        self.frames
            .extend_from_slice(&frames[sample.kernel.clone()]);
        self.samples.push(Sample {
            user: begin..begin + user_len,
            kernel: begin + user_len..self.frames.len(),
            ..sample.clone()
        });
    }

    /// Empties the batch and keeps its memory.
    pub fn clear(&mut self) {
        self.samples.clear();
        self.frames.clear();
    }
}

fn u16_at(header: &[u8], at: usize) -> u16 {
    u16::from_ne_bytes([header[at], header[at + 1]])
}

fn u32_at(header: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
}

fn u64_at(header: &[u8], at: usize) -> u64 {
    u64::from(u32_at(header, at)) | u64::from(u32_at(header, at + 4)) << 32
}

#[cfg(test)]
pub(crate) mod testing {
    use std::mem::offset_of;

    use profiler_bpf::record::{SampleHeader, StackHeader};

    use super::*;

    /// A record of a process with these user and kernel frames.
    pub(crate) fn sample_record(pid: u32, time_ns: u64, user: &[u64], kernel: &[u64]) -> Vec<u8> {
        let mut bytes = vec![0; HEADER_BYTES];
        bytes[0] = KIND_SAMPLE;
        bytes[offset_of!(SampleHeader, time_ns)..][..8].copy_from_slice(&time_ns.to_ne_bytes());
        bytes[offset_of!(SampleHeader, pid)..][..4].copy_from_slice(&pid.to_ne_bytes());
        bytes[offset_of!(SampleHeader, tid)..][..4].copy_from_slice(&(pid + 1).to_ne_bytes());
        bytes[offset_of!(SampleHeader, cgroup_id)..][..8].copy_from_slice(&7u64.to_ne_bytes());
        bytes[offset_of!(SampleHeader, comm)..][..3].copy_from_slice(b"abc");
        let user_len = user.len() as u16;
        let kernel_len = kernel.len() as u16;
        bytes[offset_of!(SampleHeader, user_len)..][..2].copy_from_slice(&user_len.to_ne_bytes());
        bytes[offset_of!(SampleHeader, user_walked)..][..2]
            .copy_from_slice(&user_len.to_ne_bytes());
        bytes[offset_of!(SampleHeader, identity)..][..8].copy_from_slice(&77u64.to_ne_bytes());
        bytes[offset_of!(SampleHeader, version)..][..4].copy_from_slice(&88u32.to_ne_bytes());
        bytes[offset_of!(SampleHeader, kernel_len)..][..2]
            .copy_from_slice(&kernel_len.to_ne_bytes());
        for frame in user.iter().chain(kernel) {
            bytes.extend(frame.to_ne_bytes());
        }
        bytes
    }

    /// The copy of a stack, of processor 0.
    pub(crate) fn stack_record(time_ns: u64, stack: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; STACK_HEADER_BYTES];
        bytes[0] = KIND_STACK;
        bytes[offset_of!(StackHeader, time_ns)..][..8].copy_from_slice(&time_ns.to_ne_bytes());
        let len = stack.len() as u32;
        bytes[offset_of!(StackHeader, stack_bytes)..][..4].copy_from_slice(&len.to_ne_bytes());
        bytes[offset_of!(StackHeader, below_sp)..][..4].copy_from_slice(&20u32.to_ne_bytes());
        for number in 0..17u64 {
            let at = offset_of!(StackHeader, registers) + 8 * number as usize;
            bytes[at..][..8].copy_from_slice(&(100 + number).to_ne_bytes());
        }
        bytes.extend(stack);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use std::mem::offset_of;

    use profiler_bpf::record::{SampleHeader, StackHeader};

    use super::{
        testing::{sample_record as record, stack_record},
        *,
    };

    /// Check that every field is read from where the program puts it.
    #[test]
    fn fields() {
        let mut batch = Batch::default();
        let user = [1, 2, u64::MAX];
        batch.push_record(&record(5, 99, &user, &[8, 9])).unwrap();
        let sample = &batch.samples()[0];
        assert_eq!((sample.pid, sample.tid, sample.time_ns), (5, 6, 99));
        assert_eq!((sample.cgroup_id, &sample.comm[..4]), (7, &b"abc\0"[..]));
        assert_eq!((sample.identity, sample.version), (77, 88));
        assert_eq!(batch.user_frames(sample), user);
        assert_eq!(batch.kernel_frames(sample), [8, 9]);
    }

    /// Check that a record cut anywhere is refused and changes nothing.
    #[test]
    fn truncated() {
        let bytes = record(5, 99, &[1, 2, 3], &[8, 9]);
        let mut batch = Batch::default();
        for len in 0..bytes.len() {
            let error = batch.push_record(&bytes[..len]).unwrap_err();
            assert!(matches!(error, DecodeError::Short { got, .. } if got == len));
        }
        assert!(batch.samples().is_empty());
    }

    /// Check that lengths and kinds that no program writes are refused.
    #[test]
    fn unknown_values() {
        for (at, value, field) in [
            (0, 9, "kind"),
            (1, 200, "outcome"),
            (offset_of!(SampleHeader, user_len) + 1, 0xff, "user_len"),
            (
                offset_of!(SampleHeader, user_walked) + 1,
                0xff,
                "user_walked",
            ),
            (offset_of!(SampleHeader, user_walked), 0, "user_walked"),
            (offset_of!(SampleHeader, kernel_len) + 1, 0xff, "kernel_len"),
        ] {
            let mut bytes = record(5, 99, &[1], &[]);
            bytes[at] = value;
            match Batch::default().push_record(&bytes) {
                Err(DecodeError::Unknown { field: got, .. }) => assert_eq!(got, field),
                other => panic!("{field}: {other:?}"),
            }
        }
    }

    /// Check that a copied stack belongs to the sample of its processor and time, and to no other; and
    /// that a record may be longer than its stack.
    #[test]
    fn stacks_find_their_samples() {
        let mut batch = Batch::default();
        batch
            .push_record(&[stack_record(20, b"abc"), vec![9; 50]].concat())
            .unwrap();
        batch.push_record(&stack_record(10, b"de")).unwrap();
        for time in [10, 20, 30] {
            let mut bytes = record(1, time, &[1], &[]);
            bytes[offset_of!(SampleHeader, flags)] = FLAG_STACK_COPIED;
            batch.push_record(&bytes).unwrap();
        }
        let stacks: Vec<Option<&[u8]>> = batch
            .samples()
            .iter()
            .map(|sample| sample.stack.as_ref().map(|stack| &*stack.bytes))
            .collect();
        assert_eq!(stacks, [Some(&b"de"[..]), Some(b"abc"), None]);
        batch.push_record(&stack_record(40, b"f")).unwrap();
        let mut later = batch.split_after(40);
        let mut bytes = record(1, 40, &[1], &[]);
        bytes[offset_of!(SampleHeader, flags)] = FLAG_STACK_COPIED;
        later.push_record(&bytes).unwrap();
        assert_eq!(*later.samples()[0].stack.as_ref().unwrap().bytes, *b"f");
        let registers = batch.samples()[0].stack.as_ref().unwrap().registers;
        assert_eq!((registers[0], registers[7], registers[16]), (100, 107, 116));
        let address = batch.samples()[0].stack.as_ref().unwrap().address;
        assert_eq!(address, 107 - 20);
    }

    /// Check that the end of a large stack is read at its own address.
    #[test]
    fn end_of_a_large_stack() {
        let mut bytes = stack_record(10, &[1; STACK_COPY_BYTES_MAX]);
        bytes[offset_of!(StackHeader, end_address)..][..8]
            .copy_from_slice(&0x9000_0000_u64.to_ne_bytes());
        bytes[offset_of!(StackHeader, end_bytes)..][..4].copy_from_slice(&16u32.to_ne_bytes());
        let mut batch = Batch::default();
        let error = batch.push_record(&bytes).unwrap_err();
        assert!(matches!(error, DecodeError::Short { need, .. } if need == bytes.len() + 16));
        bytes.extend([2; 16]);
        batch.push_record(&bytes).unwrap();
        let stack = batch.take_stack(0, 10).unwrap();
        let ones = u64::from_ne_bytes([1; 8]);
        let last = stack.address + STACK_COPY_BYTES_MAX as u64 - 8;
        assert_eq!((stack.read(last), stack.read(last + 8)), (Some(ones), None));
        let twos = u64::from_ne_bytes([2; 8]);
        let read = |at: u64| stack.read(0x9000_0000 + at);
        assert_eq!((read(0), read(8), read(9)), (Some(twos), Some(twos), None));
        assert!(stack.is_cut());
    }

    /// Check that copies which are cut or too long are refused, and that copies without a sample are
    /// evicted.
    #[test]
    fn odd_stacks() {
        let mut batch = Batch::default();
        let bytes = stack_record(10, b"abc");
        for len in 1..bytes.len() {
            let error = batch.push_record(&bytes[..len]).unwrap_err();
            assert!(matches!(error, DecodeError::Short { got, .. } if got == len));
        }
        let long = stack_record(10, &vec![0; STACK_COPY_BYTES_MAX + 1]);
        let error = batch.push_record(&long).unwrap_err();
        assert!(matches!(error, DecodeError::Unknown { field, .. } if field == "stack_bytes"));
        for time in 0..3 * 1024 {
            batch.push_record(&stack_record(time, b"")).unwrap();
        }
        assert_eq!(batch.unpaired.len(), 1);
        assert_eq!(batch.take_evicted_stacks(), 3 * 1024 - 1);
    }

    /// Check that a copy without a sample is evicted by the next record of its processor, or after a while, and that the copies of
    /// many processors stay within their limit.
    #[test]
    fn stacks_without_samples_go() {
        let of_cpu = |cpu: u32, time_ns, len| {
            let mut bytes = stack_record(time_ns, &vec![1; len]);
            bytes[offset_of!(StackHeader, cpu)..][..4].copy_from_slice(&cpu.to_ne_bytes());
            bytes
        };
        let mut batch = Batch::default();
        batch.push_record(&of_cpu(0, 10, 5)).unwrap();
        batch.push_record(&of_cpu(1, 10, 5)).unwrap();
        batch.push_record(&record(1, 20, &[1], &[])).unwrap();
        assert_eq!((batch.unpaired.len(), batch.take_evicted_stacks()), (1, 1));
        let mut batch = batch.split_after(UNPAIRED_KEPT_NS + 10);
        assert_eq!((batch.unpaired.len(), batch.take_evicted_stacks()), (1, 0));
        let mut batch = batch.split_after(UNPAIRED_KEPT_NS + 11);
        assert_eq!((batch.unpaired.len(), batch.take_evicted_stacks()), (0, 1));
        for cpu in 0..1_000 {
            let bytes = of_cpu(cpu, 10, STACK_COPY_BYTES_MAX);
            batch.push_record(&bytes).unwrap();
        }
        let bytes: usize = batch.unpaired.iter().map(|(_, stack)| stack.len()).sum();
        assert_eq!(bytes, UNPAIRED_BYTES_MAX);
        assert_eq!(batch.unpaired.last().unwrap().0, (999, 10));
        assert_eq!(
            batch.take_evicted_stacks() as usize,
            1_000 - batch.unpaired.len()
        );
    }

    /// Check that a split keeps every sample with its frames, once.
    #[test]
    fn split() {
        let mut batch = Batch::default();
        for time in [30, 10, 20, 40] {
            batch
                .push_record(&record(1, time, &[time, time + 1], &[time + 2]))
                .unwrap();
        }
        batch.sort_by_time();
        let later = batch.split_after(20);
        for (part, times) in [(&batch, [10, 20]), (&later, [30, 40])] {
            for (sample, time) in part.samples().iter().zip(times) {
                assert_eq!(sample.time_ns, time);
                assert_eq!(part.user_frames(sample), [time, time + 1]);
                assert_eq!(part.kernel_frames(sample), [time + 2]);
            }
            assert_eq!(part.samples().len(), 2);
        }
    }
}
