//! Size and limits of a store, as an operator sees them.

/// When windows are rolled up, and to what length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RollUp {
    /// Age of a whole span, in milliseconds.
    pub after_ms: i64,
    /// Length of its windows then, in milliseconds.
    pub resolution_ms: u64,
}

/// What a roll-up does with the addresses of locations whose functions and lines are known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RollUpAddresses {
    /// They stay.
    #[default]
    Keep,
    /// They are dropped.
    Drop,
}

/// The windows that a store has, and the limits after which it evicts them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// Bytes of all files of windows.
    pub bytes: u64,
    /// Start of the oldest windows, or at most an hour before it, in milliseconds since the Unix epoch; `None` without windows.
    pub oldest_ms: Option<i64>,
    /// Milliseconds that windows are kept after their end; `None` if age does not matter.
    pub age_ms: Option<i64>,
    /// Most bytes of all files; `None` if there is no limit.
    pub bytes_max: Option<u64>,
    /// By age, the youngest first.
    pub roll_ups: Vec<RollUp>,
    /// Files beyond the limits of a new directory, if this one has no limit since an earlier version filled it.
    pub beyond_defaults: Option<BeyondDefaults>,
}

/// Files that are older than a new directory would keep them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BeyondDefaults {
    /// The age that a new directory keeps, in milliseconds.
    pub age_ms: i64,
    /// Files.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
}
