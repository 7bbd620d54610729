//! Where a function saves the frame pointer and sets its own, by the first instructions of its frame. Pure over bytes.
//!
//! ```text
//! up to Go 1.20                 since Go 1.21
//! sub rsp, N                    push rbp
//! mov [rsp+N-8], rbp            mov rbp, rsp
//! lea rbp, [rsp+N-8]            sub rsp, N
//! ```

/// Bytes that are looked at: one in front of the end of the frame's first instruction, and the two longest that follow.
pub(super) const CODE_BYTES: usize = 1 + 8 + 8;

const PUSH_RBP: u8 = 0x55;
const MOV_RBP_RSP: [u8; 3] = [0x48, 0x89, 0xe5];
/// `mov [rsp+…], rbp`, and `lea rbp, [rsp+…]`, up to the form of their offset.
const STORE_RBP: [u8; 2] = [0x48, 0x89];
const LEA_RBP: [u8; 2] = [0x48, 0x8d];

/// Addresses from which on something holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Prologue {
    /// The caller's frame pointer is at the CFA - 16.
    pub(super) saved_from: u64,
    /// The frame pointer points to there.
    pub(super) pointer_from: Option<u64>,
    /// Whether the caller's frame pointer is loaded before the frame is given back, and not after.
    pub(super) is_restored_early: bool,
}

impl Prologue {
    /// Decodes the code around `frame_start`, the address behind the instruction that makes the stack `depth` bytes deep. `code`
    /// begins one byte before it. `None` if the function does not save the frame pointer there.
    pub(super) fn decode(code: &[u8; CODE_BYTES], frame_start: u64, depth: u32) -> Option<Self> {
        let [first, rest @ ..] = code;
        if depth == 8 && *first == PUSH_RBP {
            let is_set = rest.starts_with(&MOV_RBP_RSP);
            return Some(Self {
                saved_from: frame_start,
                pointer_from: is_set.then_some(frame_start + MOV_RBP_RSP.len() as u64),
                is_restored_early: false,
            });
        }
        let place = depth.checked_sub(8)?;
        let stored = access_bytes(rest, STORE_RBP, place)?;
        let set = access_bytes(&rest[stored..], LEA_RBP, place);
        Some(Self {
            saved_from: frame_start + stored as u64,
            pointer_from: set.map(|set| frame_start + (stored + set) as u64),
            is_restored_early: true,
        })
    }
}

/// The length of the instruction at the start of `code`, if it is this operation of `rbp` and the word at `rsp` + `offset`.
fn access_bytes(code: &[u8], operation: [u8; 2], offset: u32) -> Option<usize> {
    let short = [0x6c, 0x24, u8::try_from(offset).unwrap_or(u8::MAX)];
    let long = [&[0xac, 0x24][..], &offset.to_le_bytes()].concat();
    let bare = [0x2c, 0x24];
    let operand = code.strip_prefix(&operation)?;
    match offset {
        0 if operand.starts_with(&bare) => Some(4),
        0..=0x7f if operand.starts_with(&short) => Some(5),
        _ if operand.starts_with(&long) => Some(8),
        _ => None,
    }
}

/// The length of the instruction that ends `code`, if it is `add rsp, …`.
pub(super) fn release_bytes(code: &[u8; 7]) -> Option<u64> {
    match code {
        [0x48, 0x81, 0xc4, ..] => Some(7),
        [_, _, _, 0x48, 0x83, 0xc4, _] => Some(4),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(first: u8, code: &[u8], depth: u32) -> Option<Prologue> {
        let mut bytes = [0x90; CODE_BYTES];
        bytes[0] = first;
        bytes[1..=code.len()].copy_from_slice(code);
        Prologue::decode(&bytes, 0x1000, depth)
    }

    /// Check both forms, with offsets of each length, and code that has neither.
    #[test]
    fn forms() {
        let new = decode(0x55, &[0x48, 0x89, 0xe5], 8).unwrap();
        assert_eq!((new.saved_from, new.pointer_from), (0x1000, Some(0x1003)));
        assert_eq!(decode(0x55, &[], 8).unwrap().pointer_from, None);
        assert_eq!(decode(0x9c, &[0x48, 0x89, 0xe5], 8), None);
        for (depth, store, set) in [
            (
                8,
                &[0x48, 0x89, 0x2c, 0x24][..],
                &[0x48, 0x8d, 0x2c, 0x24][..],
            ),
            (
                48,
                &[0x48, 0x89, 0x6c, 0x24, 40],
                &[0x48, 0x8d, 0x6c, 0x24, 40],
            ),
            (
                264,
                &[0x48, 0x89, 0xac, 0x24, 0, 1, 0, 0],
                &[0x48, 0x8d, 0xac, 0x24, 0, 1, 0, 0],
            ),
        ] {
            let old = decode(0, &[store, set].concat(), depth).unwrap();
            let stored = 0x1000 + store.len() as u64;
            assert_eq!(old.saved_from, stored);
            assert_eq!(old.pointer_from, Some(stored + set.len() as u64));
            assert_eq!(decode(0, &[store, set].concat(), depth + 8), None);
        }
    }

    /// Check the two lengths of the instruction that gives a frame back.
    #[test]
    fn releases() {
        assert_eq!(release_bytes(&[0x48, 0x81, 0xc4, 0, 1, 0, 0]), Some(7));
        assert_eq!(release_bytes(&[0, 0, 0, 0x48, 0x83, 0xc4, 24]), Some(4));
        assert_eq!(release_bytes(&[0; 7]), None);
    }
}
