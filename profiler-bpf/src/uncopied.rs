//! The reasons for which a stack is not copied.

/// Why a stack that was to be copied was not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Uncopied {
    /// The processor's allowance for this second is used up.
    Allowance = 0,
    /// The ring was half full: samples go first.
    RingBusy = 1,
    /// The ring had no room for it.
    RingFull = 2,
}

impl Uncopied {
    /// All reasons, in the order of their numbers.
    pub const ALL: [Self; 3] = [Self::Allowance, Self::RingBusy, Self::RingFull];

    /// Its name in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Allowance => "allowance",
            Self::RingBusy => "ring_busy",
            Self::RingFull => "ring_full",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that a reason's number is its place in the list.
    #[test]
    fn numbers_are_places() {
        for (place, reason) in Uncopied::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, place);
        }
    }
}
