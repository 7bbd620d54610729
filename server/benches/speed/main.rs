//! Whether the store reaches its goals: pushes sets of windows to a server process, and asks it cold and warm. `testdata/bench/store-speed`
//! has the options.

#![allow(missing_docs, clippy::unwrap_used, reason = "a bench")]

mod ask;
mod files;
mod generate;
mod goals;
mod ingest;
mod options;
mod plan;
#[path = "../../tests/process/mod.rs"]
mod process;
mod push;
mod questions;
mod record;
mod recording;
mod report;
#[path = "../../tests/running/mod.rs"]
mod running;
mod sets;
mod stacks;
mod store;
mod table;
#[path = "../../src/receive/grpc/test_push.rs"]
mod test_push;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use ask::ask_all;
use files::Stats;
use ingest::{Ingested, measure_one_in_flight, roll_up};
use options::{Command, Options};
use questions::PPROF;
use report::{GROWTH_HEAD, Growth, Measured};
use sets::Set;
use stacks::{StackCounts, count_stacks, open_with_go};
use store::{Store, checked};
use table::Table;

/// Pushes of the measurement with one in flight.
const ONE_IN_FLIGHT_PUSHES: usize = 200;

fn main() -> Result<()> {
    let (commands, options) = options::parse(std::env::args().skip(1))?;
    let data = PathBuf::from(std::env::var_os("DATA").context("DATA names no directory")?);
    fs::create_dir_all(&data)?;
    let mut all_right = true;
    for command in commands {
        let sets = match command {
            Command::Generated => sets::generated(&data, &options)?,
            Command::Cluster => sets::cluster(&data, &options)?,
            Command::Month => sets::month(&data, &options)?,
            Command::Real(path) => sets::real(&path)?,
            Command::Record(listen, path) => return record::record(listen, &path),
        };
        for set in &sets {
            all_right &= measure(&data, set, &options)?;
        }
    }
    print!("{}", growth_table(&data)?);
    ensure!(all_right, "an answer was wrong");
    Ok(())
}

/// Measures a set, and prints it. Returns whether all answers were right.
fn measure(data: &Path, set: &Set, options: &Options) -> Result<bool> {
    eprintln!("{}: {}", set.name, set.description);
    let folder = data.join(set.name);
    let mut server_options = vec!["--retention=forever".to_owned()];
    server_options.extend(set.options.clone());
    let store = Store {
        data: folder.join("store"),
        options: server_options,
    };
    let kept = Ingested::read(&store, &set.description);
    let from_ms = kept.as_ref().map_or(set.from_ms(), |kept| kept.from_ms);
    let plan = Arc::new(set.plan(from_ms)?);
    let ingested = match kept {
        Some(kept) => kept,
        None => {
            let (in_flight, description) = (options.number("in-flight"), set.description.clone());
            Ingested::measure(&store, &plan, in_flight, description, from_ms)?
        }
    };
    let mut first = set.plan(from_ms)?;
    first.truncate(ONE_IN_FLIGHT_PUSHES);
    let one_in_flight = measure_one_in_flight(&Arc::new(first), &store.options)?;
    let stats = Stats::read(&store.data)?;
    let rounds = options.rounds();
    let (starts, starts_without_catalog) = measure_starts(&store, rounds.cold)?;
    let answers = ask_all(&store, &plan, &rounds)?;
    let (counts, go) = look_at_pprof(&folder, &answers)?;
    let rolled_up_bytes = set.is_rolled_up().then(|| roll_up(&store)).transpose()?;
    let measured = Measured {
        name: set.name,
        goals: set.goals,
        ingested,
        one_in_flight,
        stats,
        starts,
        starts_without_catalog,
        answers,
        counts,
        go,
        rolled_up_bytes,
    };
    let markdown = measured.to_markdown()?;
    print!("{markdown}");
    fs::write(folder.join("report.md"), markdown)?;
    let growth = serde_json::to_vec(&measured.growth())?;
    fs::write(folder.join("growth.json"), growth)?;
    Ok(measured.is_right())
}

/// Times of starts with the catalog and without.
fn measure_starts(store: &Store, rounds: usize) -> Result<(Vec<Duration>, Vec<Duration>)> {
    let (mut with, mut without) = (Vec::new(), Vec::new());
    for round in 0..2 * rounds {
        let times = if round % 2 == 0 {
            &mut with
        } else {
            store.remove_catalog()?;
            &mut without
        };
        let (process, time) = store.start_cold()?;
        times.push(time);
        checked(process.stop())?;
    }
    Ok((with, without))
}

/// Counts the stacks of the last answer with all of them, and has `go` read it.
fn look_at_pprof(folder: &Path, answers: &[ask::Answers]) -> Result<(StackCounts, String)> {
    let answer = answers.iter().find(|found| found.question.name == PPROF);
    let answer = answer.context("nobody asked for the pprof of all")?;
    let path = folder.join("all.pprof");
    fs::write(&path, &answer.body)?;
    Ok((count_stacks(&answer.body)?, open_with_go(&path)))
}

/// How cost grows, of all sets that were measured.
fn growth_table(data: &Path) -> Result<Table> {
    let mut table = Table::new(GROWTH_HEAD);
    let mut paths: Vec<PathBuf> = fs::read_dir(data)?
        .filter_map(|entry| Some(entry.ok()?.path().join("growth.json")))
        .filter(|path| path.exists())
        .collect();
    paths.sort_unstable();
    for path in paths {
        let Growth(cells) = serde_json::from_slice(&fs::read(&path)?)?;
        table.add(cells);
    }
    Ok(table)
}
