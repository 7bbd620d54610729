//! The messages between the collector and its naming child.
//!
//! In: bytes of either side, of which neither trusts the other. Out: a [`Request`] or a [`Response`] within the limits below,
//! or what was wrong with the bytes. Pure. Never panics.

use std::sync::Arc;

use elf::{AlternativeLink, BuildId, FILE_NAME_BYTES_MAX, PATH_BYTES_MAX, SEGMENTS_MAX, Segment};
use sandbox::{FrameLimits, MessageError, at_most, decode_message};
use serde::{Deserialize, Serialize};
use symbolize::dwarf::{SPLIT_PATH_BYTES_MAX, SplitFile};
use symbolize::jit::JitFormat;
use symbolize::{FUNCTIONS_MAX, FileFacts, FoundBy, STRING_BYTES_MAX, UseDebugInfo};
use thiserror::Error;

use super::naming::{Frame, Naming};
use super::object::Readings;
use crate::file::UnnamedReason;

/// Addresses in one request. A typical answer is 300 bytes for an address
/// (2.5 frames with their share of the strings), so a full one is about 1.2 MB.
pub const ADDRESSES_MAX: usize = 4096;
/// Addresses asked for at once: an answer of some 150 KB, so that neither side
/// holds much, and a time-out costs few names.
pub(super) const REQUEST_ADDRESSES: usize = 512;
/// Bytes of one frame: six times a full typical answer, and what the collector
/// is willing to hold of a child that has gone mad.
pub const FRAME_BYTES_MAX: usize = 8 << 20;

/// Strings in one answer: eight for each address. Without it, a frame full of
/// empty strings would cost the collector 200 MB.
pub const STRINGS_MAX: usize = 8 * ADDRESSES_MAX;

/// Split files in one question and in one answer. A question of 512 addresses reaches some 100 of them in a large
/// program, and is asked again for the rest.
pub const SPLIT_FILES_MAX: usize = 64;

/// Frames of both sides. The files beside a request are an executable, the one with its debug information, the one that
/// shares some with others, a package of split parts, and single ones.
pub const FRAMES: FrameLimits = FrameLimits {
    bytes_max: FRAME_BYTES_MAX,
    files_max: 4 + SPLIT_FILES_MAX,
};

/// The error of a message.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ProtocolError {
    /// It is no message, or has too many entries.
    #[error(transparent)]
    Message(#[from] MessageError),
    /// A string has more bytes than it may.
    #[error("string is too long")]
    LongString,
    /// The string of a function is missing.
    #[error("answer refers to a string that is not there")]
    NoString,
    /// An address is named by no function.
    #[error("answer has no function")]
    NoFunction,
    /// An answer does not fit its question.
    #[error("answer does not fit the question")]
    Mismatch,
}

/// The object that the addresses of a request lie in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RequestObject {
    /// The kernel, by such a reading of its symbols; addresses are relative to `_text`.
    Kernel(Readings),
    /// The vDSO; addresses are offsets in its image.
    Vdso,
    /// The file that comes with the request; addresses are offsets in it.
    Elf(ElfObject),
    /// Code that a process made at run time, of which the file that comes with the request tells. It may have grown
    /// since it came before. Addresses are those in the process.
    Jit(JitObject),
}

/// An ELF file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ElfObject {
    /// The collector's number of the file; never used for another one.
    pub file: u64,
    /// Whether to use debug information: not if the child died on it before.
    pub debug: UseDebugInfo,
    /// The build id that the file must have.
    pub build_id: Option<BuildId>,
    /// Whether the file itself comes with the request. Otherwise the child may have it open from before.
    pub attached: bool,
    /// Whether, after it, one that may have its debug information does, and how it was found.
    pub debug_file: Option<FoundBy>,
    /// Whether, after these, the one that shares its debug information with others does.
    pub alternative: bool,
    /// Whether, after these, a package with split parts of its debug information does.
    pub package: bool,
}

/// A file that tells of code made at run time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JitObject {
    /// The collector's number of the process and its file; never used for another one.
    pub file: u64,
    /// Its format.
    pub format: JitFormat,
    /// When each address was sampled first and last, nanoseconds of CLOCK_MONOTONIC. Of an address without times the newest
    /// code counts.
    #[serde(deserialize_with = "at_most::<ADDRESSES_MAX, _, _>")]
    pub times: Vec<(u64, u64)>,
}

/// A split file that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SplitPart {
    /// Its number.
    pub id: u64,
    /// Whether it comes with the request, after the other files. Otherwise there is none.
    pub attached: bool,
}

/// Asks for the names of addresses in an object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Set when it is sent; comes back in the answer.
    pub id: u64,
    /// The object that the addresses lie in.
    pub object: RequestObject,
    /// The addresses.
    #[serde(deserialize_with = "at_most::<ADDRESSES_MAX, _, _>")]
    pub addresses: Vec<u64>,
    /// The split files that the last answer asked for, found or not.
    #[serde(deserialize_with = "at_most::<SPLIT_FILES_MAX, _, _>")]
    pub split: Vec<SplitPart>,
}

/// One function at an address; names are indices into [`Response::strings`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Function {
    /// Demangled name.
    #[serde(with = "sandbox::fixed")]
    pub function: u32,
    /// Name in the symbol table.
    #[serde(with = "sandbox::fixed")]
    pub system_name: u32,
    /// Source file.
    #[serde(with = "sandbox::fixed")]
    pub file: u32,
    /// Line, or 0.
    #[serde(with = "sandbox::fixed")]
    pub line: u32,
    /// Column, or 0.
    #[serde(with = "sandbox::fixed")]
    pub column: u32,
    /// Line where the function starts, or 0.
    #[serde(with = "sandbox::fixed")]
    pub start_line: u32,
}

/// The answer for one address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// Functions, the innermost first; all but the last are inlined. At least one.
    Named(#[serde(deserialize_with = "at_most::<FUNCTIONS_MAX, _, _>")] Vec<Function>),
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
        let functions = match self {
            Self::Named(functions) => functions,
            Self::Unnamed(reason) => return Naming::Unnamed(*reason),
            Self::InFunction(distance) => return Naming::InFunction(*distance),
        };
        let mut string =
            |index: u32| intern(strings.get(index as usize).map_or("", String::as_str));
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

    fn check(&self, strings: usize) -> Result<(), ProtocolError> {
        let Self::Named(functions) = self else {
            return Ok(());
        };
        let mut names = functions
            .iter()
            .flat_map(|function| [function.function, function.system_name, function.file]);
        if functions.is_empty() {
            Err(ProtocolError::NoFunction)
        } else if names.any(|index| index as usize >= strings) {
            Err(ProtocolError::NoString)
        } else {
            Ok(())
        }
    }
}

/// The answer to a [`Request`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Response {
    /// The request's.
    pub id: u64,
    /// Each string once.
    #[serde(deserialize_with = "at_most::<STRINGS_MAX, _, _>")]
    pub strings: Vec<String>,
    /// One for each address, in order.
    #[serde(deserialize_with = "at_most::<ADDRESSES_MAX, _, _>")]
    pub answers: Vec<Answer>,
    /// The facts of an ELF file.
    pub facts: Option<Facts>,
    /// Files without which some addresses lack their inlined calls.
    #[serde(deserialize_with = "at_most::<SPLIT_FILES_MAX, _, _>")]
    pub wanted: Vec<SplitFile>,
    /// The debug information was refused and the symbol table used in its place.
    pub without_debug_info: bool,
    /// The child may not change its root directory, so it reads symbol tables only:
    /// debug information can name further files, which a file could use to have
    /// anything opened.
    pub unconfined: bool,
    /// The child's memory is above the limit; it is to be ended after this answer. The last field: see [`note_leaving`].
    pub leaving: bool,
}

impl Response {
    /// Whether no address has a name since its file is gone.
    pub(super) fn is_all_gone(&self) -> bool {
        let gone = Answer::Unnamed(UnnamedReason::FileGone);
        self.answers.iter().all(|answer| *answer == gone)
    }

    /// Whether all strings are within their limits. Together they have no more bytes than the frame.
    fn has_valid_strings(&self) -> bool {
        let is_valid = |facts: &FileFacts| {
            let (name, link) = (facts.debug_link.as_ref(), facts.alternative.as_ref());
            name.is_none_or(|name| name.len() <= FILE_NAME_BYTES_MAX)
                && link.is_none_or(|link| link.path.len() <= PATH_BYTES_MAX)
        };
        let mut paths = self
            .wanted
            .iter()
            .flat_map(|file| [&file.name, &file.directory]);
        self.strings
            .iter()
            .all(|string| string.len() <= STRING_BYTES_MAX)
            && paths.all(|path| path.len() <= SPLIT_PATH_BYTES_MAX)
            && self.facts.iter().all(|Facts(facts)| is_valid(facts))
    }
}

/// The facts of an ELF file in an answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts(#[serde(with = "BoundedFacts")] pub FileFacts);

/// [`FileFacts`], with the limit of its list.
#[derive(Serialize, Deserialize)]
#[serde(remote = "FileFacts")]
struct BoundedFacts {
    #[serde(deserialize_with = "at_most::<SEGMENTS_MAX, _, _>")]
    segments: Vec<Segment>,
    has_debug_info: bool,
    debug_link: Option<String>,
    alternative: Option<AlternativeLink>,
    is_split: bool,
}

/// The answer in `bytes` to the request `id` about `addresses` addresses.
///
/// # Errors
/// It is over a limit, or does not fit the request or itself.
pub fn decode_response(bytes: &[u8], id: u64, addresses: usize) -> Result<Response, ProtocolError> {
    let response: Response = decode_message(bytes)?;
    if response.id != id || response.answers.len() != addresses {
        return Err(ProtocolError::Mismatch);
    }
    if !response.has_valid_strings() {
        return Err(ProtocolError::LongString);
    }
    let strings = response.strings.len();
    response
        .answers
        .iter()
        .try_for_each(|answer| answer.check(strings))?;
    Ok(response)
}

/// Sets [`Response::leaving`] in an encoded response. The child knows its memory
/// only when the answers themselves are gone.
pub fn note_leaving(response: &mut [u8]) {
    if let Some(leaving) = response.last_mut() {
        *leaving = 1;
    }
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

#[cfg(test)]
mod tests {
    use fastrand::Rng;
    use sandbox::encode_message;

    use super::*;

    fn requests() -> Vec<Request> {
        let elf = |build_id, attached: bool, debug_file| {
            RequestObject::Elf(ElfObject {
                file: 7,
                debug: UseDebugInfo::Yes,
                build_id,
                attached,
                debug_file,
                alternative: build_id.is_some(),
                package: !attached,
            })
        };
        let jit = |file, format| {
            RequestObject::Jit(JitObject {
                file,
                format,
                times: vec![(0, u64::MAX)],
            })
        };
        [
            RequestObject::Kernel(Readings {
                since_ns: 5,
                until_ns: u64::MAX,
            }),
            RequestObject::Vdso,
            elf(BuildId::new(&[0xab; 20]), true, Some(FoundBy::Link)),
            elf(None, false, Some(FoundBy::BuildId)),
            elf(None, true, None),
            jit(8, JitFormat::PerfMap),
            jit(9, JitFormat::Dump),
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

    fn facts() -> FileFacts {
        let segment = Segment {
            file_offset: 1,
            address: 2,
            bytes: 3,
        };
        FileFacts {
            segments: vec![segment; SEGMENTS_MAX],
            has_debug_info: true,
            debug_link: Some("x".repeat(FILE_NAME_BYTES_MAX)),
            alternative: Some(AlternativeLink {
                path: "x".repeat(PATH_BYTES_MAX),
                build_id: BuildId::new(&[1, 2, 3]).unwrap(),
            }),
            is_split: true,
        }
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
            strings: vec!["f".into(), "ü".into(), String::new()],
            answers: vec![
                Answer::Named(vec![function(0), function(2)]),
                Answer::Unnamed(UnnamedReason::NoSymbol),
                Answer::InFunction(u32::MAX),
            ],
            facts: Some(Facts(facts())),
            wanted: vec![split_file(); 2],
            leaving: false,
            without_debug_info: false,
            unconfined: true,
        }
    }

    fn split_file() -> SplitFile {
        SplitFile {
            id: u64::MAX,
            name: "name.dwo".into(),
            directory: "/build".into(),
        }
    }

    fn encode(message: &impl Serialize) -> Vec<u8> {
        encode_message(message).unwrap()
    }

    fn decode(response: &Response) -> Result<Response, ProtocolError> {
        decode_response(&encode(response), 9, 3)
    }

    fn decode_request(bytes: &[u8]) -> Result<Request, MessageError> {
        decode_message(bytes)
    }

    /// Check that what is encoded is decoded again, and that an answer fits its question only.
    #[test]
    fn messages_go_both_ways() {
        for request in requests() {
            assert_eq!(decode_request(&encode(&request)), Ok(request));
        }
        let mut response = response();
        assert_eq!(decode(&response).as_ref(), Ok(&response));
        let mut bytes = encode(&response);
        let mismatch = Err(ProtocolError::Mismatch);
        assert_eq!(decode_response(&bytes, 8, 3), mismatch);
        assert_eq!(decode_response(&bytes, 9, 2), mismatch);
        note_leaving(&mut bytes);
        response.leaving = true;
        assert_eq!(decode_response(&bytes, 9, 3).as_ref(), Ok(&response));
        response.facts = None;
        assert_eq!(decode(&response).as_ref(), Ok(&response));
    }

    /// Check answers without a function, and that refer to a string that is not there.
    #[test]
    fn nonsense_is_refused() {
        let check = |answer: Answer, expected: ProtocolError| {
            let mut response = response();
            response.answers[1] = answer;
            assert_eq!(decode(&response).unwrap_err(), expected);
        };
        let beyond = Function {
            file: 3,
            ..Function::default()
        };
        check(Answer::Named(vec![]), ProtocolError::NoFunction);
        check(Answer::Named(vec![beyond]), ProtocolError::NoString);
    }

    /// Check that random messages, and good ones with random bytes in them or cut anywhere, are
    /// decoded or refused, and that what is decoded keeps the limits.
    #[test]
    fn random_messages_are_survived() {
        let mut random = Rng::with_seed(1);
        for round in 0..50_000 {
            let mut request = vec![0; random.usize(..200)];
            random.fill(&mut request);
            let mut response = request.clone();
            if round % 2 == 0 {
                request = encode(&requests()[random.usize(..7)]);
                response = encode(&self::response());
                for bytes in [&mut request, &mut response] {
                    for _ in 0..1 + random.usize(..3) {
                        let at = random.usize(..bytes.len());
                        bytes[at] = random.u8(..);
                    }
                    if round % 4 == 0 {
                        bytes.truncate(random.usize(..bytes.len()));
                    }
                }
            }
            if let Ok(request) = decode_request(&request) {
                assert!(request.addresses.len() <= ADDRESSES_MAX);
            }
            if let Ok(response) = decode_response(&response, 9, 3) {
                assert_eq!(response.answers.len(), 3);
                for answer in &response.answers {
                    assert_eq!(answer.check(response.strings.len()), Ok(()));
                }
            }
        }
    }

    /// Check each limit one above it.
    #[test]
    fn limits_are_kept() {
        let check = |change: fn(&mut Request)| {
            let mut request = requests()[5].clone();
            change(&mut request);
            let result = decode_request(&encode(&request));
            assert!(matches!(result, Err(MessageError::Malformed(_))));
        };
        check(|request| request.addresses = vec![0; ADDRESSES_MAX + 1]);
        check(|request| request.split = vec![request.split[0]; SPLIT_FILES_MAX + 1]);
        check(|request| {
            if let RequestObject::Jit(jit) = &mut request.object {
                jit.times = vec![(0, 0); ADDRESSES_MAX + 1];
            }
        });
        let check = |change: fn(&mut Response, &mut FileFacts)| {
            let (mut response, mut facts) = (response(), facts());
            change(&mut response, &mut facts);
            response.facts = Some(Facts(facts));
            decode(&response).unwrap_err()
        };
        for is_over in [
            check(|response, _| response.wanted = vec![split_file(); SPLIT_FILES_MAX + 1]),
            check(|response, _| response.strings = vec![String::new(); STRINGS_MAX + 1]),
            check(|response, _| response.answers = vec![Answer::InFunction(1); ADDRESSES_MAX + 1]),
            check(|_, facts| facts.segments.push(facts.segments[0])),
            check(|response, _| {
                let functions = vec![Function::default(); FUNCTIONS_MAX + 1];
                response.answers[0] = Answer::Named(functions);
            }),
        ] {
            let ProtocolError::Message(MessageError::Malformed(_)) = is_over else {
                panic!("{is_over}");
            };
        }
        for is_long in [
            check(|response, _| response.wanted[0].name = "x".repeat(SPLIT_PATH_BYTES_MAX + 1)),
            check(|response, _| {
                response.wanted[1].directory = "x".repeat(SPLIT_PATH_BYTES_MAX + 1)
            }),
            check(|response, _| response.strings[0] = "x".repeat(STRING_BYTES_MAX + 1)),
            check(|_, facts| facts.debug_link = Some("x".repeat(FILE_NAME_BYTES_MAX + 1))),
            check(|_, facts| {
                if let Some(link) = &mut facts.alternative {
                    link.path.push('x');
                }
            }),
        ] {
            assert_eq!(is_long, ProtocolError::LongString);
        }
    }

    /// Check that an answer at its limits is decoded: as many strings and addresses as there may be, and at one of them as
    /// many functions.
    #[test]
    fn the_largest_answer_is_decoded() {
        let mut answers = vec![Answer::Named(vec![Function::default(); 32]); ADDRESSES_MAX];
        answers[0] = Answer::Named(vec![Function::default(); FUNCTIONS_MAX]);
        let response = Response {
            strings: vec![String::new(); STRINGS_MAX],
            answers,
            ..response()
        };
        let bytes = encode(&response);
        assert!(bytes.len() < FRAME_BYTES_MAX);
        assert_eq!(decode_response(&bytes, 9, ADDRESSES_MAX), Ok(response));
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
}
