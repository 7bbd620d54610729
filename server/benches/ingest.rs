//! CPU a row of each step from a collector's message to a segment, with the windows of a generated cluster: decoding the message, checking
//! it and unpacking its profile, reading the profile, the digest, adding the window to a block, its record in the log, and the segment of
//! five minutes.
//!
//! `cargo bench -p pilotlight-server --bench ingest -- [NAME=NUMBER...]` with the options of testdata/bench/store-size.

#![allow(missing_docs, clippy::unwrap_used, reason = "a bench")]

#[path = "../src/receive/grpc/test_push.rs"]
mod test_push;

use std::fmt;

use fleet::{Fleet, Shape};
use model::unnamed::UnnamedCounts;
use prost::Message;
use proto::v1::PushRequest;
use rustix::time::{ClockId, clock_gettime};
use segment::{Builder, LogWriter, WriteOptions};
use server::receive::entries::{PUSH, check_message};
use server::receive::grpc::check::{CheckLimits, Checked};

/// Windows of a node in a segment before it is merged: five minutes.
const SEGMENT_WINDOWS: usize = 30;

const LIMITS: CheckLimits = CheckLimits {
    profile_bytes_max: 256 << 20,
};

const STEPS: [&str; 8] = [
    "message", "check", "read", "count", "digest", "add", "log", "segment",
];

fn read_cpu_ns() -> u64 {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    1_000_000_000 * now.tv_sec as u64 + now.tv_nsec as u64
}

/// CPU time of the steps.
#[derive(Default)]
struct Costs {
    rows: u64,
    ns: [u64; STEPS.len()],
}

impl Costs {
    fn measure<T>(&mut self, step: &str, work: impl FnOnce() -> T) -> T {
        let start_ns = read_cpu_ns();
        let made = work();
        let step = STEPS.iter().position(|name| *name == step).unwrap();
        self.ns[step] += read_cpu_ns() - start_ns;
        made
    }
}

impl fmt::Display for Costs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = self.rows as f64;
        for (name, ns) in STEPS.iter().zip(self.ns) {
            writeln!(f, "{name:<10} {:>8.0} ns a row", ns as f64 / rows)?;
        }
        let all: u64 = self.ns.iter().sum();
        write!(f, "{:<10} {:>8.0} ns a row", "all", all as f64 / rows)
    }
}

/// Steps of the server with a message.
fn take(costs: &mut Costs, builder: &mut Builder, log: &mut LogWriter, message: &[u8]) {
    let mut request = costs.measure("message", || {
        check_message(message, &PUSH).unwrap();
        PushRequest::decode(message).unwrap()
    });
    let now_ms = request.window_start_ms;
    let checked = costs.measure("check", || {
        Checked::new(&mut request, now_ms, LIMITS).unwrap()
    });
    let window = costs.measure("read", || checked.into_window().unwrap());
    costs.measure("count", || UnnamedCounts::of(&window));
    let digest = costs.measure("digest", || window.digest());
    costs.measure("add", || {
        builder.add_message(&window, Some(digest)).unwrap();
    });
    costs.measure("log", || {
        log.encode(builder, &mut Vec::new());
        log.commit();
    });
    costs.rows += window.rows.len() as u64;
}

fn main() {
    let options = std::env::args().skip(1).filter(|arg| arg != "--bench");
    let shape = Shape::parse(options).unwrap_or_else(|err| {
        eprintln!("{err}");
        std::process::exit(2);
    });
    println!("{shape}");
    let fleet = Fleet::new(shape);
    let numbers: Vec<usize> = (0..shape.windows).collect();
    let mut costs = Costs::default();
    for numbers in numbers.chunks(SEGMENT_WINDOWS) {
        let (mut builder, mut log) = (Builder::default(), LogWriter::new(0));
        for number in numbers {
            for node in 0..shape.nodes {
                let window = fleet.window(node, *number);
                let message = test_push::push_request(&window).encode_to_vec();
                take(&mut costs, &mut builder, &mut log, &message);
            }
        }
        let write = || builder.write(&WriteOptions::FAST, std::io::sink());
        costs.measure("segment", write).unwrap();
    }
    println!("{:<10} {:>8.2} million rows", "", costs.rows as f64 / 1e6);
    println!("{costs}");
}
