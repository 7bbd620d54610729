//! Real children: this program starts itself.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

/// A test and its name.
type Test = (&'static str, fn());

macro_rules! trials {
    ($($test:ident),* $(,)?) => { &[$((stringify!($test), $test)),*] };
}

mod asked;
mod child;
mod confined;
mod once;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    if arguments.next().as_deref() == Some(child::ARGUMENT) {
        return child::run(&arguments.next().unwrap_or_default());
    }
    let trials = [confined::TRIALS, asked::TRIALS, once::TRIALS].concat();
    let trials = trials.into_iter().map(|(name, test)| {
        Trial::test(name, move || {
            test();
            Ok(())
        })
    });
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit_code()
}
