//! Comparisons, constants and zeros that the compiler, the verifier and the loader take as they are
//! meant.

use core::{arch::asm, ptr};

/// 1 when `a` is less than `b`, else 0; both below 2^63.
///
/// A search that branches on a comparison makes the verifier follow every path; one
/// that the compiler writes with a mask, recent kernels split into both cases again.
/// The verifier knows nothing of a number that comes out of an `asm!`, so that the search is one path.
#[inline(always)]
pub(crate) fn is_less(a: u64, b: u64) -> u64 {
    let mut difference = a.wrapping_sub(b);
    // SAFETY: it only shifts a register.
    unsafe { asm!("{0} >>= 63", inout(reg) difference, options(pure, nomem, nostack)) };
    difference
}

/// The key 0, on the stack.
///
/// The compiler would put a constant key into a read-only section, which the loader
/// relocates wrongly in functions that are not programs.
#[inline(always)]
pub(crate) fn zero() -> u32 {
    let zero = 0;
    // SAFETY: a reference is readable.
    unsafe { ptr::read_volatile(&raw const zero) }
}

/// Sets a value of whole words to zeros.
///
/// The compiler would call its `memset`, which goes byte by byte: some hundred instructions.
///
/// # Safety
/// `value` can be written, begins at a multiple of 8, and may be zero.
#[inline(always)]
pub(crate) unsafe fn clear<T>(value: *mut T) {
    const { assert!(align_of::<T>() == 8) };
    for word in 0..size_of::<T>() / 8 {
        // SAFETY: guaranteed by the caller.
        unsafe { value.cast::<u64>().add(word).write_volatile(0) };
    }
}
