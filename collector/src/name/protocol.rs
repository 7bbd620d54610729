//! The frames between the collector and its naming child; pure functions.
//!
//! In: bytes of either side, of which neither trusts the other. Out: a
//! [`Request`] or a [`Response`], or what was wrong with the bytes. Never
//! panics, and never allocates more than the bytes themselves justify.
//!
//! Integers are little-endian. A frame on the socket is its length (`u32`,
//! without itself) and that many bytes; open files travel beside a
//! request's first byte.

use std::sync::Arc;

use thiserror::Error;

use super::debug_file::FoundBy;
use super::facts::{AlternativeLink, DEBUG_LINK_BYTES_MAX, FileFacts, SEGMENTS_MAX, Segment};
use super::naming::{Frame, Naming, UnnamedReason};
use crate::process::BuildId;

/// Addresses in one request. A typical answer is 300 bytes for an address
/// (2.5 frames with their share of the strings), so a full one is about 1.2 MB.
pub const ADDRESSES_MAX: usize = 4096;
/// Bytes of one frame: six times a full typical answer, and what the collector
/// is willing to hold of a child that has gone mad.
pub const FRAME_BYTES_MAX: usize = 8 << 20;
/// Bytes of one name or path; longer ones are cut. Expanded C++ templates reach
/// tens of kilobytes, which nobody reads and the page cannot show.
pub const STRING_BYTES_MAX: usize = 4096;
/// Functions at one address. Rust's iterator chains reach about 30.
pub const FUNCTIONS_MAX: usize = 128;

/// Strings in one answer: eight for each address. Without it, a frame full of
/// empty strings would cost the collector 48 MB.
pub const STRINGS_MAX: usize = 8 * ADDRESSES_MAX;

/// Split files in one question and in one answer. A question of 512 addresses reaches some 100 of them in a large
/// program, and is asked again for the rest.
pub const SPLIT_FILES_MAX: usize = 64;
/// Bytes of a split file's name, and of the directory that it is relative to: what the system calls take.
pub const SPLIT_PATH_BYTES_MAX: usize = STRING_BYTES_MAX;

/// What is wrong with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ProtocolError {
    /// It ends before its contents do.
    #[error("frame is truncated")]
    Truncated,
    /// Bytes follow its contents.
    #[error("frame has bytes after its end")]
    Trailing,
    /// A count or a length is above its limit.
    #[error("frame is over a limit")]
    TooLarge,
    /// A tag has no meaning.
    #[error("frame has an unknown tag")]
    UnknownTag,
    /// A string is not UTF-8.
    #[error("frame has a string that is not UTF-8")]
    NotUtf8,
    /// A function refers to a string that is not there.
    #[error("frame refers to a string that is not there")]
    NoString,
    /// An answer does not fit its question.
    #[error("frame does not answer the question")]
    Mismatch,
}

/// Whether debug information is to be used beside the symbol table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DebugInfo {
    /// Use it where it can be read.
    Use,
    /// Leave it alone: the child died on it before.
    Skip,
}

/// How a compiler tells of the code that it makes at run time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JitFormat {
    /// `/tmp/perf-PID.map`.
    PerfMap,
    /// `jit-PID.dump`.
    Dump,
}

/// What the addresses of a request lie in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestObject {
    /// The kernel; addresses are relative to `_text`.
    Kernel,
    /// The vDSO; addresses are offsets in its image.
    Vdso,
    /// The file that comes with the request; addresses are offsets in it.
    Elf {
        /// The collector's number of the file; never used for another one.
        file: u64,
        /// Whether to use debug information.
        debug: DebugInfo,
        /// The build id that the file must have, if one is known.
        build_id: Option<BuildId>,
        /// Which files come with the request.
        attached: Attached,
    },
    /// Code that a process made at run time, of which the file that comes with the request tells. It may have grown
    /// since it came before. Addresses are those in the process.
    Jit {
        /// The collector's number of the process and its file; never used for another one.
        file: u64,
        /// How to read it.
        format: JitFormat,
    },
}

/// The files that come with a request, in this order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attached {
    /// The file itself. Without it, the child may have it open from before.
    pub file: bool,
    /// One that may have its debug information.
    pub debug_file: Option<FoundBy>,
    /// The one that shares its debug information with others.
    pub alternative: bool,
    /// A package with split parts of its debug information.
    pub package: bool,
}

/// A file with a part of the debug information (`.dwo`), as the part that is left refers to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SplitFile {
    /// What the file must have.
    pub id: u64,
    /// Its name: a path, mostly relative to `directory`.
    pub name: String,
    /// Where the compiler ran, or empty.
    pub directory: String,
}

/// A split file that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SplitPart {
    /// Its number.
    pub id: u64,
    /// Whether it comes with the request, after the other files. Otherwise there is none.
    pub attached: bool,
}

/// A question: what are these addresses called?
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Comes back in the answer.
    pub id: u64,
    /// What the addresses lie in.
    pub object: RequestObject,
    /// At most [`ADDRESSES_MAX`].
    pub addresses: Vec<u64>,
    /// What became of the split files that the last answer asked for, at most [`SPLIT_FILES_MAX`].
    pub split: Vec<SplitPart>,
}

/// One function at an address; numbers are indices into [`Response::strings`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Function {
    /// Demangled name.
    pub function: u32,
    /// Name in the symbol table.
    pub system_name: u32,
    /// Source file.
    pub file: u32,
    /// Line, or 0.
    pub line: u32,
    /// Column, or 0.
    pub column: u32,
    /// Line where the function starts, or 0.
    pub start_line: u32,
}

/// What was found for one address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Functions, the innermost first; all but the last are inlined. Not empty.
    Named(Vec<Function>),
    /// No name.
    Unnamed(UnnamedReason),
    /// No symbol, but so many bytes before the address its function starts.
    InFunction(u32),
}

impl Answer {
    /// The naming that it stands for; `intern` gives each of its strings.
    ///
    /// The indices of `strings` were checked when the answer was decoded.
    pub(super) fn to_naming(
        &self,
        strings: &[String],
        mut intern: impl FnMut(&str) -> Arc<str>,
    ) -> Naming {
        let mut string =
            |index: u32| intern(strings.get(index as usize).map_or("", String::as_str));
        match self {
            Self::Unnamed(reason) => Naming::Unnamed(*reason),
            Self::InFunction(distance) => Naming::InFunction(*distance),
            Self::Named(functions) => {
                let frames = functions.iter().enumerate().map(|(index, function)| Frame {
                    function: string(function.function),
                    system_name: string(function.system_name),
                    file: string(function.file),
                    line: function.line,
                    column: function.column,
                    start_line: function.start_line,
                    inlined: index + 1 < functions.len(),
                });
                Naming::Named(frames.collect())
            }
        }
    }
}

/// What else the child says with an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Notes {
    /// Its memory is above the limit; it is to be ended after this answer.
    pub leaving: bool,
    /// The debug information was refused and the symbol table used in its place.
    pub without_debug_info: bool,
    /// The child may not change its root directory, so it reads symbol tables only:
    /// debug information can name further files, which a file could use to have
    /// anything opened.
    pub unconfined: bool,
}

/// The answer to a [`Request`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// The request's.
    pub id: u64,
    /// What else there is to say.
    pub notes: Notes,
    /// Each string once.
    pub strings: Vec<String>,
    /// One for each address, in order.
    pub answers: Vec<Answer>,
    /// What a file says about itself.
    pub facts: Option<FileFacts>,
    /// Files without which some addresses lack their inlined calls, at most [`SPLIT_FILES_MAX`].
    pub wanted: Vec<SplitFile>,
}

const OBJECT_KERNEL: u8 = 1;
const OBJECT_VDSO: u8 = 2;
const OBJECT_ELF: u8 = 3;
const OBJECT_JIT: u8 = 4;
const JIT_PERF_MAP: u8 = 1;
const JIT_DUMP: u8 = 2;
const DEBUG_USE: u8 = 1;
const DEBUG_SKIP: u8 = 2;
const ATTACHED_FILE: u8 = 1;
const ATTACHED_BY_BUILD_ID: u8 = 2;
const ATTACHED_BY_LINK: u8 = 4;
const ATTACHED_ALTERNATIVE: u8 = 8;
const ATTACHED_PACKAGE: u8 = 16;
const FACTS_NONE: u8 = 0;
const FACTS: u8 = 1;
const FACTS_DEBUG_INFO: u8 = 2;
const FACTS_SPLIT: u8 = 4;
const FACTS_ALTERNATIVE: u8 = 8;
const NOTE_LEAVING: u8 = 1;
const NOTE_WITHOUT_DEBUG_INFO: u8 = 2;
const NOTE_UNCONFINED: u8 = 4;
/// Tag of a named answer; an unnamed one has its reason's number.
const ANSWER_NAMED: u8 = 0;
const ANSWER_IN_FUNCTION: u8 = 0xff;

/// The bytes of `request`, without the length in front.
pub fn encode_request(request: &Request) -> Vec<u8> {
    let Request {
        id,
        object,
        addresses,
        split,
    } = request;
    let mut out = Vec::with_capacity(48 + addresses.len() * 8 + split.len() * 9);
    out.extend_from_slice(&id.to_le_bytes());
    match object {
        RequestObject::Kernel => out.push(OBJECT_KERNEL),
        RequestObject::Vdso => out.push(OBJECT_VDSO),
        RequestObject::Elf {
            file,
            debug,
            build_id,
            attached,
        } => {
            out.push(OBJECT_ELF);
            out.extend_from_slice(&file.to_le_bytes());
            out.push(match debug {
                DebugInfo::Use => DEBUG_USE,
                DebugInfo::Skip => DEBUG_SKIP,
            });
            let build_id = build_id.as_ref().map_or(&[][..], BuildId::as_bytes);
            // At most `BuildId::BYTES_MAX`, which fits.
            out.push(build_id.len() as u8);
            out.extend_from_slice(build_id);
            out.push(encode_attached(*attached));
        }
        RequestObject::Jit { file, format } => {
            out.push(OBJECT_JIT);
            out.extend_from_slice(&file.to_le_bytes());
            out.push(match format {
                JitFormat::PerfMap => JIT_PERF_MAP,
                JitFormat::Dump => JIT_DUMP,
            });
        }
    }
    push_count(&mut out, addresses.len());
    for address in addresses {
        out.extend_from_slice(&address.to_le_bytes());
    }
    push_count(&mut out, split.len());
    for SplitPart { id, attached } in split {
        out.extend_from_slice(&id.to_le_bytes());
        out.push(u8::from(*attached));
    }
    out
}

/// The request in `bytes`.
pub fn decode_request(bytes: &[u8]) -> Result<Request, ProtocolError> {
    let mut rest = Rest(bytes);
    let id = rest.u64()?;
    let object = match rest.u8()? {
        OBJECT_KERNEL => RequestObject::Kernel,
        OBJECT_VDSO => RequestObject::Vdso,
        OBJECT_ELF => RequestObject::Elf {
            file: rest.u64()?,
            debug: match rest.u8()? {
                DEBUG_USE => DebugInfo::Use,
                DEBUG_SKIP => DebugInfo::Skip,
                _ => return Err(ProtocolError::UnknownTag),
            },
            build_id: match rest.u8()? {
                0 => None,
                len => Some(
                    BuildId::new(rest.take(usize::from(len))?).ok_or(ProtocolError::TooLarge)?,
                ),
            },
            attached: decode_attached(rest.u8()?)?,
        },
        OBJECT_JIT => RequestObject::Jit {
            file: rest.u64()?,
            format: match rest.u8()? {
                JIT_PERF_MAP => JitFormat::PerfMap,
                JIT_DUMP => JitFormat::Dump,
                _ => return Err(ProtocolError::UnknownTag),
            },
        },
        _ => return Err(ProtocolError::UnknownTag),
    };
    let count = rest.count(ADDRESSES_MAX)?;
    let addresses = (0..count)
        .map(|_| rest.u64())
        .collect::<Result<Vec<_>, _>>()?;
    let count = rest.count(SPLIT_FILES_MAX)?;
    let split = (0..count)
        .map(|_| rest.split_part())
        .collect::<Result<Vec<_>, _>>()?;
    rest.end()?;
    Ok(Request {
        id,
        object,
        addresses,
        split,
    })
}

/// The bytes of `response`, without the length in front.
pub fn encode_response(response: &Response) -> Vec<u8> {
    let Response {
        id,
        notes,
        strings,
        answers,
        facts,
        wanted,
    } = response;
    let mut out = Vec::new();
    out.extend_from_slice(&id.to_le_bytes());
    push_count(&mut out, strings.len());
    for string in strings {
        push_string(&mut out, string);
    }
    push_count(&mut out, answers.len());
    for answer in answers {
        match answer {
            Answer::Unnamed(reason) => out.push(reason.code()),
            Answer::InFunction(distance) => {
                out.push(ANSWER_IN_FUNCTION);
                out.extend_from_slice(&distance.to_le_bytes());
            }
            Answer::Named(functions) => {
                out.push(ANSWER_NAMED);
                push_count(&mut out, functions.len());
                for Function {
                    function,
                    system_name,
                    file,
                    line,
                    column,
                    start_line,
                } in functions
                {
                    for number in [function, system_name, file, line, column, start_line] {
                        out.extend_from_slice(&number.to_le_bytes());
                    }
                }
            }
        }
    }
    encode_facts(facts.as_ref(), &mut out);
    push_count(&mut out, wanted.len());
    for SplitFile {
        id,
        name,
        directory,
    } in wanted
    {
        out.extend_from_slice(&id.to_le_bytes());
        push_string(&mut out, name);
        push_string(&mut out, directory);
    }
    // The last byte: see `note_leaving`.
    out.push(encode_notes(*notes));
    out
}

/// Adds [`Notes::leaving`] to an encoded response. The child knows its memory
/// only when the answers themselves are gone.
pub fn note_leaving(response: &mut [u8]) {
    if let Some(notes) = response.last_mut() {
        *notes |= NOTE_LEAVING;
    }
}

/// The answer in `bytes` to the request `id` about `addresses` addresses.
pub fn decode_response(bytes: &[u8], id: u64, addresses: usize) -> Result<Response, ProtocolError> {
    let mut rest = Rest(bytes);
    if rest.u64()? != id {
        return Err(ProtocolError::Mismatch);
    }
    let count = rest.count(STRINGS_MAX)?;
    let strings = (0..count)
        .map(|_| rest.string())
        .collect::<Result<Vec<_>, _>>()?;
    if rest.count(ADDRESSES_MAX)? != addresses {
        return Err(ProtocolError::Mismatch);
    }
    let answers = (0..addresses)
        .map(|_| rest.answer(strings.len()))
        .collect::<Result<Vec<_>, _>>()?;
    let facts = rest.facts()?;
    let count = rest.count(SPLIT_FILES_MAX)?;
    let wanted = (0..count)
        .map(|_| rest.split_file())
        .collect::<Result<Vec<_>, _>>()?;
    let notes = decode_notes(rest.u8()?)?;
    rest.end()?;
    Ok(Response {
        id,
        notes,
        strings,
        answers,
        facts,
        wanted,
    })
}

/// `string`, cut at a character's boundary to [`STRING_BYTES_MAX`] bytes.
pub fn cut_string(string: &str) -> String {
    const ELLIPSIS: &str = "…";
    if string.len() <= STRING_BYTES_MAX {
        return string.to_owned();
    }
    let end = string.floor_char_boundary(STRING_BYTES_MAX - ELLIPSIS.len());
    format!("{}{ELLIPSIS}", &string[..end])
}

fn encode_notes(notes: Notes) -> u8 {
    let Notes {
        leaving,
        without_debug_info,
        unconfined,
    } = notes;
    [
        (leaving, NOTE_LEAVING),
        (without_debug_info, NOTE_WITHOUT_DEBUG_INFO),
        (unconfined, NOTE_UNCONFINED),
    ]
    .into_iter()
    .filter_map(|(set, bit)| set.then_some(bit))
    .sum()
}

fn decode_notes(bits: u8) -> Result<Notes, ProtocolError> {
    if bits & !(NOTE_LEAVING | NOTE_WITHOUT_DEBUG_INFO | NOTE_UNCONFINED) != 0 {
        return Err(ProtocolError::UnknownTag);
    }
    Ok(Notes {
        leaving: bits & NOTE_LEAVING != 0,
        without_debug_info: bits & NOTE_WITHOUT_DEBUG_INFO != 0,
        unconfined: bits & NOTE_UNCONFINED != 0,
    })
}

fn encode_attached(attached: Attached) -> u8 {
    let Attached {
        file,
        debug_file,
        alternative,
        package,
    } = attached;
    [
        (file, ATTACHED_FILE),
        (debug_file == Some(FoundBy::BuildId), ATTACHED_BY_BUILD_ID),
        (debug_file == Some(FoundBy::Link), ATTACHED_BY_LINK),
        (alternative, ATTACHED_ALTERNATIVE),
        (package, ATTACHED_PACKAGE),
    ]
    .into_iter()
    .filter_map(|(set, bit)| set.then_some(bit))
    .sum()
}

fn decode_attached(bits: u8) -> Result<Attached, ProtocolError> {
    const OTHERS: u8 = ATTACHED_FILE | ATTACHED_ALTERNATIVE | ATTACHED_PACKAGE;
    Ok(Attached {
        file: bits & ATTACHED_FILE != 0,
        debug_file: match bits & !OTHERS {
            0 => None,
            ATTACHED_BY_BUILD_ID => Some(FoundBy::BuildId),
            ATTACHED_BY_LINK => Some(FoundBy::Link),
            _ => return Err(ProtocolError::UnknownTag),
        },
        alternative: bits & ATTACHED_ALTERNATIVE != 0,
        package: bits & ATTACHED_PACKAGE != 0,
    })
}

fn encode_facts(facts: Option<&FileFacts>, out: &mut Vec<u8>) {
    let Some(facts) = facts else {
        return out.push(FACTS_NONE);
    };
    let FileFacts {
        segments,
        has_debug_info,
        debug_link,
        alternative,
        is_split,
    } = facts;
    let bits = [
        (true, FACTS),
        (*has_debug_info, FACTS_DEBUG_INFO),
        (*is_split, FACTS_SPLIT),
        (alternative.is_some(), FACTS_ALTERNATIVE),
    ];
    out.push(
        bits.iter()
            .filter_map(|(set, bit)| set.then_some(*bit))
            .sum(),
    );
    push_count(out, segments.len());
    for segment in segments {
        for number in [segment.file_offset, segment.address, segment.bytes] {
            out.extend_from_slice(&number.to_le_bytes());
        }
    }
    // An empty name is none.
    push_string(out, debug_link.as_deref().unwrap_or_default());
    if let Some(AlternativeLink { path, build_id }) = alternative {
        push_string(out, path);
        push_count(out, build_id.as_bytes().len());
        out.extend_from_slice(build_id.as_bytes());
    }
}

fn push_string(out: &mut Vec<u8>, string: &str) {
    push_count(out, string.len());
    out.extend_from_slice(string.as_bytes());
}

/// Counts are bounded by the frame's size or by the limits above, far below `u32`.
fn push_count(out: &mut Vec<u8>, count: usize) {
    out.extend_from_slice(&u32::try_from(count).unwrap_or(u32::MAX).to_le_bytes());
}

/// What is still to be read of a frame.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], ProtocolError> {
        let (head, tail) = self
            .0
            .split_at_checked(len)
            .ok_or(ProtocolError::Truncated)?;
        self.0 = tail;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], ProtocolError> {
        let (head, tail) = self
            .0
            .split_first_chunk::<N>()
            .ok_or(ProtocolError::Truncated)?;
        self.0 = tail;
        Ok(*head)
    }

    fn u8(&mut self) -> Result<u8, ProtocolError> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    fn u32(&mut self) -> Result<u32, ProtocolError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64, ProtocolError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn count(&mut self, max: usize) -> Result<usize, ProtocolError> {
        usize::try_from(self.u32()?)
            .ok()
            .filter(|count| *count <= max)
            .ok_or(ProtocolError::TooLarge)
    }

    fn string(&mut self) -> Result<String, ProtocolError> {
        let len = self.count(STRING_BYTES_MAX)?;
        std::str::from_utf8(self.take(len)?)
            .map(str::to_owned)
            .map_err(|_| ProtocolError::NotUtf8)
    }

    fn facts(&mut self) -> Result<Option<FileFacts>, ProtocolError> {
        let tag = self.u8()?;
        if tag == FACTS_NONE {
            return Ok(None);
        }
        if tag & !(FACTS_DEBUG_INFO | FACTS_SPLIT | FACTS_ALTERNATIVE) != FACTS {
            return Err(ProtocolError::UnknownTag);
        }
        let count = self.count(SEGMENTS_MAX)?;
        let segments = (0..count)
            .map(|_| {
                Ok(Segment {
                    file_offset: self.u64()?,
                    address: self.u64()?,
                    bytes: self.u64()?,
                })
            })
            .collect::<Result<_, _>>()?;
        let link = self.string()?;
        if link.len() > DEBUG_LINK_BYTES_MAX {
            return Err(ProtocolError::TooLarge);
        }
        let alternative = match tag & FACTS_ALTERNATIVE {
            0 => None,
            _ => Some(self.alternative()?),
        };
        Ok(Some(FileFacts {
            segments,
            has_debug_info: tag & FACTS_DEBUG_INFO != 0,
            debug_link: (!link.is_empty()).then_some(link),
            alternative,
            is_split: tag & FACTS_SPLIT != 0,
        }))
    }

    fn alternative(&mut self) -> Result<AlternativeLink, ProtocolError> {
        let path = self.string()?;
        let len = self.count(BuildId::BYTES_MAX)?;
        Ok(AlternativeLink {
            path,
            build_id: BuildId::new(self.take(len)?).ok_or(ProtocolError::Mismatch)?,
        })
    }

    fn split_part(&mut self) -> Result<SplitPart, ProtocolError> {
        Ok(SplitPart {
            id: self.u64()?,
            attached: match self.u8()? {
                0 => false,
                1 => true,
                _ => return Err(ProtocolError::UnknownTag),
            },
        })
    }

    fn split_file(&mut self) -> Result<SplitFile, ProtocolError> {
        Ok(SplitFile {
            id: self.u64()?,
            name: self.string()?,
            directory: self.string()?,
        })
    }

    fn answer(&mut self, strings: usize) -> Result<Answer, ProtocolError> {
        let tag = self.u8()?;
        if tag == ANSWER_IN_FUNCTION {
            return self.u32().map(Answer::InFunction);
        }
        if tag != ANSWER_NAMED {
            return UnnamedReason::from_code(tag)
                .map(Answer::Unnamed)
                .ok_or(ProtocolError::UnknownTag);
        }
        let count = self.count(FUNCTIONS_MAX)?;
        if count == 0 {
            return Err(ProtocolError::Mismatch);
        }
        (0..count)
            .map(|_| self.function(strings))
            .collect::<Result<Vec<_>, _>>()
            .map(Answer::Named)
    }

    fn function(&mut self, strings: usize) -> Result<Function, ProtocolError> {
        let function = Function {
            function: self.u32()?,
            system_name: self.u32()?,
            file: self.u32()?,
            line: self.u32()?,
            column: self.u32()?,
            start_line: self.u32()?,
        };
        let known = |index: u32| usize::try_from(index).is_ok_and(|index| index < strings);
        if [function.function, function.system_name, function.file]
            .into_iter()
            .all(known)
        {
            Ok(function)
        } else {
            Err(ProtocolError::NoString)
        }
    }

    fn end(self) -> Result<(), ProtocolError> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(ProtocolError::Trailing)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// xorshift64*, so that a failure can be repeated.
    struct Random(u64);

    impl Random {
        fn next(&mut self) -> u64 {
            self.0 ^= self.0 >> 12;
            self.0 ^= self.0 << 25;
            self.0 ^= self.0 >> 27;
            self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
        }

        fn below(&mut self, end: usize) -> usize {
            (self.next() % end as u64) as usize
        }

        fn bytes(&mut self, len: usize) -> Vec<u8> {
            (0..len).map(|_| self.next() as u8).collect()
        }
    }

    fn requests() -> Vec<Request> {
        let elf = |debug, build_id, file, debug_file| RequestObject::Elf {
            file: 7,
            debug,
            build_id,
            attached: Attached {
                file,
                debug_file,
                alternative: build_id.is_some(),
                package: debug_file.is_some(),
            },
        };
        let build_id = BuildId::new(&[0xab; 20]);
        [
            RequestObject::Kernel,
            RequestObject::Vdso,
            elf(DebugInfo::Use, build_id, true, Some(FoundBy::BuildId)),
            elf(DebugInfo::Use, None, false, Some(FoundBy::Link)),
            elf(DebugInfo::Skip, None, true, None),
            RequestObject::Jit {
                file: 8,
                format: JitFormat::PerfMap,
            },
            RequestObject::Jit {
                file: 9,
                format: JitFormat::Dump,
            },
        ]
        .map(|object| Request {
            id: u64::MAX,
            object,
            addresses: vec![0, 1, u64::MAX],
            split: [true, false]
                .map(|attached| SplitPart { id: 7, attached })
                .to_vec(),
        })
        .to_vec()
    }

    fn response() -> Response {
        let function = |index| Function {
            function: index,
            system_name: 2,
            file: 1,
            line: 3,
            column: 4,
            start_line: 5,
        };
        Response {
            id: 9,
            notes: Notes {
                leaving: true,
                without_debug_info: false,
                unconfined: true,
            },
            strings: vec!["f".into(), "ü".into(), String::new()],
            answers: vec![
                Answer::Named(vec![function(0), function(2)]),
                Answer::Unnamed(UnnamedReason::NoSymbol),
                Answer::InFunction(u32::MAX),
            ],
            facts: Some(FileFacts {
                segments: vec![SEGMENT; 2],
                has_debug_info: true,
                debug_link: Some("name.debug".into()),
                alternative: Some(AlternativeLink {
                    path: "../.dwz/name".into(),
                    build_id: BuildId::new(&[1, 2, 3]).unwrap(),
                }),
                is_split: true,
            }),
            wanted: vec![split_file(); 2],
        }
    }

    fn split_file() -> SplitFile {
        SplitFile {
            id: u64::MAX,
            name: "name.dwo".into(),
            directory: "/build".into(),
        }
    }

    const SEGMENT: Segment = Segment {
        file_offset: 1,
        address: 2,
        bytes: 3,
    };

    /// Check that what is encoded is decoded again.
    #[test]
    fn frames_go_both_ways() {
        for request in requests() {
            assert_eq!(decode_request(&encode_request(&request)), Ok(request));
        }
        let response = response();
        let bytes = encode_response(&response);
        assert_eq!(decode_response(&bytes, 9, 3).as_ref(), Ok(&response));
        let mut staying = response;
        staying.notes.leaving = false;
        let mut noted = encode_response(&staying);
        note_leaving(&mut noted);
        assert_eq!(noted, bytes);
        let without = Response {
            facts: None,
            ..self::response()
        };
        let bytes_without = encode_response(&without);
        assert_eq!(decode_response(&bytes_without, 9, 3), Ok(without));
        let mismatch = Err(ProtocolError::Mismatch);
        assert_eq!(decode_response(&bytes, 8, 2), mismatch);
        assert_eq!(decode_response(&bytes, 9, 1), mismatch);
    }

    /// Check that a frame cut anywhere, or with bytes after its end, is refused.
    #[test]
    fn cut_frames_are_refused() {
        for request in requests() {
            let mut bytes = encode_request(&request);
            for len in 0..bytes.len() {
                assert!(decode_request(&bytes[..len]).is_err(), "{len}");
            }
            bytes.push(0);
            assert_eq!(decode_request(&bytes), Err(ProtocolError::Trailing));
        }
        let mut bytes = encode_response(&response());
        for len in 0..bytes.len() {
            assert!(decode_response(&bytes[..len], 9, 3).is_err(), "{len}");
        }
        bytes.push(0);
        assert_eq!(decode_response(&bytes, 9, 3), Err(ProtocolError::Trailing));
    }

    /// Check that random frames, and good ones with random bytes in them, are
    /// decoded or refused, and that what is decoded keeps the limits.
    #[test]
    fn random_frames_are_survived() {
        let mut random = Random(1);
        for round in 0..50_000 {
            let len = random.below(200);
            let mut request = random.bytes(len);
            let mut response = request.clone();
            if round % 2 == 0 {
                request = encode_request(&requests()[random.below(7)]);
                response = encode_response(&self::response());
                for bytes in [&mut request, &mut response] {
                    for _ in 0..1 + random.below(3) {
                        let at = random.below(bytes.len());
                        bytes[at] = random.next() as u8;
                    }
                }
            }
            if let Ok(request) = decode_request(&request) {
                assert!(request.addresses.len() <= ADDRESSES_MAX);
            }
            if let Ok(response) = decode_response(&response, 9, 3) {
                assert_eq!(response.answers.len(), 3);
                let functions = response.answers.iter().flat_map(|answer| match answer {
                    Answer::Named(functions) => functions.as_slice(),
                    Answer::Unnamed(_) | Answer::InFunction(_) => &[],
                });
                for function in functions {
                    assert!((function.file as usize) < response.strings.len());
                }
            }
        }
    }

    /// Check each limit one above it.
    #[test]
    fn limits_are_kept() {
        let mut request = requests()[0].clone();
        request.addresses = vec![0; ADDRESSES_MAX + 1];
        let too_large = ProtocolError::TooLarge;
        assert_eq!(decode_request(&encode_request(&request)), Err(too_large));
        let check = |change: fn(&mut Response)| {
            let mut response = response();
            change(&mut response);
            assert_eq!(
                decode_response(&encode_response(&response), 9, 3),
                Err(too_large)
            );
        };
        let mut request = requests()[0].clone();
        request.split = vec![request.split[0]; SPLIT_FILES_MAX + 1];
        assert_eq!(decode_request(&encode_request(&request)), Err(too_large));
        check(|response| response.wanted = vec![split_file(); SPLIT_FILES_MAX + 1]);
        check(|response| response.wanted[0].name = "x".repeat(SPLIT_PATH_BYTES_MAX + 1));
        check(|response| response.strings[0] = "x".repeat(STRING_BYTES_MAX + 1));
        check(|response| response.strings = vec![String::new(); STRINGS_MAX + 1]);
        check(|response| {
            if let Some(facts) = &mut response.facts {
                facts.segments = vec![SEGMENT; SEGMENTS_MAX + 1];
            }
        });
        check(|response| {
            if let Some(facts) = &mut response.facts {
                facts.debug_link = Some("x".repeat(DEBUG_LINK_BYTES_MAX + 1));
            }
        });
        check(|response| {
            if let Answer::Named(functions) = &mut response.answers[0] {
                *functions = vec![functions[0]; FUNCTIONS_MAX + 1];
            }
        });
    }

    /// Check that long names are cut between characters, and that short ones stay.
    #[test]
    fn long_strings_are_cut() {
        let longest = "x".repeat(STRING_BYTES_MAX);
        assert_eq!(cut_string(&longest), longest);
        for character in ["x", "ü", "漢", "🦀"] {
            let cut = cut_string(&character.repeat(STRING_BYTES_MAX + 1));
            assert!(cut.len() <= STRING_BYTES_MAX && cut.len() > STRING_BYTES_MAX - 8);
            assert!(cut.ends_with('…'));
        }
    }

    /// Check that the reasons have the numbers that the wire gives them.
    #[test]
    fn reasons_are_those_of_the_wire() {
        for reason in UnnamedReason::ALL {
            let wire = proto::v1::UnnamedReason::try_from(i32::from(reason.code()));
            let name = wire.expect("the wire has all reasons").as_str_name();
            let expected = format!("UNNAMED_REASON_{}", reason.as_str().to_uppercase());
            assert_eq!(name, expected);
            assert_eq!(UnnamedReason::from_code(reason.code()), Some(reason));
        }
        assert_eq!(UnnamedReason::from_code(0), None);
        assert_eq!(UnnamedReason::from_code(10), None);
    }
}
