//! `pilotlight-server debuginfo upload`: sends files with symbols to a server that runs.

use std::fs::{self, File};
use std::io::{self, Read, Seek};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use serde::Deserialize;
use symbolic_common::ByteView;
use ureq::Agent;

use super::build_id::BuildId;
use super::convert::{no_build_id, no_symbols};
use super::elf::{is_elf, read_elf};
use super::index::Rank;

/// The server of this machine, as its own default is.
const SERVER: &str = "http://127.0.0.1:7070";

/// The server takes at least 16 KiB a second and at most 4 GiB; nobody waits for longer than this.
const UPLOAD_TIME: Duration = Duration::from_secs(3600);

/// How often a server that takes other files at the moment is asked again, and how long is waited before each.
const BUSY_TRIES: u32 = 30;
const BUSY_TIME: Duration = Duration::from_secs(2);

/// Folders inside each other: symbolic links are not followed, so that there is no circle; this is for the stack.
const DEPTH_MAX: usize = 64;

/// What can be done with symbols.
#[derive(Debug, Subcommand)]
pub enum DebuginfoCommand {
    /// Sends files with symbols or debug information, so that profiles of these builds get names, files and lines, also those
    /// that were taken before
    ///
    /// One line for each file says what became of it. The exit code is not 0 when one failed.
    Upload(UploadArguments),
}

/// What to upload, and where.
#[derive(Debug, Args)]
pub struct UploadArguments {
    /// The server
    #[arg(long, env = "PILOTLIGHT_SERVER", value_name = "URL", default_value = SERVER)]
    server: String,

    /// ELF files that are not stripped, the .debug files that were split from them, or folders in which such files are
    /// looked for
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
}

/// What the server has of a build id.
#[derive(Deserialize)]
struct Present {
    rank: String,
    source_bytes: u64,
    has_layout: bool,
}

#[derive(Deserialize)]
struct Uploaded {
    result: String,
}

#[derive(Deserialize)]
struct Failed {
    error: FailedError,
}

#[derive(Deserialize)]
struct FailedError {
    message: String,
    #[serde(default)]
    hint: Option<String>,
}

/// A file, and whether it was named by a person or found in a folder.
struct Candidate {
    path: PathBuf,
    is_named: bool,
}

/// What became of a file.
enum Outcome {
    Sent(String),
    Skipped(String),
    Failed(String),
    /// It was found in a folder, and is nothing to send.
    Nothing,
}

impl DebuginfoCommand {
    /// Does it, and says what became of each file.
    pub fn run(self) -> ExitCode {
        let Self::Upload(UploadArguments { server, files }) = self;
        let config = Agent::config_builder()
            .timeout_connect(Some(Duration::from_secs(10)))
            .timeout_global(Some(UPLOAD_TIME))
            .http_status_as_error(false)
            .build();
        let uploader = Uploader {
            agent: config.into(),
            server: server.trim_end_matches('/').to_owned(),
        };
        let mut failed = 0;
        let mut sent = 0;
        let mut skipped = 0;
        for file in files {
            let mut candidates = Vec::new();
            if let Err(err) = collect(&file, DEPTH_MAX, &mut candidates) {
                failed += 1;
                println!("{}: failed: {err}", file.display());
            }
            for candidate in candidates {
                let path = candidate.path.display();
                match uploader.upload(&candidate) {
                    Outcome::Sent(text) => {
                        sent += 1;
                        println!("{path}: {text}");
                    }
                    Outcome::Skipped(text) => {
                        skipped += 1;
                        println!("{path}: skipped: {text}");
                    }
                    Outcome::Failed(text) => {
                        failed += 1;
                        println!("{path}: failed: {text}");
                    }
                    Outcome::Nothing => {}
                }
            }
        }
        eprintln!("{sent} sent, {skipped} skipped, {failed} failed");
        if failed == 0 {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }
    }
}

fn collect(path: &Path, depth: usize, found: &mut Vec<Candidate>) -> io::Result<()> {
    let is_named = depth == DEPTH_MAX;
    let kind = if is_named {
        fs::metadata(path)?
    } else {
        fs::symlink_metadata(path)?
    };
    if kind.is_dir() {
        if depth == 0 {
            return Err(io::Error::other("folders lie too deep in each other"));
        }
        let mut entries: Vec<_> = fs::read_dir(path)?
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<Result<_, _>>()?;
        entries.sort();
        for entry in entries {
            collect(&entry, depth - 1, found)?;
        }
    } else if kind.is_file() {
        found.push(Candidate {
            path: path.to_owned(),
            is_named,
        });
    } else if is_named {
        return Err(io::Error::other("this is neither a file nor a folder"));
    }
    Ok(())
}

struct Uploader {
    agent: Agent,
    server: String,
}

impl Uploader {
    fn upload(&self, candidate: &Candidate) -> Outcome {
        match self.try_upload(candidate) {
            Ok(outcome) => outcome,
            Err(message) => Outcome::Failed(message),
        }
    }

    fn try_upload(&self, candidate: &Candidate) -> Result<Outcome, String> {
        let text = |err: io::Error| err.to_string();
        let mut file = File::open(&candidate.path).map_err(text)?;
        let mut start = [0; 4];
        let is_candidate = file.read_exact(&mut start).is_ok() && is_elf(&start);
        // In a folder there is everything; only what was named has to be something.
        let nothing = |message: String| {
            if candidate.is_named {
                Err(message)
            } else {
                Ok(Outcome::Nothing)
            }
        };
        if !is_candidate {
            return nothing("this is not an ELF file".into());
        }
        let bytes = ByteView::map_file_ref(&file).map_err(text)?;
        let facts = match read_elf(&bytes) {
            Ok(facts) => facts,
            Err(err) => return nothing(format!("this ELF file cannot be read: {err}")),
        };
        let length = bytes.len() as u64;
        drop(bytes);
        let Some(build_id) = facts.build_id else {
            return nothing(no_build_id());
        };
        let Some(rank) = facts.rank else {
            return nothing(no_symbols());
        };
        if let Some(present) = self.ask(&build_id)?
            && is_enough(&present, rank, length)
            && (present.has_layout || facts.layout.is_none())
        {
            let rank = present.rank.replace('_', " ");
            return Ok(Outcome::Skipped(format!(
                "the server has {rank} of {build_id}"
            )));
        }
        file.rewind().map_err(text)?;
        self.send(&build_id, &file)
    }

    fn url(&self, build_id: &BuildId) -> String {
        format!("{}/api/v1/debuginfo/{build_id}", self.server)
    }

    fn ask(&self, build_id: &BuildId) -> Result<Option<Present>, String> {
        let response = self.agent.get(self.url(build_id)).call();
        let mut response = response.map_err(|err| self.unreachable(&err))?;
        match response.status().as_u16() {
            200 => {
                let body = response
                    .body_mut()
                    .read_to_vec()
                    .map_err(|err| self.unreachable(&err))?;
                serde_json::from_slice(&body)
                    .map(Some)
                    .map_err(|err| self.unreachable(&err))
            }
            404 => Ok(None),
            status => Err(format!(
                "{} answered with status {status}: is it a Pilotlight server?",
                self.server
            )),
        }
    }

    fn send(&self, build_id: &BuildId, file: &File) -> Result<Outcome, String> {
        for _ in 0..BUSY_TRIES {
            let mut reader = file;
            reader.rewind().map_err(|err| err.to_string())?;
            let response = self
                .agent
                .put(self.url(build_id))
                // The server says what is wrong before it gets some GB.
                .header("Expect", "100-continue")
                .send(file);
            let mut response = response.map_err(|err| self.unreachable(&err))?;
            let status = response.status().as_u16();
            let body = response
                .body_mut()
                .read_to_vec()
                .map_err(|err| self.unreachable(&err))?;
            match status {
                200 => {
                    let uploaded: Uploaded =
                        serde_json::from_slice(&body).map_err(|err| self.unreachable(&err))?;
                    return Ok(Outcome::Sent(format!("{} {build_id}", uploaded.result)));
                }
                503 => std::thread::sleep(BUSY_TIME),
                status => {
                    return Err(match serde_json::from_slice::<Failed>(&body) {
                        Ok(Failed { error }) => match error.hint {
                            Some(hint) => format!("{}; {hint}", error.message),
                            None => error.message,
                        },
                        Err(_) => format!("status {status}"),
                    });
                }
            }
        }
        Err("the server was busy with other files all the time; try again later".into())
    }

    fn unreachable(&self, err: &dyn std::fmt::Display) -> String {
        format!("failed to ask {}: {err}", self.server)
    }
}

/// Whether what is there says as much as a file of this rank and length would. Of symbol tables the file with the longer one
/// is the longer file; debug information is as good from the whole program as from the `.debug` file that was split from it.
fn is_enough(present: &Present, rank: Rank, length: u64) -> bool {
    let has = [Rank::SymbolTable, Rank::DebugInfo]
        .into_iter()
        .find(|rank| rank.name() == present.rank);
    has == Some(Rank::DebugInfo) || (has == Some(rank) && present.source_bytes >= length)
}
