//! Names from the table that Go's runtime has for itself, in every Go program, stripped or not.
//!
//! In: bytes of an ELF file, read where they are needed, and offsets in it. Out: functions with files and
//! lines, inlined ones included. Never panics, and reads and allocates within the limits of its parts,
//! whatever the file says.
//!
//! ```text
//! blocks (bytes) <- headers (where the table is) <- module (what it is relative to) <- table (names)
//! ```

mod blocks;
mod headers;
mod module;
mod table;

use blocks::Blocks;
use headers::Headers;
use module::Module;
pub use table::GoFunction;
use table::Table;

/// A Go program or library.
pub struct GoFile<R> {
    blocks: Blocks<R>,
    headers: Headers,
    table: Table,
    module: Module,
}

impl<R: Fn(u64, &mut [u8]) -> usize> GoFile<R> {
    /// Looks for the table in a file. `read` fills the buffer from an offset and gives the number of
    /// bytes, fewer at the file's end. `None` when the file has no table that can be read.
    pub fn open(read: R) -> Option<Self> {
        let mut blocks = Blocks::new(read);
        let headers = Headers::read(&mut blocks)?;
        let (table, module) = headers.find_table(&mut blocks)?;
        Some(Self {
            blocks,
            headers,
            table,
            module,
        })
    }

    /// The functions at an offset in the file, the innermost first: all but the last are inlined. Empty
    /// when the offset lies in no function of Go's.
    pub fn name(&mut self, offset: u64) -> Vec<GoFunction> {
        let Some(address) = self.headers.address_of_code(offset) else {
            return Vec::new();
        };
        self.table
            .name(&mut self.blocks, &self.headers, &self.module, address)
            .unwrap_or_default()
    }
}
