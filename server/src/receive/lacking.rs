//! Files of which a window has frames that the node could not name as well as it could have. Pure.

use hashbrown::HashMap;

use super::check::CheckedFile;
use crate::profile::tables::{Location, LocationId, Tables};
use crate::symbol::index::Rank;
use crate::symbol::intake::{Lacking, Offer};

/// The collector's reasons (`UnnamedReason`) of frames that a file which the node has could name: it could not be parsed there,
/// or a limit was reached.
const CORRUPT: u8 = 6;
const LIMIT: u8 = 7;

/// Finds, among the files that a collector offers, those that are lacking names, or files and lines.
pub fn find_lacking(files: &[CheckedFile], tables: &Tables) -> Vec<Lacking> {
    let offered = files.iter().filter(|file| file.offer != Offer::None);
    let mut lacks: HashMap<&str, Option<Rank>> = offered
        .clone()
        .map(|file| (file.build_id.as_str(), None))
        .collect();
    if lacks.is_empty() {
        return Vec::new();
    }
    for (number, location) in tables.locations.iter().enumerate() {
        let Some(lack) = find_lack(tables, LocationId(number as u32), location) else {
            continue;
        };
        let mapping = location
            .mapping
            .map(|mapping| tables.mappings[mapping.position()]);
        let build_id = mapping.map_or("", |mapping| tables.string(mapping.build_id));
        if let Some(known) = lacks.get_mut(build_id) {
            *known = Some(known.map_or(lack, |known| known.min(lack)));
        }
    }
    offered
        .filter_map(|file| {
            Some(Lacking {
                build_id: file.build_id.clone(),
                offer: file.offer,
                lacks: (*lacks.get(file.build_id.as_str())?)?,
            })
        })
        .collect()
}

/// What a location is lacking that the node could have had.
fn find_lack(tables: &Tables, id: LocationId, location: &Location) -> Option<Rank> {
    let lines = tables.own_lines_of(id);
    if lines.is_empty() {
        return [CORRUPT, LIMIT]
            .contains(&location.unnamed.code())
            .then_some(Rank::SymbolTable);
    }
    (!tables.have_source(lines)).then_some(Rank::DebugInfo)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::Unnamed;
    use crate::profile::text::window;

    /// Check that of the files offered those count that have a frame without a name for a reason that the file can help, or one
    /// without a source file.
    #[test]
    fn only_what_can_be_helped_is_lacking() {
        let text = "comm=a | main 0x1f@/lib/b.so 0x2f@/lib/c.so | 7";
        let mut tables = window(text).tables;
        let ids = ["aa", "bb", "cc"];
        for (number, id) in ids.iter().enumerate() {
            tables.mappings[number].build_id = tables.push_string(id);
        }
        let with = |offer| {
            ids.map(|id| CheckedFile {
                build_id: id.parse().unwrap(),
                layout: None,
                offer,
            })
        };
        let found = |tables: &Tables, offer| -> Vec<_> {
            let found = find_lacking(&with(offer), tables).into_iter();
            found
                .map(|file| (file.build_id.to_string(), file.lacks))
                .collect()
        };
        // Nothing is lacking of `main`, which has a source file, and two have no symbol where there is nothing.
        assert!(found(&tables, Offer::DebugInfo).is_empty());
        let at = |tables: &Tables, address| {
            let mut locations = tables.locations.iter();
            locations.position(|location| location.address == address)
        };
        let limited = at(&tables, 0x1f).unwrap();
        tables.locations[limited].unnamed = Unnamed::new(LIMIT, 0);
        for function in &mut tables.functions {
            function.file = Default::default();
        }
        let expected = [("aa", Rank::DebugInfo), ("bb", Rank::SymbolTable)];
        let expected = expected.map(|(id, rank)| (id.to_owned(), rank));
        for offer in [Offer::Unknown, Offer::SymbolTable, Offer::DebugInfo] {
            assert_eq!(found(&tables, offer), expected);
        }
        assert!(found(&tables, Offer::None).is_empty());
    }
}
