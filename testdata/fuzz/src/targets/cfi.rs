//! Call frame information: the input is `.eh_frame` or, by its first byte, `.debug_frame` of a file that is otherwise whole.

use crate::inputs::elves;

pub(crate) fn run(input: &[u8]) {
    elves::try_section(input);
}

pub(crate) fn make_seeds() -> Vec<Vec<u8>> {
    elves::make_sections()
}
