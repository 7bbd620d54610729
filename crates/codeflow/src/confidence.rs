//! How sure rules are, and the rows that are made of them.

/// How sure a rule is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Confidence {
    /// By a path that has to be taken for something that looked otherwise, or that does not restore
    /// all registers.
    Weak,
    /// By an indirect jump that looks like a tail call.
    Tail,
    /// By a path to a return, or from a function's start.
    Certain,
}
