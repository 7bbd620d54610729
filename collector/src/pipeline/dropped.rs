//! Samples that are lost after the program sent them, by stage.

use metrics::{Registry, register_figures};

use crate::{metrics::Stats, send::SenderWatch};

/// A stage in which a sample can be lost after the program sent it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    /// The record could not be decoded.
    Decode,
    /// The policy excludes the pod, and the kernel did not know it yet, or had no room for it.
    Policy,
    /// The policy excludes some pods, and the sample's pod was not known in time.
    Undecided,
    /// The window's table of stacks was full.
    Aggregate,
    /// Windows came faster than they could be named.
    Name,
    /// A relabelling rule dropped the series.
    Relabel,
    /// The server was away for too long, or refused the window.
    Send,
}

impl Stage {
    /// All stages in their order.
    pub(super) const ALL: [Self; 7] = [
        Self::Decode,
        Self::Policy,
        Self::Undecided,
        Self::Aggregate,
        Self::Name,
        Self::Relabel,
        Self::Send,
    ];

    /// Its name in metrics.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Decode => "decode",
            Self::Policy => "policy",
            Self::Undecided => "undecided",
            Self::Aggregate => "aggregate",
            Self::Name => "name",
            Self::Relabel => "relabel",
            Self::Send => "send",
        }
    }
}

/// Samples dropped since the start, which all stages count together. Clones share the counts.
#[derive(Clone, Default)]
pub(super) struct DroppedSamples(Stats<[u64; Stage::ALL.len()]>);

impl DroppedSamples {
    /// Counts samples.
    pub(super) fn add(&self, stage: Stage, samples: u64) {
        self.0.lock()[stage as usize] += samples;
    }

    /// Samples dropped at a stage.
    #[cfg(test)]
    pub(super) fn at(&self, stage: Stage) -> u64 {
        self.0.lock()[stage as usize]
    }

    /// Registers the counts, with those of the sender.
    pub(super) fn register(&self, registry: &mut Registry, sender: SenderWatch) {
        let dropped = self.clone();
        register_figures(registry, move |figures| {
            let mut dropped = *dropped.0.lock();
            let unsent = sender.stats().dropped;
            dropped[Stage::Send as usize] +=
                unsent.iter().map(|dropped| dropped.samples).sum::<u64>();
            figures.counters(
                "dropped",
                "Samples lost after the ring, by stage",
                ["stage"],
                Stage::ALL.map(|stage| ([stage.name()], dropped[stage as usize])),
            );
        });
    }
}
