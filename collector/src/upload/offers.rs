//! Files with symbols that the node did not use, and how they are opened again.
//!
//! In: files as they were seen in a window. Out: the same for a file id that the server asks for. Holds few: it asks right after
//! the window.

use std::sync::Arc;

use parking_lot::Mutex;
use rustc_hash::FxHashMap;

use crate::file::{ElfFile, FileKey};

/// Files that are remembered. A node that compiles uses some 100 in a window; with its path and 16 processes one takes 700
/// bytes, so these are 350 KB.
const FILES_MAX: usize = 512;

/// Digits of a file id: 160 bits, as a build id has.
const FILE_ID_DIGITS: usize = 40;

/// The symbols of a file.
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
    /// The way to open it.
    pub file: Arc<ElfFile>,
    /// The symbols that it seems to have.
    pub thinks: Offer,
    /// The least that helps: names, or where only files and lines are lacking, debug information.
    pub least: Offer,
}

#[derive(Debug)]
struct Offered {
    seen: SeenFile,
    /// The symbols that were found when it was read.
    found: Option<Offer>,
    used: u64,
}

#[derive(Debug, Default)]
struct Table {
    files: FxHashMap<String, Offered>,
    clock: u64,
}

/// The files by their file ids. The publisher of windows adds them, the uploader opens them.
#[derive(Clone, Debug)]
pub struct Offers {
    node: Arc<str>,
    table: Arc<Mutex<Table>>,
}

impl Offers {
    /// No files of this node.
    pub fn new(node: &str) -> Self {
        Self {
            node: node.into(),
            table: Arc::default(),
        }
    }

    /// The id of a file for the server: a digest of the node's name and of the file's stamp. A file that could not be opened has
    /// none.
    pub fn file_id(&self, file: &ElfFile) -> Option<String> {
        let FileKey::Stamp(stamp) = file.key else {
            return None;
        };
        let digest = blake3::hash(format!("{}\0{stamp:?}", self.node).as_bytes());
        Some(digest.to_hex()[..FILE_ID_DIGITS].to_owned())
    }

    /// Notes a file as it is seen now. Gives the symbols that were found in it, or else those that it seems to have.
    pub fn note(&self, file_id: &str, seen: SeenFile) -> Offer {
        let mut table = self.table.lock();
        table.clock += 1;
        let clock = table.clock;
        let found = table.files.get(file_id).and_then(|offered| offered.found);
        let offer = found.unwrap_or(seen.thinks);
        let least = seen.least;
        let offered = Offered {
            seen,
            found,
            used: clock,
        };
        table.files.insert(file_id.to_owned(), offered);
        table.shrink();
        if offer >= least { offer } else { Offer::None }
    }

    /// The file with this id as it was seen last, if it was lately.
    pub fn find(&self, file_id: &str) -> Option<SeenFile> {
        let table = self.table.lock();
        table.files.get(file_id).map(|offered| offered.seen.clone())
    }

    /// Notes what was found in a file.
    pub fn learn(&self, file_id: &str, found: Offer) {
        if let Some(offered) = self.table.lock().files.get_mut(file_id) {
            offered.found = Some(found);
        }
    }
}

impl Table {
    fn shrink(&mut self) {
        if self.files.len() <= FILES_MAX {
            return;
        }
        let oldest = self.files.iter().min_by_key(|(_, offered)| offered.used);
        if let Some(file_id) = oldest.map(|(file_id, _)| file_id.clone()) {
            self.files.remove(&file_id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file::FileStamp;

    fn file(number: u64) -> ElfFile {
        ElfFile {
            key: FileKey::Stamp(FileStamp {
                device: 1,
                inode: number,
                size: 2,
                modified_ns: 3,
                changed_ns: 4,
            }),
            path: format!("/bin/{number}").into(),
            build_id: None,
            inode: None,
            candidates: Vec::new(),
            held: None,
        }
    }

    fn seen(number: u64, least: Offer) -> SeenFile {
        SeenFile {
            file: Arc::new(file(number)),
            thinks: Offer::Unknown,
            least,
        }
    }

    /// Check that a file has the same id each time, and another one than other files and than the same on another node.
    #[test]
    fn file_ids_are_of_one_file() {
        let id = |node, number| Offers::new(node).file_id(&file(number)).unwrap();
        assert_eq!(id("a", 1), id("a", 1));
        assert_eq!(id("a", 1).len(), FILE_ID_DIGITS);
        assert_ne!(id("a", 1), id("a", 2));
        assert_ne!(id("a", 1), id("b", 1));
        let unopened = ElfFile {
            key: FileKey::Place(1),
            ..file(1)
        };
        assert_eq!(Offers::new("a").file_id(&unopened), None);
    }

    /// Check that symbols that were found take precedence, that a file with fewer than needed is not offered, and that the files
    /// seen last are kept.
    #[test]
    fn files_are_remembered() {
        let offers = Offers::new("node");
        let names = Offer::SymbolTable;
        assert_eq!(offers.note("1", seen(1, names)), Offer::Unknown);
        offers.learn("1", Offer::SymbolTable);
        offers.learn("2", Offer::DebugInfo);
        assert_eq!(offers.note("1", seen(7, names)), Offer::SymbolTable);
        let lines = seen(8, Offer::DebugInfo);
        assert_eq!(offers.note("1", lines), Offer::None);
        assert_eq!(offers.find("1").unwrap().file.path, "/bin/8");
        assert!(offers.find("2").is_none());
        for number in 2..=FILES_MAX as u64 + 1 {
            offers.note(&number.to_string(), seen(number, names));
        }
        assert!(offers.find("1").is_none() && offers.find("2").is_some());
        assert_eq!(offers.table.lock().files.len(), FILES_MAX);
    }
}
