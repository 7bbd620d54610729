//! What could be sent of the files that the node could not name all of, and how they are opened again.
//!
//! In: files as they were seen in a window. Out: the same for a build id that the server asks for. Holds few: it asks right after
//! the window.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustc_hash::FxHashMap;

use crate::name::ElfFile;
use crate::process::BuildId;

/// Files that are remembered. A node that compiles uses some 100 in a window; with its path and 16 processes one takes 700
/// bytes, so these are 350 KB.
const FILES_MAX: usize = 512;

/// What can be named by a file that was not used for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Offer {
    /// Nothing.
    #[default]
    None,
    /// Names of functions.
    SymbolTable,
    /// Names, inlined calls, files and lines.
    DebugInfo,
    /// Nobody has looked.
    Unknown,
}

/// A file of which something is lacking in a window.
#[derive(Clone, Debug)]
pub struct SeenFile {
    /// How it is opened.
    pub file: Arc<ElfFile>,
    /// What it is thought to have.
    pub thinks: Offer,
    /// The least that helps: names, or where only files and lines are lacking, debug information.
    pub least: Offer,
}

#[derive(Debug)]
struct Offered {
    seen: SeenFile,
    /// What was found when the file was looked at.
    found: Option<Offer>,
    used: u64,
}

#[derive(Debug, Default)]
struct Table {
    files: FxHashMap<BuildId, Offered>,
    clock: u64,
}

/// The files, shared by who names and who sends.
#[derive(Clone, Debug, Default)]
pub struct Offers(Arc<Mutex<Table>>);

impl Offers {
    /// Notes a file as it is seen now. Gives what it offers: what was found in it, or else what it is thought to have.
    pub fn note(&self, build_id: BuildId, seen: SeenFile) -> Offer {
        let mut table = self.lock();
        table.clock += 1;
        let clock = table.clock;
        let found = table.files.get(&build_id).and_then(|it| it.found);
        let offer = found.unwrap_or(seen.thinks);
        let least = seen.least;
        let offered = Offered {
            seen,
            found,
            used: clock,
        };
        table.files.insert(build_id, offered);
        table.shrink();
        if offer >= least { offer } else { Offer::None }
    }

    /// The file with this build id as it was seen last, if it was lately.
    pub fn find(&self, build_id: &BuildId) -> Option<SeenFile> {
        self.lock().files.get(build_id).map(|it| it.seen.clone())
    }

    /// Notes what was found in a file.
    pub fn learn(&self, build_id: &BuildId, found: Offer) {
        if let Some(offered) = self.lock().files.get_mut(build_id) {
            offered.found = Some(found);
        }
    }

    /// What it guards is whole at each moment.
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn shrink(&mut self) {
        if self.files.len() <= FILES_MAX {
            return;
        }
        let oldest = self.files.iter().min_by_key(|(_, it)| it.used);
        if let Some(build_id) = oldest.map(|(build_id, _)| *build_id) {
            self.files.remove(&build_id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::FileKey;

    fn id(number: u32) -> BuildId {
        BuildId::new(&number.to_le_bytes()).unwrap()
    }

    fn seen(number: u32, least: Offer) -> SeenFile {
        SeenFile {
            file: Arc::new(ElfFile {
                key: FileKey::BuildId(id(number)),
                path: format!("/bin/{number}").into(),
                build_id: Some(id(number)),
                inode: None,
                candidates: Vec::new(),
                held: None,
            }),
            thinks: Offer::Unknown,
            least,
        }
    }

    /// Check that what was found stands against what is thought, that less than what helps is nothing, and that the files seen
    /// last are kept.
    #[test]
    fn files_are_remembered() {
        let offers = Offers::default();
        let names = Offer::SymbolTable;
        assert_eq!(offers.note(id(1), seen(1, names)), Offer::Unknown);
        offers.learn(&id(1), Offer::SymbolTable);
        offers.learn(&id(2), Offer::DebugInfo);
        assert_eq!(offers.note(id(1), seen(7, names)), Offer::SymbolTable);
        let lines = seen(8, Offer::DebugInfo);
        assert_eq!(offers.note(id(1), lines), Offer::None);
        assert_eq!(offers.find(&id(1)).unwrap().file.path, "/bin/8");
        assert!(offers.find(&id(2)).is_none());
        for number in 2..=FILES_MAX as u32 + 1 {
            offers.note(id(number), seen(number, names));
        }
        assert!(offers.find(&id(1)).is_none() && offers.find(&id(2)).is_some());
        assert_eq!(offers.lock().files.len(), FILES_MAX);
    }
}
