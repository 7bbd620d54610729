//! The source of a server that has nothing to name addresses with.

use super::{NameSource, SourceFrame};

/// Knows nothing.
pub struct NoNames;

impl NameSource for NoNames {
    fn generation(&self) -> u64 {
        0
    }

    fn knows(&self, _build_id: &str) -> bool {
        false
    }

    fn name(
        &self,
        _build_id: &str,
        _offsets: &[u64],
        _name: &mut dyn FnMut(usize, &[SourceFrame<'_>]),
    ) -> bool {
        false
    }
}
