//! The cost of a look-up in code that is replaced while it is sampled: 100,000 pieces of code, of which so many were replaced.

use std::hint::black_box;
use std::time::Instant;

use symbolize::jit::{Code, When};

const PIECES: u64 = 100_000;
const PIECE_BYTES: u64 = 256;
const LOOKUPS: u64 = 100_000;

fn main() {
    println!("replaced  ns each");
    for replaced in [0, 256, 1024, 4096] {
        let mut code = Code::default();
        code.set_time(When::at(1));
        for piece in 0..PIECES {
            code.add(piece * PIECE_BYTES, PIECE_BYTES, b"first");
        }
        code.set_time(When::at(2));
        for piece in 0..replaced {
            code.add(piece * 17 % PIECES * PIECE_BYTES, PIECE_BYTES, b"second");
        }
        let begun = Instant::now();
        for lookup in 0..LOOKUPS {
            let address = lookup * 7_919 % PIECES * PIECE_BYTES;
            black_box(code.find_between(address, 3, 4));
        }
        let each_ns = begun.elapsed().as_nanos() as u64 / LOOKUPS;
        println!("{replaced:8}  {each_ns:7}");
    }
}
