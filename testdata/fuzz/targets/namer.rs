//! What the collector and its naming child say to each other. The child reads files that nobody controls and may be taken
//! over by one: whatever it answers is decoded or refused.
#![no_main]

use collector::name::protocol::{decode_request, decode_response, encode_request, encode_response};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
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
