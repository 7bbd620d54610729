//! The end of a function whose length nobody states.

use crate::analyze::CLOSURE_INSTRUCTIONS_MAX;
use crate::code::Code;
use crate::decode::{Kind, Run};
use crate::listing::Listing;
use crate::operation::OperationReader;

/// Bytes of padding inside of a function: up to a cache line, in front of a loop.
const PADDING_BYTES_MAX: u64 = 64;

/// A function's code from its start on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// The address behind its last instruction.
    pub end: u64,
    /// Instructions that were read to find it, at most [`CLOSURE_INSTRUCTIONS_MAX`].
    pub instructions: usize,
}

/// Finds the end of the function that starts at an address.
///
/// Its code is what direct edges lead to from the start, up to the first gap that is not padding. A tail call's target behind the
/// function is other code. So is code that only computed jumps lead to: nothing says that it is of this function.
pub fn measure(code: &impl Code, start: u64) -> Extent {
    let listing = Listing::of_closure(code, &[start], CLOSURE_INSTRUCTIONS_MAX);
    let instructions = &listing.instructions;
    let first = instructions.partition_point(|instruction| instruction.address < start);
    let mut end = start;
    for instruction in &instructions[first..] {
        if !is_padding(code, end, instruction.address) {
            break;
        }
        end = end.max(instruction.end());
    }
    Extent {
        end,
        instructions: instructions.len(),
    }
}

/// Whether there is nothing but padding between two addresses.
fn is_padding(code: &impl Code, start: u64, end: u64) -> bool {
    let bytes = end.saturating_sub(start);
    if bytes == 0 {
        return true;
    }
    let Some(gap) = code.bytes(start).get(..bytes as usize) else {
        return false;
    };
    let mut operations = OperationReader::new();
    let mut run = Run::new(gap, start, &mut operations);
    bytes <= PADDING_BYTES_MAX && run.all(|(instruction, _)| instruction.kind == Kind::Padding)
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: u64 = 0x1000;

    struct Bytes(Vec<u8>);

    impl Code for Bytes {
        fn bytes(&self, address: u64) -> &[u8] {
            let offset = address.checked_sub(START).map(|offset| offset as usize);
            offset
                .and_then(|offset| self.0.get(offset..))
                .unwrap_or_default()
        }
    }

    fn measure_parts(parts: &[&[u8]]) -> u64 {
        measure(&Bytes(parts.concat()), START).end - START
    }

    const RET: &[u8] = &[0xc3];
    /// `mov eax,edi; ret`
    const OTHER: &[u8] = &[0x89, 0xf8, 0xc3];

    /// Check that a function ends at its last instruction, whatever follows.
    #[test]
    fn other_code_is_not_its() {
        assert_eq!(measure_parts(&[RET, OTHER]), 1);
        assert_eq!(measure_parts(&[RET, &[0x90; 64 << 10], OTHER]), 1);
        assert_eq!(measure_parts(&[&[0x90; 15], RET, OTHER]), 16);
        assert_eq!(measure_parts(&[]), 0);
    }

    /// Check that jumps over padding and into what is behind a return stay inside of the function.
    #[test]
    fn jumps_lead_to_its_code() {
        // je +3; mov eax,edi; ret; then the target.
        assert_eq!(measure_parts(&[&[0x74, 0x03], OTHER, OTHER, OTHER]), 8);
        // jmp +6; padding; the loop; then jne back to the loop.
        let parts: [&[u8]; 4] = [
            &[0xeb, 0x06],
            &[0x66, 0x90, 0x0f, 0x1f, 0x40, 0],
            OTHER,
            OTHER,
        ];
        assert_eq!(measure_parts(&parts), 11);
    }

    /// Check that the target of a tail call is not of the function, unless it follows at once.
    #[test]
    fn tail_calls_leave_the_function() {
        // jmp +3
        assert_eq!(measure_parts(&[&[0xeb, 0x03], OTHER, OTHER]), 2);
        let far = [0x90; 65];
        assert_eq!(measure_parts(&[&[0xeb, 65], &far, OTHER]), 2);
    }

    /// Check the limit on work: a function that is larger ends where reading did.
    #[test]
    fn large_functions() {
        let extent = measure(&Bytes(vec![0x50; 1 << 20]), START);
        assert_eq!(extent.end - START, CLOSURE_INSTRUCTIONS_MAX as u64);
        assert_eq!(extent.instructions, CLOSURE_INSTRUCTIONS_MAX);
    }
}
