//! `pilotlight-server debuginfo upload`: sends files with symbols to a running server.

use std::fs::{self, File};
use std::io::{self, Read, Seek};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use elf::BuildId;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use symbolic_common::ByteView;
use symbolize::index::{Rank, is_elf, no_build_id, no_symbols, read_elf};
use ureq::http::Response;
use ureq::{Agent, Body};

/// The default address of a server on this machine.
const SERVER: &str = "http://127.0.0.1:7070";

/// The server takes at least 16 KiB a second and at most 4 GiB; a client does not wait longer than this.
const UPLOAD_TIME: Duration = Duration::from_secs(3600);

/// Retries while the server takes other files, and the delay before each.
const BUSY_TRIES: u32 = 30;
const BUSY_TIME: Duration = Duration::from_secs(2);

/// Depth of nested folders. Symbolic links are not followed, so there is no cycle; this bounds the recursion.
const DEPTH_MAX: usize = 64;

/// Commands for symbols.
#[derive(Debug, Subcommand)]
pub enum DebuginfoCommand {
    /// Sends files with symbols or debug information, so that profiles of these builds get names, files and lines, also those
    /// that were taken before
    ///
    /// Prints one line for each file. The exit code is not 0 if a file was not taken.
    Upload(UploadArguments),
}

/// Arguments of an upload.
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

/// The server's index of a build id.
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

/// Outcome of a file that did not fail.
enum Outcome {
    Sent(String),
    Skipped(String),
    /// It was found in a folder, and has nothing to send.
    Nothing,
}

impl DebuginfoCommand {
    /// Runs the command, and prints the outcome of each file.
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
        let (mut sent, mut skipped, mut failed) = (0, 0, 0);
        for file in files {
            let mut candidates = Vec::new();
            if let Err(err) = collect(&file, DEPTH_MAX, &mut candidates) {
                failed += 1;
                println!("{}: failed: {err}", file.display());
            }
            for candidate in candidates {
                let (count, text) = match uploader.upload(&candidate) {
                    Ok(Outcome::Sent(text)) => (&mut sent, text),
                    Ok(Outcome::Skipped(text)) => (&mut skipped, format!("skipped: {text}")),
                    Ok(Outcome::Nothing) => continue,
                    Err(text) => (&mut failed, format!("failed: {text}")),
                };
                *count += 1;
                println!("{}: {text}", candidate.path.display());
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
    fn upload(&self, candidate: &Candidate) -> Result<Outcome, String> {
        let text = |err: io::Error| err.to_string();
        let mut file = File::open(&candidate.path).map_err(text)?;
        let mut start = [0; 4];
        let is_candidate = file.read_exact(&mut start).is_ok() && is_elf(&start);
        // A folder may contain any file; only a named file must be usable.
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
        let (status, body) = self.read(self.agent.get(self.url(build_id)).call())?;
        match status {
            200 => self.parse(&body).map(Some),
            404 => Ok(None),
            status => Err(format!(
                "{} answered with status {status}: is it a Pilotlight server?",
                self.server
            )),
        }
    }

    fn send(&self, build_id: &BuildId, mut file: &File) -> Result<Outcome, String> {
        for _ in 0..BUSY_TRIES {
            file.rewind().map_err(|err| err.to_string())?;
            let request = self.agent.put(self.url(build_id));
            // The server can refuse before it receives gigabytes.
            let response = request.header("Expect", "100-continue").send(file);
            let (status, body) = self.read(response)?;
            match status {
                200 => {
                    let uploaded: Uploaded = self.parse(&body)?;
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

    /// Status and body of an answer.
    fn read(
        &self,
        response: Result<Response<Body>, ureq::Error>,
    ) -> Result<(u16, Vec<u8>), String> {
        let read = |mut response: Response<Body>| {
            let body = response.body_mut().read_to_vec()?;
            Ok((response.status().as_u16(), body))
        };
        response
            .and_then(read)
            .map_err(|err| self.unreachable(&err))
    }

    fn parse<T: DeserializeOwned>(&self, body: &[u8]) -> Result<T, String> {
        serde_json::from_slice(body).map_err(|err| self.unreachable(&err))
    }

    fn unreachable(&self, err: &dyn std::fmt::Display) -> String {
        format!("failed to ask {}: {err}", self.server)
    }
}

/// Whether the present index is as good as that of a file of this rank and length. Of two files with symbol tables,
/// the longer has the longer table; debug information is as good from the whole program as from its `.debug` file.
fn is_enough(present: &Present, rank: Rank, length: u64) -> bool {
    let has = [Rank::SymbolTable, Rank::DebugInfo]
        .into_iter()
        .find(|rank| rank.name() == present.rank);
    has == Some(Rank::DebugInfo) || (has == Some(rank) && present.source_bytes >= length)
}
