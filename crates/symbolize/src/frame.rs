//! A function at an address.

/// Bytes of a function's name or of a path; longer ones are cut. Names of expanded C++ templates reach tens of kilobytes.
pub const STRING_BYTES_MAX: usize = 4096;

/// Functions at one address, inlined ones included. Rust's chains of iterators reach about 30.
pub const FUNCTIONS_MAX: usize = 128;

/// A function at an address: that whose code it is, or one that was inlined there. Those of an address come innermost first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frame {
    /// Name in the symbol table or in the debug information, not demangled.
    pub symbol: String,
    /// Source file, or empty.
    pub file: String,
    /// Line, or 0.
    pub line: u32,
    /// Column, or 0.
    pub column: u32,
    /// Line where the function starts, or 0.
    pub start_line: u32,
}

impl Frame {
    /// A frame with a name only.
    pub fn bare(symbol: String) -> Self {
        Self {
            symbol,
            ..Self::default()
        }
    }
}
