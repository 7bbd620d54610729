//! Recordings of generated clusters.

use std::path::Path;
use std::thread;
use std::time::Instant;

use anyhow::{Result, anyhow};
use fleet::{Fleet, Shape};
use prost::Message as _;
use proto::v1::PushRequest;

use crate::recording::{RecordingWriter, Summed};
use crate::test_push::push_request;

/// Writes the windows of some clusters as those of one: each window of all nodes, then the next.
pub(crate) fn record_fleets(path: &Path, shapes: &[Shape]) -> Result<()> {
    let fleets: Vec<Fleet> = shapes.iter().copied().map(Fleet::new).collect();
    let windows: Vec<usize> = (0..shapes[0].windows).collect();
    let mut writer = RecordingWriter::create(path)?;
    let threads = thread::available_parallelism().map_or(2, |threads| threads.get());
    let started = Instant::now();
    for batch in windows.chunks(threads) {
        let made: Vec<_> = thread::scope(|scope| {
            let fleets = &fleets;
            let make = |window: &usize| {
                let window = *window;
                scope.spawn(move || make_window(fleets, window))
            };
            let workers: Vec<_> = batch.iter().map(make).collect();
            workers.into_iter().map(|worker| worker.join()).collect()
        });
        for window in made {
            let window = window.map_err(|_| anyhow!("a thread that makes windows panicked"))?;
            for (bytes, summed) in window? {
                writer.append(&bytes, summed)?;
            }
        }
        if batch[0] % 30 == 0 {
            let (at, all, time) = (batch[0], windows.len(), started.elapsed());
            eprintln!("generated {at} of {all} windows of each node in {time:.0?}");
        }
    }
    writer.finish()
}

/// A window of all nodes of all clusters.
fn make_window(fleets: &[Fleet], window: usize) -> Result<Vec<(Vec<u8>, Summed)>> {
    let mut made = Vec::new();
    for (number, fleet) in fleets.iter().enumerate() {
        let nodes = fleet.shape().nodes;
        for node in 0..nodes {
            let mut request = push_request(&fleet.window(node, window));
            rename_node(&mut request, number * nodes + node);
            made.push((request.encode_to_vec(), Summed::of(&request)?));
        }
    }
    Ok(made)
}

fn rename_node(request: &mut PushRequest, node: usize) {
    request.node = format!("node-{node:02}");
    request.collector_instance = (node as u128 + 1).to_be_bytes().to_vec();
    let labels = request.series.iter_mut().flat_map(|set| &mut set.labels);
    for label in labels.filter(|label| label.name == "node") {
        label.value.clone_from(&request.node);
    }
}
