//! Frames of locations: the names of their functions, and stand-ins for those without a name.

use model::joined::Lines;
use model::tables::{FunctionId, LocationId, StringId};
use model::{Function, Location, Mapping, NamedTables, Tables, WhyNot};

use super::frame_table::{Frame, FrameId, FrameKind, FrameTable};

/// The frames of the locations of some tables. What locations share, such as a function, is looked up once.
pub(super) struct LocationFrames<'a> {
    tables: NamedTables<'a>,
    table: &'a mut FrameTable,
    /// The file of each mapping.
    binaries: Vec<Binary>,
    /// The last frame of each function of the tables, and of those that were joined to them.
    named: [Vec<Option<Named>>; 2],
    /// The last location without a name, and its frame. Those of one function follow each other.
    unnamed: Option<(Location, FrameId)>,
}

#[derive(Clone, Copy)]
struct Binary {
    path: StringId,
    is_kernel: bool,
}

#[derive(Clone, Copy)]
struct Named {
    frame: Frame,
    id: FrameId,
}

impl<'a> LocationFrames<'a> {
    /// The frames of these tables, which are added to `table`.
    pub(super) fn new(tables: NamedTables<'a>, table: &'a mut FrameTable) -> Self {
        let binary = |mapping: &Mapping| {
            let path = tables.string(mapping.file);
            Binary {
                path: table.intern_string(path),
                is_kernel: path.starts_with("[kernel"),
            }
        };
        let binaries = tables.mappings.iter().map(binary).collect();
        let functions = [Some(tables.own()), tables.joined()];
        let named =
            functions.map(|tables| vec![None; tables.map_or(0, |tables| tables.functions.len())]);
        Self {
            tables,
            table,
            binaries,
            named,
            unnamed: None,
        }
    }

    /// Adds the frames of a location to a list, the outermost first: at least one.
    pub(super) fn list(&mut self, id: LocationId, list: &mut Vec<FrameId>) {
        let location = self.tables.locations[id.position()];
        let nowhere = Binary {
            path: StringId(0),
            is_kernel: false,
        };
        let binary = location
            .mapping
            .map_or(nowhere, |mapping| self.binaries[mapping.position()]);
        let lines = self.tables.lines_of(id);
        for (depth, line) in lines.lines.iter().enumerate().rev() {
            let kind = if binary.is_kernel {
                FrameKind::Kernel
            } else if depth + 1 == lines.lines.len() {
                FrameKind::Native
            } else {
                FrameKind::Inlined
            };
            let named = self.name(lines, line.function, binary.path, kind);
            list.push(named.unwrap_or_else(|| self.name_unnamed(binary.path, &location)));
        }
        if lines.lines.is_empty() {
            list.push(self.name_unnamed(binary.path, &location));
        }
    }

    /// The frame of a function; none if it has no name.
    fn name(
        &mut self,
        Lines {
            tables, is_joined, ..
        }: Lines<'_>,
        function: FunctionId,
        binary: StringId,
        kind: FrameKind,
    ) -> Option<FrameId> {
        let known = &mut self.named[usize::from(is_joined)][function.position()];
        if let Some(Named { frame, id }) = known
            && (frame.binary, frame.kind) == (binary, kind)
        {
            return Some(*id);
        }
        let function = &tables.functions[function.position()];
        let frame = match known {
            Some(Named { frame, .. }) => Frame {
                binary,
                kind,
                ..*frame
            },
            None => Frame {
                name: match name_function(tables, function) {
                    "" => return None,
                    name => self.table.intern_string(name),
                },
                binary,
                file: self.table.intern_string(tables.string(function.file)),
                kind,
            },
        };
        let id = self.table.intern(frame, function.start_line);
        *known = Some(Named { frame, id });
        Some(id)
    }

    fn name_unnamed(&mut self, binary: StringId, location: &Location) -> FrameId {
        let key = |location: &Location| {
            let Location {
                mapping, unnamed, ..
            } = *location;
            (mapping, location.function_start(), unnamed.code())
        };
        if let Some((known, frame)) = &self.unnamed
            && key(known) == key(location)
        {
            return *frame;
        }
        let mapping = location
            .mapping
            .map(|mapping| self.tables.mappings[mapping.position()]);
        let text = |id: StringId| self.tables.own().string(id);
        let name = describe_unnamed(mapping.map_or("", |mapping| text(mapping.file)), location);
        let name = self.table.intern_string(&name);
        let frame = self.table.intern(
            Frame {
                name,
                binary,
                file: StringId(0),
                kind: FrameKind::Unnamed,
            },
            0,
        );
        let build_id = mapping.map_or("", |mapping| text(mapping.build_id));
        let reason = WhyNot::of(&self.tables, location);
        self.table.note_why_not(frame, reason, build_id);
        self.unnamed = Some((*location, frame));
        frame
    }
}

/// The name of a function, `""` if it has none.
pub fn name_function<'a>(tables: &'a Tables, function: &Function) -> &'a str {
    match tables.string(function.name) {
        "" => tables.string(function.system_name),
        name => name,
    }
}

/// The displayed name of a location without one: the file's name with the start of its function, or its own address;
/// or the reason. Addresses of code made at run time mean nothing: it is one frame.
pub fn describe_unnamed(path: &str, location: &Location) -> String {
    match path.rsplit('/').next() {
        _ if path.starts_with("[JIT] ") => path.to_owned(),
        Some(base) if !base.is_empty() => format!("{base}+{:#x}", location.function_start()),
        _ => format!("[{}]", location.unnamed.words()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::text::window;

    #[test]
    fn code_made_at_run_time_is_one_frame() {
        let location = window("comm=a | 0x1f@/lib/b.so | 1").tables.locations[0];
        assert_eq!(describe_unnamed("/lib/b.so", &location), "b.so+0x1f");
        assert_eq!(describe_unnamed("[JIT] node", &location), "[JIT] node");
        assert_eq!(describe_unnamed("", &location), "[no symbol]");
    }
}
