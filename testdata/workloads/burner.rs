//! Uses CPU time in a function that is inlined into a second one, which is inlined into a third:
//! `burner SECONDS`.

use std::hint::black_box;

unsafe extern "C" {
    /// CPU time of this process, in microseconds.
    safe fn clock() -> i64;
}

#[inline(always)]
fn leaf(n: u64) -> u64 {
    let mut sum = n;
    for i in 0..20_000 {
        sum = black_box(sum.wrapping_mul(31) ^ i);
    }
    sum
}

#[inline(always)]
fn middle(n: u64) -> u64 {
    leaf(n) + 1
}

#[inline(never)]
fn outer(n: u64) -> u64 {
    middle(n) ^ 5
}

fn main() {
    let seconds: Option<f64> = std::env::args().nth(1).and_then(|text| text.parse().ok());
    let end = (seconds.unwrap_or(1.0) * 1e6) as i64;
    let mut sink = 0;
    while clock() < end {
        sink = outer(sink);
    }
    black_box(sink);
}
