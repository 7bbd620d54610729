//! Reasons for locations without a name: lists beside the profile.

use std::iter::repeat;

use hashbrown::HashMap;
use model::Unnamed;

use super::super::refusal::Refusal;
use super::refuse;

/// Reasons for locations without a name, as parallel lists.
#[derive(Clone, Copy, Default)]
pub struct UnnamedLocations<'a> {
    /// pprof's ids of the locations.
    pub ids: &'a [u64],
    /// The reasons.
    pub reasons: &'a [i32],
    /// Distances from the starts of their functions, plus one; or empty.
    pub function_distances: &'a [u32],
}

pub(super) fn read_unnamed(
    unnamed: UnnamedLocations<'_>,
) -> Result<HashMap<u64, Unnamed>, Refusal> {
    let UnnamedLocations {
        ids,
        reasons,
        function_distances,
    } = unnamed;
    if ids.len() != reasons.len() {
        return Err(refuse(format!(
            "{} unnamed_location_ids and {} unnamed_reasons",
            ids.len(),
            reasons.len()
        )));
    }
    if ![0, ids.len()].contains(&function_distances.len()) {
        return Err(refuse(format!(
            "{} unnamed_location_ids and {} unnamed_function_distances",
            ids.len(),
            function_distances.len()
        )));
    }
    // Older collectors do not send distances.
    let function_distances = function_distances.iter().copied().chain(repeat(0));
    let mut read = HashMap::with_capacity(ids.len());
    for ((id, reason), function_distance) in ids.iter().zip(reasons).zip(function_distances) {
        // A reason of a newer collector that this server does not know is kept as its number.
        let Ok(reason) = u8::try_from(*reason) else {
            return Err(refuse(format!(
                "unnamed_reasons has {reason}, which cannot be a reason"
            )));
        };
        let unnamed = Unnamed::new(reason, function_distance);
        if read.insert(*id, unnamed).is_some() {
            return Err(refuse(format!("unnamed_location_ids has {id} twice")));
        }
    }
    Ok(read)
}
