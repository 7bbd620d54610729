//! Functions at addresses, from debug information in one file or several.
//!
//! Of a unit only that is read which an address needs: its table of functions and its lines, once, and of the function there the
//! entries of inlined calls. A name that is in another unit is read there, without more of that unit. Units that were just used stay
//! open.

use std::cell::{LazyCell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use gimli::{
    AttributeValue, DebugAbbrev, DebugInfo, DebugInfoOffset, Dwarf, DwarfFileType, DwarfPackage,
    DwoId, Error, Reader as _, Result, Section as _, SectionId, UnitHeader, UnitOffset, UnitType,
    constants as dw,
};
use rustc_hash::{FxHashMap, FxHashSet};

use super::bytes::Bytes;
use super::functions::NameAttributes;
use super::image::Image;
use super::split_file::SplitFile;
use super::unit::OpenUnit;
use super::units::UnitIndex;
use crate::frame::Frame;

/// Units that are open, which are searched one after the other.
const OPEN_MAX: usize = 256;

/// Bytes of the open units, unless it is one. One of libc takes 15 KB and one of CPython, optimized at link time, 35 KB, two thirds of
/// that for abbreviations.
const OPEN_BYTES_MAX: usize = 2 << 20;

/// Names that are kept, and the bytes of one: 0.6 MB in all.
const NAMES_MAX: usize = 2048;
const NAME_BYTES_MAX: usize = 256;

/// Entries from one without a name to the one that has it.
const REFERENCES_MAX: usize = 16;

/// Units that are looked at for being split: what is not split comes from libraries, which are linked last. Each may
/// cost a block of the file, so these are 16 MB at most.
const UNITS_LOOKED_AT: usize = 4096;

/// The answer for an address.
#[derive(Debug)]
pub enum Lookup {
    /// Functions, the innermost first. The outermost may have no name, when only its line is known.
    Found(Vec<Frame>),
    /// Nothing.
    Nothing,
    /// Damaged debug information.
    Damaged,
    /// A further file is needed. The frames that are known without it come too.
    Wants(SplitFile, Vec<Frame>),
}

/// Debug information, and the files that belong to it.
pub(super) struct Reader {
    main: Arc<Dwarf<Bytes>>,
    index: UnitIndex,
    /// The units of the file that several share, which is `main.sup`.
    alternative: UnitIndex,
    package: Option<DwarfPackage<Bytes>>,
    /// Split files by the ids of their units.
    split: FxHashMap<u64, Arc<Dwarf<Bytes>>>,
    /// The most recently used unit is the last.
    open: RefCell<Vec<(UnitKey, Rc<OpenUnit>)>>,
    /// Names of functions in other units than their code, by the offsets of their entries. With link-time optimization they are in
    /// many units.
    names: RefCell<FxHashMap<usize, String>>,
}

/// A unit, by its number in a file or its id.
#[derive(Clone, Copy, PartialEq, Eq)]
enum UnitKey {
    Main(u32),
    Alternative(u32),
    Split(u64),
}

impl Reader {
    /// Reads the list of units. `alternative` is the file that several share.
    pub(super) fn open(image: &Image, alternative: Option<&Image>) -> Result<Self> {
        let mut main = load(image, SectionId::name_of_main)?;
        if let Some(alternative) = alternative {
            main.set_sup(load(alternative, SectionId::name_of_main)?);
        }
        let units = main.sup().map(UnitIndex::read_edges).transpose()?;
        let main = share(main);
        Ok(Self {
            index: UnitIndex::read(&main)?,
            main,
            alternative: units.unwrap_or_default(),
            package: None,
            split: FxHashMap::default(),
            open: RefCell::default(),
            names: RefCell::default(),
        })
    }

    /// Takes a package of split units. Gives whether it is one.
    pub(super) fn take_package(&mut self, image: &Image) -> bool {
        let section = |id: SectionId| Ok(read_section(image, id.dwo_name()));
        let package: Result<_> = DwarfPackage::load(section, Bytes::none());
        self.package = package.ok();
        self.package.is_some()
    }

    /// Takes a file with the split unit `id`. Gives whether it has that.
    pub(super) fn take_split(&mut self, id: u64, image: &Image) -> bool {
        let dwarf = load_split(image, id);
        let is_it = dwarf.is_some();
        self.split.extend(dwarf.map(|mut dwarf| {
            dwarf.make_dwo(&self.main);
            (id, share(dwarf))
        }));
        is_it
    }

    /// Frees what was read of units.
    pub(super) fn close_units(&self) {
        self.open.take();
        self.names.take();
    }

    /// Whether all units are in memory, since their section is compressed in the file.
    pub(super) fn is_resident(&self) -> bool {
        self.main.debug_info.reader().is_resident()
    }

    /// Looks an address up. Of the files in `absent` nothing more is to be had than was given.
    pub(super) fn find(&self, address: u64, absent: &FxHashSet<u64>) -> Lookup {
        for unit in self.index.find(address) {
            match self.find_in(unit, address, absent) {
                Ok(Lookup::Nothing) => {}
                Ok(found) => return found,
                Err(_) => return Lookup::Damaged,
            }
        }
        Lookup::Nothing
    }

    fn find_in(&self, number: u32, address: u64, absent: &FxHashSet<u64>) -> Result<Lookup> {
        let key = UnitKey::Main(number);
        let unit = self.open_numbered(key)?;
        let split = match unit.unit_ref().dwo_id {
            Some(id) => self.open_split(id, &unit)?,
            None => None,
        };
        if split.is_none()
            && let Some(file) = unit.split_file()
            && !absent.contains(&file.id)
        {
            // The line is in the file itself.
            let line = unit.find_line(address)?;
            let frame = line.map(|line| unit.frame_at(String::new(), line));
            return Ok(Lookup::Wants(
                file,
                frame.transpose()?.into_iter().collect(),
            ));
        }
        let (key, code) = split.unwrap_or_else(|| (key, Rc::clone(&unit)));
        let function = code.find_function(address)?;
        let mut line = unit.find_line(address)?;
        let mut frames = Vec::new();
        let frame_at = |symbol, line| match line {
            Some(line) => unit.frame_at(symbol, line),
            None => Ok(Frame::bare(symbol)),
        };
        let Some(function) = function else {
            frames.extend(
                line.map(|line| unit.frame_at(String::new(), line))
                    .transpose()?,
            );
            return Ok(if frames.is_empty() {
                Lookup::Nothing
            } else {
                Lookup::Found(frames)
            });
        };
        for call in code.find_inlined(function, address)?.into_iter().rev() {
            let symbol = self.name_of(key, &code, call.names)?;
            // An inlined function without a name is known to nobody; the line that called it is.
            if !symbol.is_empty() {
                frames.push(frame_at(symbol, line)?);
            }
            line = Some(call.place);
        }
        let names = NameAttributes::read(code.unit_ref(), function)?.unwrap_or_default();
        frames.push(frame_at(self.name_of(key, &code, names)?, line)?);
        Ok(Lookup::Found(frames))
    }

    /// The name of a function, or nothing if it has none.
    fn name_of(&self, key: UnitKey, unit: &Rc<OpenUnit>, names: NameAttributes) -> Result<String> {
        let is_elsewhere = names.linkage_name.is_none() && names.name.is_none();
        let elsewhere = match (key, &names.origin) {
            (UnitKey::Main(_), Some(AttributeValue::DebugInfoRef(offset))) if is_elsewhere => {
                offset.0
            }
            _ => return self.find_name(key, unit, names),
        };
        if let Some(name) = self.names.borrow().get(&elsewhere) {
            return Ok(name.clone());
        }
        let name = self.find_name(key, unit, names)?;
        let kept = &mut *self.names.borrow_mut();
        if kept.len() >= NAMES_MAX {
            kept.clear();
        }
        if name.len() <= NAME_BYTES_MAX {
            kept.insert(elsewhere, name.clone());
        }
        Ok(name)
    }

    fn find_name(
        &self,
        mut key: UnitKey,
        unit: &Rc<OpenUnit>,
        mut names: NameAttributes,
    ) -> Result<String> {
        let mut unit = Rc::clone(unit);
        for _ in 0..=REFERENCES_MAX {
            for name in [names.linkage_name, names.name].into_iter().flatten() {
                if let Ok(name) = unit.unit_ref().attr_string(name) {
                    let name = name.to_string_lossy();
                    return Ok(name.map(|name| name.into_owned()).unwrap_or_default());
                }
            }
            let Some(origin) = names.origin else { break };
            let Some(entry) = self.follow(&mut key, &mut unit, &origin)? else {
                break;
            };
            let missing = Error::NoEntryAtGivenOffset(entry.0 as u64);
            names = NameAttributes::read(unit.unit_ref(), entry)?.ok_or(missing)?;
        }
        Ok(String::new())
    }

    /// Goes to the unit with the entry that `reference` leads to, and gives the entry.
    fn follow(
        &self,
        key: &mut UnitKey,
        unit: &mut Rc<OpenUnit>,
        reference: &AttributeValue<Bytes>,
    ) -> Result<Option<UnitOffset>> {
        let (index, offset) = match (reference, &key) {
            (AttributeValue::UnitRef(entry), _) => return Ok(Some(*entry)),
            (AttributeValue::DebugInfoRef(offset), UnitKey::Main(_)) => (&self.index, offset),
            (AttributeValue::DebugInfoRefSup(_), _) if self.main.sup.is_none() => return Ok(None),
            (AttributeValue::DebugInfoRef(offset), UnitKey::Alternative(_))
            | (AttributeValue::DebugInfoRefSup(offset), _) => (&self.alternative, offset),
            (AttributeValue::DebugInfoRef(offset), UnitKey::Split(_)) => {
                return Err(Error::NoEntryAtGivenOffset(offset.0 as u64));
            }
            _ => return Ok(None),
        };
        let missing = Error::NoEntryAtGivenOffset(offset.0 as u64);
        let number = index.at(offset.0).ok_or(missing)?;
        *key = if std::ptr::eq(index, &self.index) {
            UnitKey::Main(number)
        } else {
            UnitKey::Alternative(number)
        };
        *unit = self.open_numbered(*key)?;
        let entry = offset.to_unit_offset(&unit.unit_ref().header);
        Ok(Some(entry.ok_or(missing)?))
    }

    /// A unit of the file, or of the one that several share.
    fn open_numbered(&self, key: UnitKey) -> Result<Rc<OpenUnit>> {
        let (dwarf, index, number) = match key {
            UnitKey::Main(number) => (Some(&self.main), &self.index, number),
            UnitKey::Alternative(number) => (self.main.sup.as_ref(), &self.alternative, number),
            UnitKey::Split(_) => (None, &self.index, 0),
        };
        let dwarf = dwarf.ok_or(Error::MissingUnitDie)?;
        let offset = index.offset_of(number);
        self.open_once(key, || self.read_unit(dwarf, offset))
    }

    /// The split unit `id`, if its file or a package with it came.
    fn open_split(
        &self,
        id: DwoId,
        skeleton: &OpenUnit,
    ) -> Result<Option<(UnitKey, Rc<OpenUnit>)>> {
        let key = UnitKey::Split(id.0);
        let package = self.package.as_ref();
        let in_package = package.and_then(|package| package.find_cu(id, &self.main).ok()?);
        let dwarf = in_package.map(share);
        let Some(dwarf) = dwarf.or_else(|| self.split.get(&id.0).cloned()) else {
            return Ok(None);
        };
        let unit = self.open_once(key, || {
            let mut unit = self.read_unit(&dwarf, DebugInfoOffset(0))?;
            unit.attach_to(skeleton);
            Ok(unit)
        })?;
        Ok(Some((key, unit)))
    }

    /// An open unit, or one that `read` opens.
    fn open_once(
        &self,
        key: UnitKey,
        read: impl FnOnce() -> Result<OpenUnit>,
    ) -> Result<Rc<OpenUnit>> {
        let place = self.open.borrow().iter().position(|(open, _)| *open == key);
        let unit = match place {
            Some(place) => self.open.borrow_mut().remove(place).1,
            None => Rc::new(read()?),
        };
        let open = &mut *self.open.borrow_mut();
        open.push((key, Rc::clone(&unit)));
        let mut bytes = 0;
        let is_kept = |(_, unit): &&(UnitKey, Rc<OpenUnit>)| {
            bytes += unit.bytes();
            bytes <= OPEN_BYTES_MAX
        };
        let kept = open.iter().rev().take(OPEN_MAX).take_while(is_kept);
        let evicted = open.len() - kept.count().max(1);
        open.drain(..evicted);
        Ok(unit)
    }

    fn read_unit(&self, dwarf: &Arc<Dwarf<Bytes>>, offset: DebugInfoOffset) -> Result<OpenUnit> {
        OpenUnit::read(dwarf, offset, |header| {
            // Units of one compilation may share them.
            let open = self.open.borrow();
            let shared = open.iter().map(|(_, unit)| unit).find(|unit| {
                let other = &unit.unit_ref().header;
                Arc::ptr_eq(unit.dwarf(), dwarf)
                    && other.debug_abbrev_offset() == header.debug_abbrev_offset()
            });
            match shared {
                Some(unit) => Ok(Arc::clone(&unit.unit_ref().abbreviations)),
                None => dwarf.abbreviations(header),
            }
        })
    }
}

#[expect(
    clippy::arc_with_non_send_sync,
    reason = "gimli keeps the file that several share in one"
)]
fn share(dwarf: Dwarf<Bytes>) -> Arc<Dwarf<Bytes>> {
    Arc::new(dwarf)
}

/// Whether some of its units lie in other files.
pub(super) fn is_split(image: &Image) -> bool {
    // Before DWARF 5 only split units have this section; since then clang writes it for all.
    if image.bytes_of(SectionId::DebugAddr.name()) == 0 {
        return false;
    }
    let info = DebugInfo::from(image.section(SectionId::DebugInfo.name()));
    // Most often no unit needs them, and they may be compressed.
    let abbreviations =
        LazyCell::new(|| DebugAbbrev::from(image.section(SectionId::DebugAbbrev.name())));
    let mut units = info.units();
    (0..UNITS_LOOKED_AT)
        .map_while(|_| units.next().ok().flatten())
        .any(|header| match header.version() {
            5.. => matches!(header.type_(), UnitType::Skeleton(_)),
            _ => has_split_id(&header, &abbreviations).unwrap_or(false),
        })
}

/// Whether a unit from before DWARF 5 has the id of a split unit.
fn has_split_id(unit: &UnitHeader<Bytes>, abbreviations: &DebugAbbrev<Bytes>) -> Result<bool> {
    let abbreviations = unit.abbreviations(abbreviations)?;
    let mut entries = unit.entries(&abbreviations);
    let root = entries.next_dfs()?;
    Ok(root.is_some_and(|root| root.attr(dw::DW_AT_GNU_dwo_id).is_some()))
}

/// Sections that names and lines do not need. Where they are compressed, reading them would take memory.
const UNREAD: [SectionId; 5] = [
    SectionId::DebugLoc,
    SectionId::DebugLocLists,
    SectionId::DebugMacinfo,
    SectionId::DebugMacro,
    SectionId::DebugTypes,
];

/// Names of the sections to read, in the file itself and in split ones.
trait SectionNames {
    fn name_of_main(&self) -> Option<&'static str>;
    fn name_of_split(&self) -> Option<&'static str>;
}

impl SectionNames for SectionId {
    fn name_of_main(&self) -> Option<&'static str> {
        (!UNREAD.contains(self)).then(|| self.name())
    }

    fn name_of_split(&self) -> Option<&'static str> {
        self.dwo_name()
    }
}

fn load(image: &Image, name: fn(&SectionId) -> Option<&'static str>) -> Result<Dwarf<Bytes>> {
    Dwarf::load(|id| Ok(read_section(image, name(&id))))
}

fn read_section(image: &Image, name: Option<&str>) -> Bytes {
    name.map_or_else(Bytes::none, |name| image.section(name))
}

/// A file with the split unit `id`, which compilers write as its first one.
fn load_split(image: &Image, id: u64) -> Option<Dwarf<Bytes>> {
    let mut dwarf = load(image, SectionId::name_of_split).ok()?;
    dwarf.file_type = DwarfFileType::Dwo;
    let header = dwarf.units().next().ok()??;
    let unit = dwarf.unit(header).ok()?;
    (unit.dwo_id == Some(DwoId(id))).then_some(dwarf)
}
