//! `pilotlight-server check`, `stats` and `rebuild`: a look at a data directory, and a new catalog.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use store::EmbeddedStore;
use store::embedded::inspect::{Checked, StoreStats, check, stats};

/// Below the working directory, so that a first try needs no root and leaves nothing elsewhere.
pub const DATA_DIR: &str = "./var/server";

/// Values of a label that are shown; the others are added up.
const VALUES_MAX: usize = 20;

/// A data directory.
#[derive(Debug, Args)]
pub struct DataDir {
    /// Directory of the store
    #[arg(long, env = "PILOTLIGHT_DATA_DIR", value_name = "PATH", default_value = DATA_DIR)]
    data_dir: PathBuf,
}

/// A data directory, and a label.
#[derive(Debug, Args)]
pub struct StatsArguments {
    #[command(flatten)]
    directory: DataDir,

    /// Label by whose values the bytes of rows are shown
    #[arg(long, value_name = "NAME", default_value = "namespace")]
    label: String,
}

/// Prints what is damaged. Exits with 1 if something is.
pub fn run_check(arguments: &DataDir) -> ExitCode {
    print(check(&arguments.data_dir), |checked: Checked| {
        for (path, what) in &checked.damage {
            println!("{}: {what}", path.display());
        }
        let Checked {
            files,
            bytes,
            windows,
            damage,
        } = checked;
        println!(
            "{files} files with {bytes} bytes and {windows} windows: {}",
            match damage.len() {
                0 => "all whole".to_owned(),
                count => format!("{count} pieces of damage"),
            }
        );
        damage.is_empty()
    })
}

/// Prints what takes how many bytes.
pub fn run_stats(StatsArguments { directory, label }: &StatsArguments) -> ExitCode {
    print(stats(&directory.data_dir, label), |stats: StoreStats| {
        println!(
            "level         files          bytes    windows         rows      samples  bytes/row"
        );
        for (level, sizes) in &stats.levels {
            let ratio = sizes.bytes as f64 / sizes.rows.max(1) as f64;
            println!(
                "{:<10} {:>8} {:>14} {:>10} {:>12} {:>12} {ratio:>10.2}",
                level.name(),
                sizes.files,
                sizes.bytes,
                sizes.windows,
                sizes.rows,
                sizes.samples,
            );
        }
        println!("logs                {:>14}", stats.logs);
        println!("earlier versions    {:>14}", stats.old);
        println!("\nsection                      bytes");
        for (section, bytes) in &stats.sections {
            println!("{section:<16} {bytes:>16}");
        }
        println!("\nrows by {label:<16}     bytes");
        let mut values: Vec<_> = stats.rows_by_value.iter().collect();
        values.sort_by_key(|(value, bytes)| (std::cmp::Reverse(**bytes), *value));
        let rest: u64 = values
            .iter()
            .skip(VALUES_MAX)
            .map(|(_, bytes)| **bytes)
            .sum();
        for (value, bytes) in values.iter().take(VALUES_MAX) {
            println!(
                "{:<24} {bytes:>12}",
                if value.is_empty() { "(none)" } else { value }
            );
        }
        if values.len() > VALUES_MAX {
            println!(
                "{:<24} {rest:>12}",
                format!("{} others", values.len() - VALUES_MAX)
            );
        }
        println!("\n{} series\nlabel                   values", stats.series);
        for (name, count) in &stats.label_values {
            println!("{name:<24} {count:>6}");
        }
        true
    })
}

/// Makes the catalog anew.
pub fn run_rebuild(arguments: &DataDir) -> ExitCode {
    print(EmbeddedStore::rebuild(&arguments.data_dir), |report| {
        println!("made the catalog anew: {report:?}");
        true
    })
}

/// Shows a result. Exits with 1 if it says so, and with 2 if there is none.
fn print<T>(result: Result<T>, show: impl FnOnce(T) -> bool) -> ExitCode {
    match result.map(show) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(err) => {
            eprintln!("pilotlight-server: {err:#}");
            ExitCode::from(2)
        }
    }
}
