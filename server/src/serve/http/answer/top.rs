//! Functions by CPU time.

use query::Tree;
use query::frame_table::Frame;
use query::functions::{FunctionPage, FunctionUsage};
use serde::Serialize;

/// `/api/v1/top`
#[derive(Serialize)]
pub struct TopAnswer {
    total_ns: u64,
    samples: u64,
    count: usize,
    functions: Vec<FunctionEntry>,
}

#[derive(Serialize)]
struct FunctionEntry {
    name: String,
    binary: String,
    file: String,
    kind: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    build_id: Option<String>,
    self_ns: u64,
    total_ns: u64,
    self_samples: u64,
    total_samples: u64,
}

impl TopAnswer {
    /// Shows a page of functions.
    pub fn new(tree: &Tree, page: &FunctionPage) -> Self {
        let table = tree.frames();
        let entry = |function: &FunctionUsage| {
            let Frame {
                name,
                binary,
                file,
                kind,
            } = table.frame(function.frame);
            let why_not = table.why_not(function.frame);
            FunctionEntry {
                reason: why_not.map(|why| why.reason.code()),
                build_id: why_not.map(|why| table.string(why.build_id).to_owned()),
                name: table.string(name).to_owned(),
                binary: table.string(binary).to_owned(),
                file: table.string(file).to_owned(),
                kind: kind as u8,
                self_ns: function.own.ns,
                total_ns: function.total.ns,
                self_samples: function.own.samples,
                total_samples: function.total.samples,
            }
        };
        Self {
            total_ns: tree.total().ns,
            samples: tree.total().samples,
            count: page.count,
            functions: page.functions.iter().map(entry).collect(),
        }
    }
}
