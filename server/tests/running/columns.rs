//! The form of answers with columns, read back into the JSON of the same answer.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "for tests, of which each uses a part"
)]

use serde_json::{Value, json};

/// Puts the columns of an answer into its JSON, with the time of each node itself, which is no column.
pub fn columns_to_json(bytes: &[u8]) -> Value {
    let (form, rest) = split_line(bytes);
    assert_eq!(form, b"pilotlight columns 1");
    let (head, mut rest) = split_line(rest);
    let head: Value = serde_json::from_slice(head).unwrap();
    assert_eq!((bytes.len() - rest.len()) % 8, 0);
    let mut answer = head["answer"].clone();
    for column in head["columns"].as_array().unwrap() {
        let count = column["count"].as_u64().unwrap() as usize;
        let values: Vec<Value>;
        (values, rest) = read_column(rest, column["type"].as_str().unwrap(), count);
        let (table, name) = column["name"].as_str().unwrap().split_once('.').unwrap();
        answer[table][name] = Value::Array(values);
    }
    assert!(rest.is_empty(), "{} bytes", rest.len());
    let nodes = &mut answer["nodes"];
    if let Some(sample_ns) = nodes.as_object_mut().unwrap().remove("sample_ns") {
        let sample_ns = sample_ns.as_u64().unwrap();
        let samples = numbers(&nodes["samples"]).into_iter();
        nodes["total_ns"] = samples.map(|samples| samples * sample_ns).collect();
    }
    nodes["self_ns"] = json!(own_times(
        &numbers(&nodes["depth"]),
        &numbers(&nodes["total_ns"])
    ));
    answer
}

fn split_line(bytes: &[u8]) -> (&[u8], &[u8]) {
    let end = bytes.iter().position(|byte| *byte == b'\n').unwrap();
    (&bytes[..end], &bytes[end + 1..])
}

fn read_column<'a>(bytes: &'a [u8], kind: &str, count: usize) -> (Vec<Value>, &'a [u8]) {
    let width = match kind {
        "u8" => 1,
        "u16" | "i16" => 2,
        "u32" | "i32" => 4,
        "f64" => 8,
        other => panic!("{other}"),
    };
    let read = |bytes: &[u8]| match kind {
        "u8" => json!(bytes[0]),
        "u16" => json!(u16::from_le_bytes(bytes.try_into().unwrap())),
        "i16" => json!(i16::from_le_bytes(bytes.try_into().unwrap())),
        "u32" => json!(u32::from_le_bytes(bytes.try_into().unwrap())),
        "i32" => json!(i32::from_le_bytes(bytes.try_into().unwrap())),
        _ => json!(f64::from_le_bytes(bytes.try_into().unwrap()) as u64),
    };
    let values = bytes[..width * count].chunks_exact(width).map(read);
    let padded = (width * count).next_multiple_of(8);
    assert!(bytes[width * count..padded].iter().all(|byte| *byte == 0));
    (values.collect(), &bytes[padded..])
}

fn numbers(values: &Value) -> Vec<u64> {
    let values = values.as_array().unwrap().iter();
    values.map(|value| value.as_u64().unwrap()).collect()
}

/// The total of each node without those of its callees.
fn own_times(depth: &[u64], total_ns: &[u64]) -> Vec<u64> {
    let mut own = total_ns.to_vec();
    let mut callers: Vec<usize> = Vec::new();
    for node in 0..depth.len() {
        callers.truncate(depth[node] as usize);
        if let Some(caller) = callers.last() {
            own[*caller] -= total_ns[node];
        }
        callers.push(node);
    }
    own
}
