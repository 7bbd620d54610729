//! An ordinary Rust program: maps, strings, sorting, trait objects, recursion, two threads.
//! `release MS`: approximate CPU time of each thread, measured as elapsed time.

use std::{
    collections::{BTreeMap, HashMap},
    env,
    hint::black_box,
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

trait Shape {
    fn area(&self) -> f64;
    fn name(&self) -> String;
}

struct Circle(f64);
struct Group(Vec<Box<dyn Shape>>);

impl Shape for Circle {
    fn area(&self) -> f64 {
        self.0.powi(2) * std::f64::consts::PI
    }
    fn name(&self) -> String {
        format!("circle of {:.3}", self.0)
    }
}

impl Shape for Group {
    fn area(&self) -> f64 {
        self.0.iter().map(|shape| shape.area()).sum()
    }
    fn name(&self) -> String {
        let names: Vec<_> = self.0.iter().map(|shape| shape.name()).collect();
        names.join(", ")
    }
}

fn make_group(depth: u32, next: &mut impl FnMut() -> f64) -> Box<dyn Shape> {
    if depth == 0 {
        return Box::new(Circle(next()));
    }
    Box::new(Group((0..3).map(|_| make_group(depth - 1, next)).collect()))
}

fn count_words(text: &str) -> Vec<(String, usize)> {
    let mut counts = HashMap::new();
    for word in text.split_whitespace() {
        *counts.entry(word.to_owned()).or_insert(0) += 1;
    }
    let mut sorted: Vec<_> = counts.into_iter().collect();
    sorted.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    sorted
}

fn work(until: Instant) -> usize {
    let mut state = 1u64;
    let mut next = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 40) as f64
    };
    let mut by_area = BTreeMap::new();
    let mut sum = 0;
    while Instant::now() < until {
        let shape = make_group(4, &mut next);
        by_area.insert(shape.area() as u64, shape.name().len());
        sum += count_words(&shape.name()).len();
        if by_area.len() > 1000 {
            sum += by_area.range(1000..).map(|(_, length)| length).sum::<usize>();
            by_area.clear();
        }
    }
    sum
}

fn main() -> ExitCode {
    let Some(ms) = env::args().nth(1).and_then(|ms| ms.parse().ok()) else {
        eprintln!("usage: release MS");
        return ExitCode::from(2);
    };
    let until = Instant::now() + Duration::from_millis(ms);
    let threads: Vec<_> = (0..2).map(|_| thread::spawn(move || work(until))).collect();
    for thread in threads {
        black_box(thread.join().ok());
    }
    ExitCode::SUCCESS
}
