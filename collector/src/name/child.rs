//! The naming child: reads requests from its socket until it is closed.
//!
//! In: requests with open files. Out: answers. It may die of any of those files;
//! the collector then starts another one. Never opens a file itself once it is
//! confined.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::process::ExitCode;

use sandbox::{Channel, FileRoot, Received, ResidentMemory, decode_message, encode_message};
use symbolize::{DebugOutcome, UseDebugInfo};

use super::answers::Answers;
use super::confine::confinement;
use super::elf::{ElfFiles, ElfRequest, LinkedRequest};
use super::jit::{JitFiles, JitRequest};
use super::kernel::Kernel;
use super::options::{CHILD_ARGUMENT, ChildLimits};
use super::protocol::{FRAMES, Facts, Request, RequestObject, Response, note_leaving};
use super::vdso::copy_vdso;
use crate::file::UnnamedReason;

/// The number under which the vDSO is kept among the files; the collector's own
/// numbers start below.
const VDSO_FILE: u64 = u64::MAX;

/// Runs the child with its socket as standard input, until the socket is closed.
///
/// `arguments` are those after [`CHILD_ARGUMENT`].
pub fn run_child(arguments: impl Iterator<Item = String>) -> ExitCode {
    // It was started as `/proc/self/exe`, and would be `exe` in profiles and in `ps`.
    let _ = rustix::thread::set_name(c"pilotlight-name");
    match serve(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            eprintln!("pilotlight-collector {CHILD_ARGUMENT}: {err}");
            ExitCode::FAILURE
        }
    }
}

fn serve(mut arguments: impl Iterator<Item = String>) -> io::Result<()> {
    let mut number = || arguments.next()?.parse().ok();
    let (Some(data_bytes_max), Some(resident_bytes_max)) = (number(), number()) else {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "is started by the collector and takes two numbers",
        ));
    };
    let limits = ChildLimits {
        data_bytes_max,
        resident_bytes_max,
    };
    let channel = Channel::to_parent(FRAMES)?;
    let mut child = Child::new(limits)?;
    let mut frame = Vec::new();
    loop {
        let mut files = Vec::new();
        let received = channel.receive_with_files(&mut frame, &mut files, None)?;
        if received == Received::Closed {
            return Ok(());
        }
        let request = decode_message(&frame).map_err(io::Error::other)?;
        let response = child.answer(&request, files);
        let mut answer = encode_message(&response).map_err(io::Error::other)?;
        // Its strings are at the end of the heap, which the allocator returns before memory is measured.
        drop(response);
        // It goes on to wait: the parent reads what the child took, and ends it.
        if !child.shrink() {
            note_leaving(&mut answer);
        }
        channel.send(&answer, &[], None)?;
    }
}

struct Child {
    root: FileRoot,
    memory: ResidentMemory,
    kernel: Kernel,
    vdso: Option<OwnedFd>,
    files: ElfFiles,
    jit: JitFiles,
}

impl Child {
    fn new(limits: ChildLimits) -> io::Result<Self> {
        let kallsyms = File::open("/proc/kallsyms").ok();
        let vdso = copy_vdso()?;
        let memory = ResidentMemory::open(limits.resident_bytes_max)?;
        let root = confinement(limits).enter()?;
        Ok(Self {
            root,
            memory,
            kernel: Kernel::new(kallsyms),
            vdso,
            files: ElfFiles::new(root),
            jit: JitFiles::new(root),
        })
    }

    fn answer(&mut self, request: &Request, files: Vec<OwnedFd>) -> Response {
        self.files.close_idle();
        self.jit.close_idle();
        let Request {
            id,
            object,
            addresses,
            split,
        } = request;
        let mut answers = Answers::default();
        let mut facts = None;
        let mut wanted = Vec::new();
        let debug = match object {
            RequestObject::Kernel(readings) => {
                self.kernel.name(addresses, *readings, &mut answers);
                DebugOutcome::Fine
            }
            RequestObject::Vdso => self.name_vdso(addresses, &mut answers),
            RequestObject::Elf(elf) => {
                let mut files = files.into_iter();
                let mut next = |is_attached: bool| is_attached.then(|| files.next()).flatten();
                let opened = next(elf.attached);
                let debug_file = next(elf.debug_file.is_some()).zip(elf.debug_file);
                let linked = LinkedRequest {
                    alternative: next(elf.alternative),
                    package: next(elf.package),
                    split: split
                        .iter()
                        .map(|part| (part.id, next(part.attached)))
                        .collect(),
                };
                let outcome = self.files.name(
                    ElfRequest {
                        file: elf.file,
                        opened,
                        debug_file,
                        linked,
                        build_id: elf.build_id,
                        debug: elf.debug,
                        offsets: addresses,
                    },
                    &self.memory,
                    &mut answers,
                );
                facts = self.files.facts(elf.file).map(Facts);
                wanted = self.files.take_wanted();
                outcome
            }
            RequestObject::Jit(jit) => {
                let request = JitRequest {
                    file: jit.file,
                    format: jit.format,
                    opened: files.into_iter().next(),
                    addresses,
                    times: &jit.times,
                };
                self.jit.name(request, &mut answers);
                DebugOutcome::Fine
            }
        };
        Response {
            id: *id,
            strings: answers.strings,
            answers: answers.answers,
            facts,
            wanted,
            leaving: false,
            without_debug_info: debug == DebugOutcome::Refused,
            unconfined: self.root == FileRoot::Everything,
        }
    }

    fn name_vdso(&mut self, offsets: &[u64], answers: &mut Answers) -> DebugOutcome {
        let image = self.vdso.as_ref().and_then(|image| image.try_clone().ok());
        if image.is_none() {
            let reason = UnnamedReason::NoSymbol;
            offsets.iter().for_each(|_| answers.push_unnamed(reason));
            return DebugOutcome::Fine;
        }
        self.files.name(
            ElfRequest {
                file: VDSO_FILE,
                opened: image,
                debug_file: None,
                linked: LinkedRequest::default(),
                build_id: None,
                debug: UseDebugInfo::No,
                offsets,
            },
            &self.memory,
            answers,
        )
    }

    /// Stays within the limit of resident memory, if need be by forgetting what
    /// was parsed. The kernel's symbols stay: reading them takes longer than
    /// starting a child. `false`: it was not enough.
    ///
    /// The answers must be gone by now. They are the last that was allocated, and
    /// the allocator gives back only what lies behind the last block in use.
    fn shrink(&mut self) -> bool {
        if self.memory.is_over() {
            self.files.close_units();
        }
        if self.memory.is_over() {
            self.files.forget();
        }
        if self.memory.is_over() {
            self.jit.forget();
        }
        !self.memory.is_over()
    }
}
