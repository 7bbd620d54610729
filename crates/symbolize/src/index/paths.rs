//! Paths of source files, each once, by number.
//!
//! A symcache keeps a path in parts and joins them at each look-up, which takes longer than the look-up. So the files of an
//! index's symcache are named by numbers, and the paths follow the symcache.

use bytes::{Buf as _, BufMut as _};
use rustc_hash::FxHashMap;
use symbolic_common::{clean_path, join_path};

/// Paths of an index that is being made.
#[derive(Debug, Default)]
pub(super) struct PathTable {
    paths: Vec<String>,
    numbers: FxHashMap<[String; 3], usize>,
    /// Lines come in runs of one file.
    last: Option<([String; 3], usize)>,
}

impl PathTable {
    /// The number of a file, by the folder of its unit, its own folder and its name.
    pub(super) fn number(&mut self, parts: [&str; 3]) -> usize {
        if let Some((last, number)) = &self.last
            && *last == parts
        {
            return *number;
        }
        let key = parts.map(str::to_owned);
        let number = match self.numbers.get(&key) {
            Some(number) => *number,
            None => {
                let [unit_folder, folder, name] = parts;
                let path = if name.is_empty() {
                    String::new()
                } else {
                    clean_path(&join_path(&join_folders(unit_folder, folder), name)).into_owned()
                };
                self.paths.push(path);
                self.numbers.insert(key.clone(), self.paths.len() - 1);
                self.paths.len() - 1
            }
        };
        self.last = Some((key, number));
        number
    }

    /// Writes the paths by number.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for path in &self.paths {
            out.put_u32_le(path.len() as u32);
            out.put_slice(path.as_bytes());
        }
        out
    }
}

/// Joins the folder of a unit with a folder of its line table.
pub(super) fn join_folders(unit_folder: &str, folder: &str) -> String {
    // The first folder of a line table is that of the unit, also where it is relative, as in Debian's libc (`./csu`).
    if folder == unit_folder {
        folder.to_owned()
    } else {
        join_path(unit_folder, folder)
    }
}

/// Reads the output of [`PathTable::encode`].
pub(super) fn decode_paths(mut bytes: &[u8]) -> Option<Vec<&str>> {
    let mut paths = Vec::new();
    while !bytes.is_empty() {
        let length = bytes.try_get_u32_le().ok()? as usize;
        paths.push(str::from_utf8(bytes.split_off(..length)?).ok()?);
    }
    Some(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_joined_cleaned_and_kept_once() {
        let mut table = PathTable::default();
        let first = table.number(["/build", "src", "a.c"]);
        assert_eq!(table.number(["/build", "/usr/include", "b.h"]), 1);
        assert_eq!(table.number(["/build", "src/../lib", "c.c"]), 2);
        assert_eq!(table.number(["/build", "src", ""]), 3);
        assert_eq!(table.number(["/build", "src", "a.c"]), first);
        assert_eq!(table.number(["./csu", "./csu", "d.c"]), 4);
        assert_eq!(table.number(["./csu", "../sysdeps", "e.h"]), 5);
        let bytes = table.encode();
        let expected = [
            "/build/src/a.c",
            "/usr/include/b.h",
            "/build/lib/c.c",
            "",
            "csu/d.c",
            "sysdeps/e.h",
        ];
        assert_eq!(decode_paths(&bytes).unwrap(), expected);
        assert_eq!(decode_paths(&bytes[..bytes.len() - 5]), None);
        assert_eq!(decode_paths(&[1, 0, 0, 0, 0xff]), None);
    }
}
