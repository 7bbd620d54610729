//! The frame-pointer rule: `rbp` points at the caller's `rbp`, the return
//! address lies above it.

use super::{Registers, USER_ADDRESS_END};
use crate::{outcome::Outcome, unwind::Step};

/// Goes from a frame to its caller by the frame pointer.
///
/// `read` gives the two words at an address: the caller's `rbp` and the return address.
///
/// The ABI asks for a zero `rbp` in the outermost frame ("deepest stack frame",
/// System V ABI for AMD64, section 3.4.1), and glibc's `_start` and `clone` set
/// it, so a zero frame pointer or a zero return address is the end of the stack.
/// A frame pointer that does not go up the stack is no frame pointer. `rbx` is taken to be unchanged.
#[inline(always)]
pub fn step_by_frame_pointer(
    registers: &mut Registers,
    read: impl FnOnce(u64) -> Option<[u64; 2]>,
) -> Step {
    let bp = registers.bp;
    if bp == 0 {
        return Step::End;
    }
    if bp < registers.sp || bp & 7 != 0 || bp >= USER_ADDRESS_END {
        return Step::Failed(Outcome::BadFramePointer);
    }
    let Some([caller_bp, return_address]) = read(bp) else {
        return Step::Failed(Outcome::Unreadable);
    };
    if return_address == 0 {
        return Step::End;
    }
    if return_address >= USER_ADDRESS_END {
        return Step::Failed(Outcome::BadFramePointer);
    }
    // The caller's stack begins above the two words, so that each step goes up
    // by at least 16 bytes and no chain can be a circle.
    *registers = Registers {
        ip: return_address,
        sp: bp + 16,
        bp: caller_bp,
        ..*registers
    };
    Step::Caller
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Walks a stack given as (address, caller's rbp, return address).
    fn walk(bp: u64, memory: &[(u64, u64, u64)]) -> (Vec<u64>, Step) {
        let mut registers = Registers {
            ip: 0x1000,
            sp: 0x7000,
            bp,
            bx: 0,
        };
        let mut frames = vec![registers.ip];
        loop {
            let read = |at| {
                let (_, bp, ip) = memory.iter().find(|(address, ..)| *address == at)?;
                Some([*bp, *ip])
            };
            match step_by_frame_pointer(&mut registers, read) {
                Step::Caller => frames.push(registers.ip),
                end => return (frames, end),
            }
        }
    }

    /// Check that a chain is walked until the frame pointer is zero.
    #[test]
    fn chain_to_zero() {
        let memory = [(0x7010, 0x7050, 0x2000), (0x7050, 0, 0x3000)];
        assert_eq!(
            walk(0x7010, &memory),
            (vec![0x1000, 0x2000, 0x3000], Step::End)
        );
    }

    /// Check that a zero return address ends the stack.
    #[test]
    fn zero_return_address() {
        let memory = [(0x7010, 0x7050, 0x2000), (0x7050, 0x9000, 0)];
        assert_eq!(walk(0x7010, &memory), (vec![0x1000, 0x2000], Step::End));
    }

    /// Check that a frame pointer which stays, goes down or is odd is refused.
    #[test]
    fn broken_chains() {
        let bad = Step::Failed(Outcome::BadFramePointer);
        for caller_bp in [0x7010, 0x7018, 0x6000, 0x7053, u64::MAX - 7, 1 << 60] {
            let memory = [(0x7010, caller_bp, 0x2000)];
            assert_eq!(walk(0x7010, &memory), (vec![0x1000, 0x2000], bad));
        }
        let memory = [(0x7010, 0x7050, u64::MAX)];
        assert_eq!(walk(0x7010, &memory), (vec![0x1000], bad));
    }

    /// Check that memory which cannot be read is distinguished from a broken chain.
    #[test]
    fn unreadable() {
        assert_eq!(
            walk(0x7010, &[]),
            (vec![0x1000], Step::Failed(Outcome::Unreadable))
        );
    }
}
