//! Measurements of a set, as tables with the goals beside.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::ask::Answers;
use crate::files::Stats;
use crate::goals::{Goals, PEAK_BYTES, START_MS, START_WITHOUT_CATALOG_MS};
use crate::ingest::Ingested;
use crate::questions::{FLAME_GRAPH, PPROF};
use crate::stacks::StackCounts;
use crate::table::{Table, long, mib, short, spread};

/// All that was measured of a set.
pub(crate) struct Measured {
    pub(crate) name: &'static str,
    pub(crate) goals: &'static Goals,
    pub(crate) ingested: Ingested,
    pub(crate) one_in_flight: f64,
    pub(crate) stats: Stats,
    pub(crate) starts: Vec<Duration>,
    pub(crate) starts_without_catalog: Vec<Duration>,
    pub(crate) answers: Vec<Answers>,
    pub(crate) counts: StackCounts,
    pub(crate) go: String,
    /// Bytes after windows of a minute were made, of the real sets.
    pub(crate) rolled_up_bytes: Option<u64>,
}

/// Row of the table of growth.
#[derive(Serialize, Deserialize)]
pub(crate) struct Growth(pub(crate) Vec<String>);

pub(crate) const GROWTH_HEAD: [&str; 10] = [
    "set",
    "rows received",
    "rows stored",
    "tree nodes",
    "segments",
    "MiB",
    "flame graph of all, cold ms",
    "warm ms",
    "CPU us a tree node, warm",
    "pprof of all, warm ms",
];

impl Measured {
    /// Whether all answers were right.
    pub(crate) fn is_right(&self) -> bool {
        self.answers.iter().all(|answers| answers.error.is_none())
    }

    pub(crate) fn to_markdown(&self) -> Result<String> {
        let mut text = String::new();
        writeln!(text, "## {}\n\n{}\n", self.name, self.ingested.description)?;
        writeln!(text, "{}", self.size_table())?;
        writeln!(text, "{}", self.answer_table())?;
        Ok(text)
    }

    fn size_table(&self) -> Table {
        let Ingested {
            rows,
            push_seconds,
            retries,
            push_cpu_seconds,
            client_cpu_seconds,
            cpu_seconds,
            peak_bytes,
            log_bytes,
            part_bytes,
            ..
        } = self.ingested;
        let goals = self.goals;
        let a_row = |value: f64| value / rows as f64;
        let us_a_row = |seconds: f64| short(1e6 * a_row(seconds));
        let bytes_a_row = |bytes: u64| short(a_row(bytes as f64));
        let goal = |goal: Option<f64>| goal.map_or(String::new(), |goal| long(goal as u64));
        let most =
            |goal: Option<f64>| goal.map_or(String::new(), |goal| format!("< {}", short(goal)));
        let ms = |times: &[Duration]| {
            let ms: Vec<f64> = times.iter().map(|time| time.as_secs_f64() * 1e3).collect();
            spread(&ms)
        };
        let mut table = Table::new(["", "measured", "goal"]);
        let mut add = |name: &str, measured: String, goal: String| {
            table.add([name.to_owned(), measured, goal]);
        };
        add("rows", long(rows), String::new());
        add(
            "rows a second",
            long((rows as f64 / push_seconds) as u64),
            goal(goals.rows_a_second),
        );
        add(
            "the same, 1 in flight",
            long(self.one_in_flight as u64),
            goal(goals.rows_a_second_one_in_flight),
        );
        add("pushes sent again", long(retries as u64), String::new());
        add(
            "CPU us a row: server until acknowledged",
            us_a_row(push_cpu_seconds),
            String::new(),
        );
        add(
            "server with all merges",
            us_a_row(cpu_seconds),
            most(goals.cpu_us_a_row),
        );
        add("client", us_a_row(client_cpu_seconds), String::new());
        add(
            "bytes a row: log",
            bytes_a_row(log_bytes),
            most(goals.log_bytes),
        );
        add(
            "as segments are written",
            bytes_a_row(part_bytes),
            String::new(),
        );
        add(
            "merged",
            bytes_a_row(self.stats.bytes),
            most(goals.merged_bytes),
        );
        if let Some(bytes) = self.rolled_up_bytes {
            add(
                "rolled up to a minute",
                bytes_a_row(bytes),
                most(goals.rolled_up_bytes),
            );
        }
        add("rows in segments", long(self.stats.rows), String::new());
        add("segments", long(self.stats.segments), String::new());
        let (stacks, nodes) = (self.counts.stacks, self.counts.nodes);
        add(
            "different stacks, tree nodes of them",
            format!("{}, {}", long(stacks as u64), long(nodes as u64)),
            String::new(),
        );
        add(
            "bytes a stack: all tables, tree",
            self.bytes_by(stacks),
            String::new(),
        );
        add(
            "bytes a tree node: all tables, tree",
            self.bytes_by(nodes),
            String::new(),
        );
        add(
            "peak MiB while pushing and merging",
            mib(peak_bytes),
            mib(PEAK_BYTES),
        );
        add("start, cold ms", ms(&self.starts), short(START_MS));
        add(
            "start without catalog, cold ms",
            ms(&self.starts_without_catalog),
            short(START_WITHOUT_CATALOG_MS),
        );
        add(
            "`go tool pprof -top` of all",
            self.go.clone(),
            String::new(),
        );
        table
    }

    /// Bytes of the tables that stacks refer to and of the tree alone, by something of which there are so many.
    fn bytes_by(&self, count: usize) -> String {
        let section = |name: &str| self.stats.sections.get(name).copied().unwrap_or(0);
        let tree = section("tree");
        let tables = ["locations", "functions", "mappings", "strings", "callees"];
        let all = tree + tables.map(section).iter().sum::<u64>();
        let by = |bytes: u64| short(bytes as f64 / count.max(1) as f64);
        format!("{}, {}", by(all), by(tree))
    }

    fn answer_table(&self) -> Table {
        let mut table = Table::new([
            "question",
            "cold ms",
            "goal",
            "warm ms",
            "goal",
            "server's CPU ms, cold, warm",
            "bytes",
            "peak MiB",
            "sum",
        ]);
        for answers in &self.answers {
            let (cold, warm) = self.goals.answer_ms(answers.question.name);
            let goal = |goal: f64| {
                if goal.is_nan() {
                    String::new()
                } else {
                    short(goal)
                }
            };
            let cpu = [&answers.cold, &answers.warm]
                .map(|times| short(times.cpu_ms / times.wall_ms.len().max(1) as f64));
            let error = answers.error.as_ref();
            table.add([
                answers.question.name.to_owned(),
                spread(&answers.cold.wall_ms),
                goal(cold),
                spread(&answers.warm.wall_ms),
                goal(warm),
                cpu.join(", "),
                long(answers.bytes as u64),
                mib(answers.peak_bytes),
                error.map_or("exact".to_owned(), |error| error.replace('|', "/")),
            ]);
        }
        table
    }

    pub(crate) fn growth(&self) -> Growth {
        let find = |name: &str| {
            let mut answers = self.answers.iter();
            answers.find(|answers| answers.question.name == name)
        };
        let warm_cpu_us = find(FLAME_GRAPH).map_or(f64::NAN, |found| {
            1000.0 * found.warm.cpu_ms / found.warm.wall_ms.len() as f64
        });
        let cold = find(FLAME_GRAPH).map(|found| spread(&found.cold.wall_ms));
        let warm = |name: &str| find(name).map(|found| spread(&found.warm.wall_ms));
        Growth(vec![
            self.name.to_owned(),
            long(self.ingested.rows),
            long(self.stats.rows),
            long(self.counts.nodes as u64),
            long(self.stats.segments),
            mib(self.stats.bytes),
            cold.unwrap_or_default(),
            warm(FLAME_GRAPH).unwrap_or_default(),
            short(warm_cpu_us / self.counts.nodes as f64),
            warm(PPROF).unwrap_or_default(),
        ])
    }
}
