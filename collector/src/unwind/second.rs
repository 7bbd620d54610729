//! A second opinion on walks: framehop, an unwinder that shares nothing with ours, over the same copy
//! of a stack.

use std::{mem, ops::Range, sync::Arc};

use framehop::{
    ExplicitModuleSectionInfo, Module, Unwinder as _,
    x86_64::{CacheX86_64, Reg, UnwindRegsX86_64, UnwinderX86_64},
};
use gimli::{
    BaseAddresses, CfaRule, EhFrame, EhFrameHdr, LittleEndian as GimliLittleEndian, Operation,
    Register, RegisterRule, UnwindContext, UnwindExpression, UnwindSection as _, X86_64,
};
use object::{
    LittleEndian, ReadRef,
    elf::{PF_X, PT_LOAD},
    read::elf::{ProgramHeader as _, SectionHeader as _},
};

use super::{AllRegisters, elf::Headers};

/// The parts of an ELF file that framehop reads.
#[derive(Clone, Debug, Default)]
pub struct Sections {
    /// (offset in the file, address as linked, bytes) of the code that is mapped.
    segments: Vec<(u64, u64, u64)>,
    text: Option<Range<u64>>,
    got: Option<Range<u64>>,
    eh_frame: Option<(Range<u64>, Arc<[u8]>)>,
    eh_frame_hdr: Option<(Range<u64>, Arc<[u8]>)>,
}

impl Sections {
    /// Reads them; `None` when the file is no ELF file or they are larger than `bytes_max`.
    pub fn read<'data, R: ReadRef<'data>>(data: R, bytes_max: u64) -> Option<Self> {
        let file = Headers::read(data).ok()?;
        let endian = LittleEndian;
        let segments = file
            .programs
            .iter()
            .filter(|it| it.p_type(endian) == PT_LOAD && it.p_flags(endian).contains(PF_X))
            .map(|it| (it.p_offset(endian), it.p_vaddr(endian), it.p_filesz(endian)))
            .collect();
        let mut sections = Self {
            segments,
            ..Self::default()
        };
        // Of each name the first: what is read stays, whatever becomes of it.
        let mut seen = [false; 2];
        for (name, section) in file.named_sections() {
            let (address, bytes) = (section.sh_addr(endian), section.sh_size(endian));
            let range = address..address.checked_add(bytes)?;
            match name {
                b".text" => sections.text = Some(range),
                b".got" => sections.got = Some(range),
                b".eh_frame" | b".eh_frame_hdr" => {
                    if mem::replace(&mut seen[usize::from(name == b".eh_frame")], true) {
                        continue;
                    }
                    if bytes > bytes_max {
                        return None;
                    }
                    let found = Some((range, section.data(endian, data).ok()?.into()));
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

    /// The address as linked of an offset in the file. Whole pages are mapped, so that a mapping of code
    /// begins with what lies before it in its first page.
    fn address_of(&self, file_offset: u64) -> Option<u64> {
        self.segments.iter().find_map(|(offset, address, bytes)| {
            let first = offset - offset % PAGE_BYTES;
            let is_within = (first..offset.saturating_add(*bytes)).contains(&file_offset);
            is_within.then(|| address.wrapping_add(file_offset.wrapping_sub(*offset)))
        })
    }

    /// Whether framehop can do what the file says of code at an address as linked: it keeps `rsp` and
    /// `rbp` only, and reads no memory for an expression. At other code it falls back to the frame
    /// pointer, which may be none there.
    ///
    /// Code without information counts as followed; there both fall back to the frame pointer.
    fn is_followed(&self, address: u64) -> bool {
        let (Some((eh_frame_at, eh_frame)), Some((header_at, header))) =
            (&self.eh_frame, &self.eh_frame_hdr)
        else {
            return true;
        };
        let start = |part: &Option<Range<u64>>| part.as_ref().map_or(0, |it| it.start);
        let bases = BaseAddresses::default()
            .set_eh_frame(eh_frame_at.start)
            .set_eh_frame_hdr(header_at.start)
            .set_text(start(&self.text))
            .set_got(start(&self.got));
        let header = EhFrameHdr::new(header, GimliLittleEndian).parse(&bases, 8);
        let mut section = EhFrame::new(eh_frame, GimliLittleEndian);
        section.set_address_size(8);
        let Some(table) = header.as_ref().ok().and_then(|it| it.table()) else {
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
        let is_kept = |it: Register| [X86_64::RSP, X86_64::RBP].contains(&it);
        let reads_no_memory = |it: &UnwindExpression<usize>| {
            let Ok(expression) = it.get(&section) else {
                return false;
            };
            let mut operations = expression.operations(entry.cie().encoding());
            loop {
                match operations.next() {
                    Ok(None) => return true,
                    Ok(Some(Operation::RegisterOffset { register, .. })) if !is_kept(register) => {
                        // `rip` counts too: entries of a procedure linkage table go by it.
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
            CfaRule::Expression(it) => reads_no_memory(it),
        };
        let is_rbp_followed = match row.register(X86_64::RBP) {
            Some(RegisterRule::Register(register)) => is_kept(register),
            Some(RegisterRule::Expression(it) | RegisterRule::ValExpression(it)) => {
                reads_no_memory(&it)
            }
            _ => true,
        };
        is_cfa_followed && is_rbp_followed
    }
}

/// Bytes of a page of memory.
const PAGE_BYTES: u64 = 4096;

/// A mapping of code, and the file's sections.
pub struct MappedSections {
    /// Where it is mapped.
    pub mapped_at: Range<u64>,
    /// Offset in the file of the first byte.
    pub file_offset: u64,
    /// The file's.
    pub sections: Arc<Sections>,
}

/// Whether framehop can do all that the files say of the code at these frames, innermost first. Behind
/// one at which it cannot, its walk is a guess.
pub fn are_followed(frames: &[u64], mappings: &[MappedSections]) -> bool {
    frames.iter().enumerate().all(|(depth, frame)| {
        // Of a return address, the call before it.
        let address = frame.wrapping_sub(u64::from(depth > 0));
        let mapping = mappings.iter().find(|it| it.mapped_at.contains(&address));
        mapping.is_none_or(|it| {
            let offset = address - it.mapped_at.start + it.file_offset;
            let linked = it.sections.address_of(offset);
            linked.is_none_or(|address| it.sections.is_followed(address))
        })
    })
}

/// A walk by framehop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecondWalk {
    /// The frames' addresses, innermost first.
    pub frames: Vec<u64>,
    /// Whether it came to the end; else it did not know how to go on. (It keeps no register that a call
    /// need not preserve, which some assembly counts on.)
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

    /// Check that the sections of this very program are found, and that nonsense has none.
    #[test]
    fn sections() {
        let bytes = fs::read(std::env::current_exe().unwrap()).unwrap();
        let sections = Sections::read(&*bytes, 256 << 20).unwrap();
        assert!(sections.bytes() > 10_000);
        assert!(sections.text.is_some() && sections.eh_frame_hdr.is_some());
        let (offset, address, _) = sections.segments[0];
        assert_eq!(sections.address_of(offset + 5), Some(address + 5));
        let page = offset - offset % PAGE_BYTES;
        assert_eq!(sections.address_of(page), Some(address - (offset - page)));
        assert!(Sections::read(&*bytes, 100).is_none());
        assert!(Sections::read(&b"\x7fELF"[..], 1 << 20).is_none());
    }

    /// Check that of several sections of one name the first is read: here a later one is too large.
    #[test]
    fn sections_of_one_name() {
        let mut bytes = fs::read(std::env::current_exe().unwrap()).unwrap();
        let at = |place: usize, length: usize| place..place + length;
        let headers = u64::from_le_bytes(bytes[at(40, 8)].try_into().unwrap()) as usize;
        let count = usize::from(u16::from_le_bytes(bytes[at(60, 2)].try_into().unwrap()));
        let first = Sections::read(&*bytes, 256 << 20).unwrap();
        let address = first.eh_frame.clone().unwrap().0.start.to_le_bytes();
        let mut headers = (0..count).map(|it| headers + it * 64);
        let eh_frame = headers.find(|it| bytes[at(it + 16, 8)] == address).unwrap();
        let later = headers.find(|it| bytes[at(it + 16, 8)] == [0; 8]).unwrap();
        bytes.copy_within(at(eh_frame, 4), later);
        bytes[at(later + 32, 8)].copy_from_slice(&(1_u64 << 40).to_le_bytes());
        let read = Sections::read(&*bytes, 256 << 20).unwrap();
        assert!(read.eh_frame.is_some() && read.eh_frame == first.eh_frame);
    }

    /// Check a walk by frame pointers, where no file is known.
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
