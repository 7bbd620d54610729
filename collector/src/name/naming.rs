//! The names of an address, or the reason why it has none.

use std::sync::Arc;

use crate::file::UnnamedReason;

/// One function at an address: the one whose code it is, or one it was inlined into.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The function's name as a person would write it.
    pub function: Arc<str>,
    /// Its name in the symbol table, empty if that is the same.
    pub system_name: Arc<str>,
    /// Its source file with directory, as the debug information says, or empty.
    pub file: Arc<str>,
    /// Line in `file` that the address belongs to, or 0.
    pub line: u32,
    /// Column in that line, or 0.
    pub column: u32,
    /// Line where the function starts, or 0.
    pub start_line: u32,
    /// Whether the next frame of the same address called it inline.
    pub inlined: bool,
}

/// The names of one address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Naming {
    /// At least one frame, the innermost first.
    Named(Arc<[Frame]>),
    /// No name.
    Unnamed(UnnamedReason),
    /// No symbol, but so many bytes before the address its function starts.
    InFunction(u32),
}

impl Naming {
    /// Why there is no name, if there is none.
    pub fn unnamed(&self) -> Option<UnnamedReason> {
        match self {
            Self::Named(_) => None,
            Self::Unnamed(reason) => Some(*reason),
            Self::InFunction(_) => Some(UnnamedReason::NoSymbol),
        }
    }
}
