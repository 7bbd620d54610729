//! Where names come from that the node did not know.

/// One function at an address, the innermost inlined one first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceFrame<'a> {
    /// Name for people, demangled.
    pub function: &'a str,
    /// Name as in the file; empty if that is the same.
    pub system_name: &'a str,
    /// Source file with its directory, or empty.
    pub file: &'a str,
    /// Line in `file` that the address belongs to, or 0.
    pub line: u32,
    /// Line where the function starts, or 0.
    pub start_line: u32,
}

/// Names addresses in files that it has information about.
///
/// Answers may become better at any time, when information is added, and worse when it is dropped for
/// want of space.
pub trait NameSource: Send + Sync {
    /// Grows whenever an answer may have changed.
    fn generation(&self) -> u64;

    /// Says whether anything is known about the file with this build id. Unlike [`Self::name`], nobody else is asked for it.
    fn knows(&self, build_id: &str) -> bool;

    /// Names offsets in the file with this build id (hexadecimal, as in profiles).
    ///
    /// `name` is called with the position in `offsets` and the frames there, for those that have any.
    /// Gives `false` when nothing is known about the file at all.
    fn name(
        &self,
        build_id: &str,
        offsets: &[u64],
        name: &mut dyn FnMut(usize, &[SourceFrame<'_>]),
    ) -> bool;
}
