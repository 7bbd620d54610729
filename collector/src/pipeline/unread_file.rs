//! A mapped file as the thread that opens it gets it.

use crate::{
    file::{ElfFile, FileKey, MappedBy},
    process::{ContentId, MappedFile},
};

/// The file as far as it is known without reading it.
pub(super) fn describe_unread(file: &MappedFile, mapped_by: &[MappedBy]) -> ElfFile {
    let build_id = match file.content_id() {
        Some(ContentId::BuildId(id)) => Some(id),
        Some(ContentId::Hash(_)) | None => None,
    };
    let place = format!("{}\0{:?}", file.path, file.identity);
    ElfFile {
        key: FileKey::Place(xxhash_rust::xxh3::xxh3_128(place.as_bytes())),
        path: file.path.to_string().into(),
        build_id,
        inode: file.identity.inode(),
        candidates: mapped_by.iter().rev().copied().collect(),
        held: None,
    }
}
