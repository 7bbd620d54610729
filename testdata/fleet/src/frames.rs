//! Frames of a pod in a window's tables.

use std::collections::HashMap;

use model::tables::{LocationId, MappingId, StringId};
use model::{Dictionary, Function, Line, Location, Mapping, MappingFlags, Unnamed};

use crate::functions::{FUNCTION_BYTES, NamedFunction};
use crate::services::{Frame, Service};
use crate::shape::Shape;

/// The reason of addresses that their file has no symbol for, as a number of the wire.
const NO_SYMBOL: u8 = 4;

/// Makes the locations of one pod.
pub(crate) struct PodFrames<'a> {
    pub(crate) shape: Shape,
    pub(crate) functions: &'a [NamedFunction],
    pub(crate) service: &'a Service,
    /// Number of the pod.
    pub(crate) pod: u64,
    known: HashMap<(u32, u64), LocationId>,
}

impl<'a> PodFrames<'a> {
    pub(crate) fn new(
        shape: Shape,
        functions: &'a [NamedFunction],
        service: &'a Service,
        pod: u64,
    ) -> Self {
        Self {
            shape,
            functions,
            service,
            pod,
            known: HashMap::new(),
        }
    }

    /// The location of a frame, `moved` bytes from where it always is.
    pub(crate) fn location(
        &mut self,
        dictionary: &mut Dictionary,
        frame: Frame,
        moved: u64,
    ) -> LocationId {
        let Frame { function, call } = frame;
        let call = draw(call, Draw::Address) % self.shape.addresses;
        // The calls of a function are in equal distances.
        let step = FUNCTION_BYTES / u64::from(self.shape.addresses).min(FUNCTION_BYTES);
        let offset = (u64::from(call) * step + moved) % FUNCTION_BYTES;
        if let Some(known) = self.known.get(&(function, offset)) {
            return *known;
        }
        let location = self.make_location(dictionary, function, offset);
        self.known.insert((function, offset), location);
        location
    }

    fn make_location(&self, dictionary: &mut Dictionary, function: u32, offset: u64) -> LocationId {
        let is_jit = draw(function, Draw::Jit) % 100 < self.shape.jit;
        let is_unnamed = !is_jit && draw(function, Draw::Unnamed) % 100 < self.shape.unnamed;
        let mapping = if is_jit {
            self.intern_jit(dictionary)
        } else {
            self.intern_file(dictionary, function)
        };
        let start = if is_jit {
            // Each pod's compiler makes functions in another order.
            (self.pod + 1) << 40 | u64::from(draw(function ^ self.pod as u32, Draw::Jit)) << 8
        } else {
            0x40_0000 + FUNCTION_BYTES * u64::from(function)
        };
        let mut location = Location {
            mapping: Some(mapping),
            address: start + offset,
            lines_start: 0,
            lines_end: 0,
            is_folded: false,
            unnamed: Unnamed::default(),
        };
        if is_unnamed {
            location.unnamed = Unnamed::new(NO_SYMBOL, offset as u32 + 1);
            return dictionary.intern_location(location, &[]);
        }
        let NamedFunction {
            name,
            file,
            start_line,
        } = &self.functions[function as usize];
        let name = dictionary.intern_string(name);
        // A map of code made at run time has names only.
        let (file, start_line) = if is_jit {
            (StringId(0), 0)
        } else {
            (dictionary.intern_string(file), *start_line)
        };
        let line = match start_line {
            0 => 0,
            start_line => start_line + i64::from(function) % 17 + offset as i64 / 4,
        };
        let function = dictionary.intern_function(Function {
            name,
            system_name: name,
            file,
            start_line,
        });
        dictionary.intern_location(location, &[Line { function, line }])
    }

    fn intern_file(&self, dictionary: &mut Dictionary, function: u32) -> MappingId {
        let (path, build_id) = match draw(function, Draw::File) % self.shape.files {
            0 => (
                format!("/app/{}", self.service.name),
                self.service.build_id.clone(),
            ),
            library => (
                format!("/usr/lib/x86_64-linux-gnu/lib{library}.so.1"),
                format!("{:040x}", 0xb11d_0000 + library),
            ),
        };
        let build_id = dictionary.intern_string(&build_id);
        self.intern_mapping(dictionary, &path, build_id)
    }

    fn intern_jit(&self, dictionary: &mut Dictionary) -> MappingId {
        let path = format!("[JIT] {}", self.service.name);
        self.intern_mapping(dictionary, &path, StringId(0))
    }

    fn intern_mapping(
        &self,
        dictionary: &mut Dictionary,
        path: &str,
        build_id: StringId,
    ) -> MappingId {
        let file = dictionary.intern_string(path);
        let flags = MappingFlags::FUNCTIONS | MappingFlags::FILES | MappingFlags::LINES;
        dictionary.intern_mapping(Mapping {
            file,
            build_id,
            start: 0,
            limit: 0,
            offset: 0,
            flags: MappingFlags(flags),
            file_id: StringId(0),
        })
    }
}

/// What a number is drawn for, so that it says nothing about another one.
#[derive(Clone, Copy)]
enum Draw {
    Address = 1,
    File,
    Jit,
    Unnamed,
}

/// A random number that is the same in each window.
fn draw(of: u32, draw: Draw) -> u32 {
    fastrand::Rng::with_seed(u64::from(of) << 8 | draw as u64).u32(..)
}
