//! Functions at addresses, from debug information in several files.

use std::cell::LazyCell;
use std::sync::Arc;

use addr2line::{Context, LookupContinuation as _, LookupResult, SplitDwarfLoad};
use gimli::{
    AbbreviationsCacheStrategy, DW_AT_GNU_dwo_id, DebugAbbrev, DebugInfo, Dwarf, DwarfFileType,
    DwarfPackage, DwarfSections, DwoId, Reader as _, SectionId, UnitHeader, UnitType,
};
use rustc_hash::{FxHashMap, FxHashSet};

use super::bytes::Bytes;
use super::image::Image;
use crate::name::answers::Found;
use crate::name::protocol::{SPLIT_PATH_BYTES_MAX, SplitFile};

/// Units that are looked at for being split: what is not split comes from libraries, which are linked last. Each may
/// cost a block of the file, so these are 16 MB at most.
const UNITS_LOOKED_AT: usize = 4096;

/// What is found at an address.
#[derive(Debug)]
pub enum Lookup {
    /// Functions, the innermost first. The outermost may have no name, when only its line is known.
    Found(Vec<Found>),
    /// Nothing.
    Nothing,
    /// What is there cannot be read.
    Damaged,
    /// It lies in another file. What is known without it comes too.
    Wants(SplitFile, Vec<Found>),
}

/// Debug information, and the files that belong to it.
pub(super) struct Reader {
    context: Context<Bytes>,
    package: Option<DwarfPackage<Bytes>>,
    /// Those that came and were not asked for yet, by their number. What was is in the context.
    split: FxHashMap<u64, Dwarf<Bytes>>,
}

impl Reader {
    /// Reads the list of units. `alternative` is the file that several share.
    pub(super) fn open(image: &Image, alternative: Option<&Image>) -> gimli::Result<Self> {
        let mut dwarf = load(image, SectionId::name_of_main)?;
        if let Some(alternative) = alternative {
            dwarf.set_sup(load(alternative, SectionId::name_of_main)?);
        }
        dwarf.populate_abbreviations_cache(AbbreviationsCacheStrategy::Duplicates);
        Ok(Self {
            context: Context::from_dwarf(dwarf)?,
            package: None,
            split: FxHashMap::default(),
        })
    }

    /// Takes a package of split units. Gives whether it is one.
    pub(super) fn take_package(&mut self, image: &Image) -> bool {
        let section = |id: SectionId| {
            Ok(id
                .dwo_name()
                .map_or_else(Bytes::none, |it| image.section(it)))
        };
        let package: gimli::Result<_> = DwarfPackage::load(section, Bytes::none());
        self.package = package.ok();
        self.package.is_some()
    }

    /// Takes a file with the split unit `id`. Gives whether it has that.
    pub(super) fn take_split(&mut self, id: u64, image: &Image) -> bool {
        let dwarf = load_split(image, id);
        let is_it = dwarf.is_some();
        self.split.extend(dwarf.map(|it| (id, it)));
        is_it
    }

    /// Looks an address up. Of the files in `absent` nothing more is to be had than was given.
    pub(super) fn find(&mut self, address: u64, absent: &FxHashSet<u64>) -> Lookup {
        let Self {
            context,
            package,
            split,
        } = self;
        let mut lookup = context.find_frames(address);
        loop {
            lookup = match lookup {
                LookupResult::Output(frames) => {
                    let found = frames.and_then(|mut frames| read_lookup(&mut frames));
                    return found.unwrap_or(Lookup::Damaged);
                }
                LookupResult::Load { load, continuation } => {
                    let unit = find_in_package(package.as_ref(), &load)
                        .or_else(|| take_unit(split, &load));
                    match unit {
                        None if !absent.contains(&load.dwo_id.0)
                            && let Some(wanted) = name_split_file(&load) =>
                        {
                            return Lookup::Wants(wanted, find_line(context, address));
                        }
                        unit => continuation.resume(unit.map(Arc::new)),
                    }
                }
            };
        }
    }
}

/// Whether some of its units lie in other files.
pub(super) fn is_split(image: &Image) -> bool {
    // Before DWARF 5 only split units have this section; since then clang writes it for all.
    if !image.has(SectionId::DebugAddr.name()) {
        return false;
    }
    let info = DebugInfo::from(image.section(SectionId::DebugInfo.name()));
    // Most often no unit needs them, and they may be compressed.
    let abbreviations =
        LazyCell::new(|| DebugAbbrev::from(image.section(SectionId::DebugAbbrev.name())));
    let mut units = info.units();
    (0..UNITS_LOOKED_AT)
        .map_while(|_| units.next().ok().flatten())
        .any(|it| match it.version() {
            5.. => matches!(it.type_(), UnitType::Skeleton(_)),
            _ => has_split_id(&it, &abbreviations).unwrap_or(false),
        })
}

/// Whether a unit from before DWARF 5 says the number of its other part.
fn has_split_id(
    unit: &UnitHeader<Bytes>,
    abbreviations: &DebugAbbrev<Bytes>,
) -> gimli::Result<bool> {
    let abbreviations = unit.abbreviations(abbreviations)?;
    let mut entries = unit.entries(&abbreviations);
    let root = entries.next_dfs()?;
    Ok(root.is_some_and(|it| it.attr(DW_AT_GNU_dwo_id).is_some()))
}

/// What its sections are called, in the file itself and in split ones.
trait SectionNames {
    fn name_of_main(&self) -> Option<&'static str>;
    fn name_of_split(&self) -> Option<&'static str>;
}

impl SectionNames for SectionId {
    fn name_of_main(&self) -> Option<&'static str> {
        Some(self.name())
    }

    fn name_of_split(&self) -> Option<&'static str> {
        self.dwo_name()
    }
}

/// The sections of a file that is whole.
pub(super) fn load_main(image: &Image) -> gimli::Result<DwarfSections<Bytes>> {
    DwarfSections::load(|id| Ok(image.section(id.name())))
}

fn load(
    image: &Image,
    name: fn(&SectionId) -> Option<&'static str>,
) -> gimli::Result<Dwarf<Bytes>> {
    Dwarf::load(|id| Ok(name(&id).map_or_else(Bytes::none, |it| image.section(it))))
}

fn find_in_package(
    package: Option<&DwarfPackage<Bytes>>,
    load: &SplitDwarfLoad<Bytes>,
) -> Option<Dwarf<Bytes>> {
    package?.find_cu(load.dwo_id, &load.parent).ok()?
}

/// A file with the split unit `id`, which compilers write as its first one.
fn load_split(image: &Image, id: u64) -> Option<Dwarf<Bytes>> {
    let mut dwarf = load(image, SectionId::name_of_split).ok()?;
    dwarf.file_type = DwarfFileType::Dwo;
    let header = dwarf.units().next().ok()??;
    let unit = dwarf.unit(header).ok()?;
    (unit.dwo_id == Some(DwoId(id))).then_some(dwarf)
}

/// The unit that came in a file of its own.
fn take_unit(
    split: &mut FxHashMap<u64, Dwarf<Bytes>>,
    load: &SplitDwarfLoad<Bytes>,
) -> Option<Dwarf<Bytes>> {
    let mut dwarf = split.remove(&load.dwo_id.0)?;
    dwarf.make_dwo(&load.parent);
    Some(dwarf)
}

/// Which file is to be looked for, if its name is one.
fn name_split_file(load: &SplitDwarfLoad<Bytes>) -> Option<SplitFile> {
    let text = |bytes: &Bytes| -> Option<String> {
        let text = bytes.to_string().ok()?;
        (text.len() <= SPLIT_PATH_BYTES_MAX).then(|| text.into_owned())
    };
    Some(SplitFile {
        id: load.dwo_id.0,
        directory: load.comp_dir.as_ref().and_then(text).unwrap_or_default(),
        name: load
            .path
            .as_ref()
            .and_then(text)
            .filter(|it| !it.is_empty())?,
    })
}

/// The line alone, which is in the file itself.
fn find_line(context: &Context<Bytes>, address: u64) -> Vec<Found> {
    match context.find_location(address) {
        Ok(Some(location)) => vec![found(String::new(), Some(&location))],
        _ => Vec::new(),
    }
}

/// The functions at an address.
pub(super) fn read_lookup(frames: &mut addr2line::FrameIter<'_, Bytes>) -> gimli::Result<Lookup> {
    let mut found_frames = Vec::new();
    while let Some(frame) = frames.next()? {
        let name = frame.function.as_ref().and_then(|it| it.raw_name().ok());
        let name = name.map(|it| it.into_owned()).unwrap_or_default();
        found_frames.push(found(name, frame.location.as_ref()));
    }
    let Some(outer) = found_frames.pop() else {
        return Ok(Lookup::Nothing);
    };
    // An inlined function without a name is known to nobody; the line that called it is.
    found_frames.retain(|it| !it.symbol.is_empty());
    found_frames.push(outer);
    Ok(Lookup::Found(found_frames))
}

fn found(symbol: String, location: Option<&addr2line::Location<'_>>) -> Found {
    let Some(location) = location else {
        return Found::bare(symbol);
    };
    Found {
        file: location.file.unwrap_or_default().to_owned(),
        line: location.line.unwrap_or(0),
        column: location.column.unwrap_or(0),
        ..Found::bare(symbol)
    }
}
