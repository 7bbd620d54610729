//! Messages between the collector and its naming child. The child reads untrusted files and may be taken over by one: any answer is
//! decoded or refused.

use collector::name::protocol::{
    Answer, ElfObject, Facts, Function, JitObject, Request, RequestObject, Response, SplitPart, decode_response,
};
use collector::file::UnnamedReason;
use collector::name::Readings;
use elf::{AlternativeLink, BuildId, Segment};
use sandbox::{MessageError, decode_message, encode_message};
use symbolize::dwarf::SplitFile;
use symbolize::jit::JitFormat;
use symbolize::{FileFacts, FoundBy, UseDebugInfo};

use crate::of_kind;

pub(crate) fn run(input: &[u8]) {
    let Some((&addresses, input)) = input.split_first() else { return };
    let decode_request = |bytes: &[u8]| -> Result<Request, MessageError> { decode_message(bytes) };
    if let Ok(request) = decode_request(input) {
        let again = encode_message(&request).and_then(|bytes| decode_request(&bytes));
        assert_eq!(again, Ok(request));
    }
    // An answer begins with the number that it must repeat, of one byte as a rule.
    let id = input.first().map_or(0, |byte| u64::from(*byte));
    if let Ok(response) = decode_response(input, id, usize::from(addresses)) {
        let bytes = encode_message(&response).expect("a decoded message has a form");
        let again = decode_response(&bytes, id, usize::from(addresses));
        assert_eq!(again, Ok(response));
    }
}

pub(crate) fn make_seeds() -> Vec<Vec<u8>> {
    let elf = |build_id, debug_file: Option<FoundBy>| {
        RequestObject::Elf(ElfObject {
            file: 7,
            debug: if debug_file.is_some() { UseDebugInfo::Yes } else { UseDebugInfo::No },
            build_id,
            attached: true,
            debug_file,
            alternative: debug_file.is_some(),
            package: build_id.is_some(),
        })
    };
    let objects = [
        RequestObject::Kernel(Readings { since_ns: 5, until_ns: u64::MAX }),
        RequestObject::Vdso,
        elf(None, None),
        elf(BuildId::new(&[0xab; 20]), Some(FoundBy::BuildId)),
        elf(None, Some(FoundBy::Link)),
        RequestObject::Jit(JitObject { file: 8, format: JitFormat::Dump, times: vec![(1, 2)] }),
    ];
    let split = vec![SplitPart { id: 0x1234_5678, attached: true }, SplitPart { id: 9, attached: false }];
    let requests = objects.map(|object| Request { id: 5, object, addresses: vec![0x1000, 0x2fff, u64::MAX], split: split.clone() });
    let mut seeds: Vec<_> = requests.iter().filter_map(|request| Some(of_kind(0, &encode_message(request).ok()?))).collect();
    seeds.extend(encode_message(&make_response()).map(|bytes| of_kind(4, &bytes)));
    seeds
}

/// A location with an inlined call, one with a bare name, and two without a name.
fn make_response() -> Response {
    let function = |name, line| Function { function: name, system_name: 1, file: 2, line, column: 3, start_line: 4 };
    let facts = FileFacts {
        segments: vec![Segment { file_offset: 0x1000, address: 0x2000, bytes: 0x300 }],
        has_debug_info: false,
        debug_link: Some("work.debug".to_owned()),
        alternative: BuildId::new(&[1; 20]).map(|build_id| AlternativeLink { path: "../.dwz/work".to_owned(), build_id }),
        is_split: true,
    };
    Response {
        id: 5,
        strings: ["", "_ZN4work17h0123456789abcdefE", "src/work.rs", "work"].map(str::to_owned).into(),
        answers: vec![
            Answer::Named(vec![function(3, 7), function(1, 8)]),
            Answer::Named(vec![function(1, 0)]),
            Answer::Unnamed(UnnamedReason::NoSymbol),
            Answer::InFunction(0x20),
        ],
        facts: Some(Facts(facts)),
        wanted: vec![SplitFile { id: 0x1234_5678, name: "work.dwo".to_owned(), directory: "/build".to_owned() }],
        leaving: true,
        without_debug_info: true,
        unconfined: false,
    }
}
