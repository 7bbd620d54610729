//! Sources of names that the nodes did not know.

/// A function at an offset of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceFrame<'a> {
    /// Name for people, demangled.
    pub function: &'a str,
    /// Name as in the file; empty if it is the same.
    pub system_name: &'a str,
    /// Source file; empty if not known.
    pub file: &'a str,
    /// Line, 0 if not known.
    pub line: u32,
    /// First line of the function, 0 if not known.
    pub start_line: u32,
}

/// Names offsets in files by their symbols.
///
/// Answers may become better at any time, when symbols are added, and worse when they are evicted.
pub trait NameSource: Send + Sync {
    /// Whether there are symbols for this build id. Unlike [`Self::name`], this fetches nothing.
    fn knows(&self, build_id: &str) -> bool;

    /// Names offsets in the file with this build id (hexadecimal, as in profiles).
    ///
    /// `name` is called with the position in `offsets` and the frames there, innermost first, for those that have any.
    /// Returns `false` when there are no symbols for the file.
    fn name(
        &self,
        build_id: &str,
        offsets: &[u64],
        name: &mut dyn FnMut(usize, &[SourceFrame<'_>]),
    ) -> bool;

    /// Names offsets in the file with this file id, as [`Self::name`] does, by the file that its collector has sent.
    fn name_sent(
        &self,
        _file_id: &str,
        _offsets: &[u64],
        _name: &mut dyn FnMut(usize, &[SourceFrame<'_>]),
    ) {
    }
}
