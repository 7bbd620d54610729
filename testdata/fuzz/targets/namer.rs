//! What the collector and its naming child say to each other. The child reads files that nobody controls and may be taken
//! over by one: whatever it answers is decoded or refused.
#![no_main]

mod seeds;

use collector::name::{AlternativeLink, FileFacts, FoundBy, Segment, UnnamedReason};
use collector::name::protocol::{
    Answer, Attached, DebugInfo, Function, Notes, Request, RequestObject, Response, SplitFile, SplitPart, decode_request,
    decode_response, encode_request, encode_response,
};
use collector::process::BuildId;
use libfuzzer_sys::fuzz_target;

fuzz_target!(init: seeds::write_seeds(make_seeds()), |input: &[u8]| {
    let Some((&addresses, input)) = input.split_first() else { return };
    if let Ok(request) = decode_request(input) {
        let again = decode_request(&encode_request(&request)).expect("what was encoded can be decoded");
        assert_eq!(encode_request(&again), encode_request(&request));
    }
    // The number that the answer must repeat stands at its start, or nothing would be looked at behind it.
    let id = input.first_chunk::<8>().map_or(0, |bytes| u64::from_le_bytes(*bytes));
    if let Ok(response) = decode_response(input, id, usize::from(addresses)) {
        let again = decode_response(&encode_response(&response), id, usize::from(addresses));
        assert_eq!(encode_response(&again.expect("what was encoded can be decoded")), encode_response(&response));
    }
});

fn make_seeds() -> Vec<Vec<u8>> {
    let elf = |debug, build_id, debug_file| RequestObject::Elf {
        file: 7,
        debug,
        build_id,
        attached: Attached { file: true, debug_file, alternative: debug_file.is_some(), package: build_id.is_some() },
    };
    let objects = [
        RequestObject::Kernel,
        RequestObject::Vdso,
        elf(DebugInfo::Skip, None, None),
        elf(DebugInfo::Use, BuildId::new(&[0xab; 20]), Some(FoundBy::BuildId)),
        elf(DebugInfo::Use, None, Some(FoundBy::Link)),
    ];
    let split = vec![SplitPart { id: 0x1234_5678, attached: true }, SplitPart { id: 9, attached: false }];
    let requests = objects.map(|object| {
        let addresses = vec![0x1000, 0x2fff, u64::MAX];
        encode_request(&Request { id: 5, object, addresses, split: split.clone() })
    });
    let mut seeds: Vec<_> = requests.iter().map(|request| seeds::of_kind(0, request)).collect();
    seeds.push(seeds::of_kind(4, &encode_response(&make_response())));
    seeds
}

/// A location with an inlined call, one with a bare name, and two without a name.
fn make_response() -> Response {
    let function = |name, line| Function { function: name, system_name: 1, file: 2, line, column: 3, start_line: 4 };
    Response {
        id: 5,
        notes: Notes { leaving: true, without_debug_info: true, unconfined: false },
        strings: ["", "_ZN4work17h0123456789abcdefE", "src/work.rs", "work"].map(str::to_owned).into(),
        answers: vec![
            Answer::Named(vec![function(3, 7), function(1, 8)]),
            Answer::Named(vec![function(1, 0)]),
            Answer::Unnamed(UnnamedReason::NoSymbol),
            Answer::Unnamed(UnnamedReason::Corrupt),
        ],
        facts: Some(FileFacts {
            segments: vec![Segment { file_offset: 0x1000, address: 0x2000, bytes: 0x300 }],
            has_debug_info: false,
            debug_link: Some("work.debug".to_owned()),
            alternative: BuildId::new(&[1; 20]).map(|build_id| AlternativeLink { path: "../.dwz/work".to_owned(), build_id }),
            is_split: true,
        }),
        wanted: vec![SplitFile { id: 0x1234_5678, name: "work.dwo".to_owned(), directory: "/build".to_owned() }],
    }
}
