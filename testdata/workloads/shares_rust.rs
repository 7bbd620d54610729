//! Methods, a generic function and a closure use 10, 20, 30 and 40 % of the CPU time; their v0
//! names have to be demangled. An inlined function, which has a name of its own, does part of the
//! work.
//!
//! The standard library's functions are only the outermost frames of the stacks, so its build
//! options do not matter.

use std::arch::asm;
use std::hint::black_box;

const MS: u64 = 1_000_000;

/// CPU time of each function in nanoseconds.
#[derive(Default)]
struct Spent {
    wheat: u64,
    rye: u64,
    oats: u64,
    closure: u64,
}

trait Grain {
    fn grind(&self, ns: u64) -> u64;
}

struct Wheat;
struct Rye;
struct Mill<T>(T);

impl Grain for Wheat {
    #[inline(never)]
    fn grind(&self, ns: u64) -> u64 {
        spend(ns)
    }
}

impl Grain for Rye {
    #[inline(never)]
    fn grind(&self, ns: u64) -> u64 {
        // Must differ from the code of wheat, or the compiler merges the two.
        spend(black_box(ns))
    }
}

impl<T: Copy + Into<u64>> Mill<T> {
    #[inline(never)]
    fn grind_oats(&self) -> u64 {
        spend(self.0.into())
    }
}

fn main() {
    let seconds: f64 = match std::env::args().nth(1).map(|s| s.parse()) {
        None => 10.0,
        Some(Ok(seconds)) if seconds > 0.0 && seconds <= 3600.0 => seconds,
        Some(_) => {
            eprintln!("usage: shares_rust [SECONDS]   (more than 0, at most 3600)");
            std::process::exit(2);
        }
    };
    let spent = run((seconds * 1e9) as u64);
    println!(
        "{{\"cpu_ns\": {}, \"functions\": {{\"<shares_rust::Wheat as shares_rust::Grain>::grind\": {}, \
         \"<shares_rust::Rye as shares_rust::Grain>::grind\": {}, \"<shares_rust::Mill<u64>>::grind_oats\": {}, \
         \"shares_rust::run::{{closure#0}}\": {}}}}}",
        process_cpu_ns(),
        spent.wheat,
        spent.rye,
        spent.oats,
        spent.closure
    );
}

#[inline(never)]
fn run(until_ns: u64) -> Spent {
    let mut state = 0x9e37_79b9_7f4a_7c15;
    let mut spent = Spent::default();
    // A call through a pointer that the compiler cannot follow, so that the closure is not inlined.
    let closure: &dyn Fn(u64) -> u64 = black_box(&|ns| spend(ns ^ 1));
    while process_cpu_ns() < until_ns {
        let round = round_ns(&mut state);
        spent.wheat += Wheat.grind(round * 10 / 100);
        spent.rye += Rye.grind(round * 20 / 100);
        spent.oats += Mill(round * 30 / 100).grind_oats();
        spent.closure += closure(round * 40 / 100);
    }
    spent
}

/// The length of the next round of blocks, 10 to 50 ms; each function uses its percentage of it.
#[inline(always)]
fn round_ns(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    10 * MS + *state % (40 * MS)
}

/// Uses `ns` of CPU time, and returns the time used.
#[inline(always)]
fn spend(ns: u64) -> u64 {
    let start = process_cpu_ns();
    loop {
        churn();
        let spent = process_cpu_ns() - start;
        if spent >= ns {
            return spent;
        }
    }
}

/// About 50 µs of multiplications that depend on each other.
#[inline(always)]
fn churn() {
    let mut x = 88_172_645_463_325_252_u64;
    for _ in 0..40_000 {
        x = x
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        // SAFETY: no instruction; it only keeps the compiler from shortening the chain.
        unsafe { asm!("/* {0} */", inout(reg) x, options(nomem, nostack, preserves_flags)) };
    }
}

/// CPU nanoseconds of the process, by the bare system call: libc has no frame pointers.
#[inline(always)]
fn process_cpu_ns() -> u64 {
    const CLOCK_GETTIME: i64 = 228;
    const CLOCK_PROCESS_CPUTIME_ID: i64 = 2;
    let mut now = [0_u64; 2];
    // SAFETY: the call writes one `struct timespec`, two 64-bit numbers, to `now`.
    unsafe {
        asm!("syscall", inout("rax") CLOCK_GETTIME => _, in("rdi") CLOCK_PROCESS_CPUTIME_ID,
             in("rsi") now.as_mut_ptr(), out("rcx") _, out("r11") _, options(nostack));
    }
    now[0] * 1_000_000_000 + now[1]
}
