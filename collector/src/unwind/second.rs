//! Checks walks with framehop, an unwinder that shares no code with ours, on the same copy of a
//! stack.

use std::{mem, ops::Range, sync::Arc};

use elf::{ReadAt, Segment};
use framehop::{
    ExplicitModuleSectionInfo, Module, Unwinder as _,
    x86_64::{CacheX86_64, Reg, UnwindRegsX86_64, UnwinderX86_64},
};
use gimli::{
    BaseAddresses, CfaRule, EhFrame, EhFrameHdr, LittleEndian as GimliLittleEndian, Operation,
    Register, RegisterRule, UnwindContext, UnwindExpression, UnwindSection as _, X86_64,
};

use super::{
    AllRegisters,
    parts::{code_of, read_headers},
};

/// The parts of an ELF file that framehop reads.
#[derive(Clone, Debug, Default)]
pub struct Sections {
    /// The mapped code.
    segments: Vec<Segment>,
    text: Option<Range<u64>>,
    got: Option<Range<u64>>,
    eh_frame: Option<(Range<u64>, Arc<[u8]>)>,
    eh_frame_hdr: Option<(Range<u64>, Arc<[u8]>)>,
    /// Whether rows come from Go's own table, which framehop does not read.
    is_go: bool,
}

impl Sections {
    /// Reads them; `None` if the file is not an ELF file, or they are larger than `bytes_max`.
    pub fn read(file: &(impl ReadAt + ?Sized), bytes_max: u64) -> Option<Self> {
        let headers = read_headers(file).ok()?;
        let mut sections = Self {
            segments: code_of(&headers),
            ..Self::default()
        };
        // Only the first section of each name counts, even if it cannot be used.
        let mut seen = [false; 2];
        for section in headers.sections() {
            let name = headers.name_of(section);
            let (address, bytes) = (section.address, section.range.bytes);
            let range = address..address.checked_add(bytes)?;
            match name {
                b".gopclntab" | b".data.rel.ro.gopclntab" => sections.is_go = true,
                b".text" => sections.text = Some(range),
                b".got" => sections.got = Some(range),
                b".eh_frame" | b".eh_frame_hdr" => {
                    if mem::replace(&mut seen[usize::from(name == b".eh_frame")], true) {
                        continue;
                    }
                    if bytes > bytes_max {
                        return None;
                    }
                    let in_file = section.file_range().unwrap_or_default();
                    let found = Some((range, file.read_range(in_file)?.into()));
                    match name {
                        b".eh_frame" => sections.eh_frame = found,
                        _ => sections.eh_frame_hdr = found,
                    }
                }
                _ => {}
            }
        }
        Some(sections)
    }

    /// Bytes of memory.
    pub fn bytes(&self) -> usize {
        let parts = [&self.eh_frame, &self.eh_frame_hdr];
        let parts = parts.into_iter().flatten();
        parts.map(|(_, bytes)| bytes.len()).sum::<usize>() + size_of::<Self>()
    }

    /// The address as linked of an offset in the file. Mappings consist of whole pages, so a
    /// mapping of code begins with the preceding bytes of its first page.
    fn address_of(&self, file_offset: u64) -> Option<u64> {
        self.segments.iter().find_map(|segment| {
            let start = segment.file_offset;
            let first = start - start % PAGE_BYTES;
            let is_within = (first..segment.file_end()).contains(&file_offset);
            let into = file_offset.wrapping_sub(start);
            is_within.then(|| segment.address.wrapping_add(into))
        })
    }

    /// Whether framehop supports the file's rule for code at an address as linked: it restores only
    /// `rsp` and `rbp`, and reads no memory in expressions. For other code it falls back to the
    /// frame pointer, which may be wrong.
    ///
    /// Code without call frame information counts as supported. A stack that was walked through it by its instructions is not
    /// compared: the kernel proves no walk with that outcome.
    fn is_followed(&self, address: u64) -> bool {
        if self.is_go {
            return false;
        }
        let (Some((eh_frame_at, eh_frame)), Some((header_at, header))) =
            (&self.eh_frame, &self.eh_frame_hdr)
        else {
            return true;
        };
        let start = |part: &Option<Range<u64>>| part.as_ref().map_or(0, |range| range.start);
        let bases = BaseAddresses::default()
            .set_eh_frame(eh_frame_at.start)
            .set_eh_frame_hdr(header_at.start)
            .set_text(start(&self.text))
            .set_got(start(&self.got));
        let header = EhFrameHdr::new(header, GimliLittleEndian).parse(&bases, 8);
        let mut section = EhFrame::new(eh_frame, GimliLittleEndian);
        section.set_address_size(8);
        let Some(table) = header.as_ref().ok().and_then(|header| header.table()) else {
            return true;
        };
        let mut context = UnwindContext::new();
        let row = table.unwind_info_for_address(
            &section,
            &bases,
            &mut context,
            address,
            EhFrame::cie_from_offset,
        );
        let (Ok(row), Ok(entry)) = (
            row,
            table.fde_for_address(&section, &bases, address, EhFrame::cie_from_offset),
        ) else {
            return true;
        };
        let is_kept = |register: Register| [X86_64::RSP, X86_64::RBP].contains(&register);
        let reads_no_memory = |expression: &UnwindExpression<usize>| {
            let Ok(expression) = expression.get(&section) else {
                return false;
            };
            let mut operations = expression.operations(entry.cie().encoding());
            loop {
                match operations.next() {
                    Ok(None) => return true,
                    Ok(Some(Operation::RegisterOffset { register, .. })) if !is_kept(register) => {
                        // `rip` is allowed: the rules of procedure linkage tables use it.
                        if register != X86_64::RA {
                            return false;
                        }
                    }
                    Ok(Some(Operation::Deref { .. })) | Err(_) => return false,
                    Ok(Some(_)) => {}
                }
            }
        };
        let is_cfa_followed = match row.cfa() {
            CfaRule::RegisterAndOffset { register, .. } => is_kept(*register),
            CfaRule::Expression(expression) => reads_no_memory(expression),
        };
        let is_rbp_followed = match row.register(X86_64::RBP) {
            Some(RegisterRule::Register(register)) => is_kept(register),
            Some(
                RegisterRule::Expression(expression) | RegisterRule::ValExpression(expression),
            ) => reads_no_memory(&expression),
            _ => true,
        };
        is_cfa_followed && is_rbp_followed
    }
}

/// Bytes of a page of memory.
const PAGE_BYTES: u64 = 4096;

/// A mapping of code, and the file's sections.
pub struct MappedSections {
    /// Its addresses.
    pub mapped_at: Range<u64>,
    /// Offset in the file of the first byte.
    pub file_offset: u64,
    /// The file's sections.
    pub sections: Arc<Sections>,
}

/// Whether framehop supports all rules of the code at these frames, innermost first. After an
/// unsupported one, its walk is a guess.
pub fn are_followed(frames: &[u64], mappings: &[MappedSections]) -> bool {
    frames.iter().enumerate().all(|(depth, frame)| {
        // For a return address, the call before it.
        let address = frame.wrapping_sub(u64::from(depth > 0));
        let mapping = mappings
            .iter()
            .find(|mapped| mapped.mapped_at.contains(&address));
        mapping.is_none_or(|mapped| {
            let offset = address - mapped.mapped_at.start + mapped.file_offset;
            let linked = mapped.sections.address_of(offset);
            linked.is_none_or(|address| mapped.sections.is_followed(address))
        })
    })
}

/// A walk by framehop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecondWalk {
    /// The frames' addresses, innermost first.
    pub frames: Vec<u64>,
    /// Whether it reached the end of the stack; else it could not continue. (It does not restore
    /// registers that a call may overwrite, which some assembly relies on.)
    pub has_ended: bool,
}

/// Walks a stack with framehop, up to `frames_max` frames.
pub fn walk_again(
    registers: &AllRegisters,
    read: impl Fn(u64) -> Option<u64>,
    mappings: &[MappedSections],
    frames_max: usize,
) -> SecondWalk {
    let mut unwinder = UnwinderX86_64::<Arc<[u8]>>::new();
    for mapping in mappings {
        if let Some(module) = make_module(mapping) {
            unwinder.add_module(module);
        }
    }
    let ip = registers[16];
    let mut walked = UnwindRegsX86_64::new(ip, registers[7], registers[6]);
    for (number, register) in [
        Reg::RAX,
        Reg::RDX,
        Reg::RCX,
        Reg::RBX,
        Reg::RSI,
        Reg::RDI,
        Reg::RBP,
        Reg::RSP,
        Reg::R8,
        Reg::R9,
        Reg::R10,
        Reg::R11,
        Reg::R12,
        Reg::R13,
        Reg::R14,
        Reg::R15,
    ]
    .into_iter()
    .enumerate()
    {
        walked.set(register, registers[number]);
    }
    let mut cache = CacheX86_64::<_>::new();
    let mut read_stack = |address| read(address).ok_or(());
    let mut frames = unwinder.iter_frames(ip, walked, &mut cache, &mut read_stack);
    let mut addresses = Vec::new();
    let mut has_ended = false;
    while addresses.len() < frames_max {
        match frames.next() {
            Ok(Some(frame)) => addresses.push(frame.address()),
            ended => {
                has_ended = ended.is_ok();
                break;
            }
        }
    }
    SecondWalk {
        frames: addresses,
        has_ended,
    }
}

fn make_module(mapping: &MappedSections) -> Option<Module<Arc<[u8]>>> {
    let MappedSections {
        mapped_at,
        file_offset,
        sections,
    } = mapping;
    let address = sections.address_of(*file_offset)?;
    let of = |part: &Option<(Range<u64>, Arc<[u8]>)>| part.clone().unzip();
    let (eh_frame_svma, eh_frame) = of(&sections.eh_frame);
    let (eh_frame_hdr_svma, eh_frame_hdr) = of(&sections.eh_frame_hdr);
    Some(Module::new(
        String::new(),
        mapped_at.clone(),
        // Addresses as linked begin at 0 for this purpose.
        mapped_at.start.wrapping_sub(address),
        ExplicitModuleSectionInfo {
            base_svma: 0,
            text_svma: sections.text.clone(),
            got_svma: sections.got.clone(),
            eh_frame_svma,
            eh_frame,
            eh_frame_hdr_svma,
            eh_frame_hdr,
            ..ExplicitModuleSectionInfo::default()
        },
    ))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// Check that the sections of this program are found, and that invalid data has none.
    #[test]
    fn sections() {
        let bytes = fs::read(std::env::current_exe().unwrap()).unwrap();
        let sections = Sections::read(&*bytes, 256 << 20).unwrap();
        assert!(sections.bytes() > 10_000);
        assert!(sections.text.is_some() && sections.eh_frame_hdr.is_some());
        let Segment {
            file_offset: offset,
            address,
            ..
        } = sections.segments[0];
        assert_eq!(sections.address_of(offset + 5), Some(address + 5));
        let page = offset - offset % PAGE_BYTES;
        assert_eq!(sections.address_of(page), Some(address - (offset - page)));
        assert!(Sections::read(&*bytes, 100).is_none());
        assert!(Sections::read(&b"\x7fELF"[..], 1 << 20).is_none());
    }

    /// Check that the first of several sections of one name is used: here a later one is too large.
    #[test]
    fn sections_of_one_name() {
        let mut bytes = fs::read(std::env::current_exe().unwrap()).unwrap();
        let at = |place: usize, length: usize| place..place + length;
        let headers = u64::from_le_bytes(bytes[at(40, 8)].try_into().unwrap()) as usize;
        let count = usize::from(u16::from_le_bytes(bytes[at(60, 2)].try_into().unwrap()));
        let first = Sections::read(&*bytes, 256 << 20).unwrap();
        let address = first.eh_frame.clone().unwrap().0.start.to_le_bytes();
        let mut headers = (0..count).map(|number| headers + number * 64);
        let eh_frame = headers
            .find(|header| bytes[at(header + 16, 8)] == address)
            .unwrap();
        let later = headers
            .find(|header| bytes[at(header + 16, 8)] == [0; 8])
            .unwrap();
        bytes.copy_within(at(eh_frame, 4), later);
        bytes[at(later + 32, 8)].copy_from_slice(&(1_u64 << 40).to_le_bytes());
        let read = Sections::read(&*bytes, 256 << 20).unwrap();
        assert!(read.eh_frame.is_some() && read.eh_frame == first.eh_frame);
    }

    /// Check a walk by frame pointers, without any known file.
    #[test]
    fn frames_without_files() {
        let mut registers = [0; 17];
        (registers[6], registers[7], registers[16]) = (0x7010, 0x7000, 0x1000);
        let memory = [(0x7010, 0x7030), (0x7018, 0x2000), (0x7030, 0), (0x7038, 0)];
        let read = |at| Some(memory.iter().find(|(address, _)| *address == at)?.1);
        let walked = walk_again(&registers, read, &[], 10);
        assert_eq!(walked.frames, [0x1000, 0x2000]);
        assert!(walked.has_ended);
        let cut = walk_again(&registers, |_| None, &[], 10);
        assert_eq!((&*cut.frames, cut.has_ended), (&[0x1000][..], false));
    }
}
