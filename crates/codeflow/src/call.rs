//! The call in front of a return address, the first one of code, and where code ends.

use std::ops::Range;

use crate::code::Code;
use crate::decode::{Callee, Flow, Kind, Run};
use crate::operation::OperationReader;

/// Lengths of calls: first that of direct calls, then the longer ones first, since they have a
/// prefix that the shorter ones lack.
const LENGTHS: [u64; 7] = [5, 8, 7, 6, 4, 3, 2];

/// The first call of the code that begins at an address; nothing if a jump or a return stands in front of it.
pub fn find_first_call(code: &impl Code, start: u64) -> Option<Range<u64>> {
    let mut operations = OperationReader::new();
    for (instruction, flow) in Run::new(code.bytes(start), start, &mut operations) {
        match flow {
            Flow::Next | Flow::Branch(_) => {}
            Flow::Call(_) => return Some(instruction.address..instruction.end()),
            _ => return None,
        }
    }
    None
}

/// The end of the code that runs from an address on without a jump, behind calls too: behind the first jump or return, or in front
/// of padding.
pub fn find_run_end(code: &impl Code, start: u64) -> u64 {
    let mut operations = OperationReader::new();
    let mut end = start;
    for (instruction, flow) in Run::new(code.bytes(start), start, &mut operations) {
        if instruction.kind == Kind::Padding {
            break;
        }
        end = instruction.end();
        if !matches!(flow, Flow::Next | Flow::Branch(_) | Flow::Call(_)) {
            break;
        }
    }
    end
}

/// The address of the call that a return address is behind, which [`analyze`](crate::analyze)
/// begins at.
///
/// Bytes in front of an address can be read as several instructions. A direct call must lead to
/// code.
pub fn find_call(code: &impl Code, return_address: u64) -> Option<u64> {
    let mut operations = OperationReader::new();
    let starts = LENGTHS
        .iter()
        .filter_map(|length| return_address.checked_sub(*length));
    starts.into_iter().find(|start| {
        let bytes = code.bytes(*start);
        let bytes = &bytes[..bytes.len().min((return_address - start) as usize)];
        match Run::new(bytes, *start, &mut operations).next() {
            Some((call, flow)) if call.end() == return_address => match flow {
                Flow::Call(Callee::Address(callee)) => !code.bytes(callee).is_empty(),
                Flow::Call(_) => true,
                _ => false,
            },
            _ => false,
        }
    })
}
