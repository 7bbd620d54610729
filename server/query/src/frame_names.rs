//! Frames of locations: the names of their functions, and stand-ins for those without a name.

use model::tables::{LocationId, StringId};
use model::{Function, Location, NamedTables, Tables, WhyNot};

use super::tree::{Frame, FrameId, FrameKind, Tree};

/// The frames of locations, each made once for a part.
pub(super) struct LocationFrames {
    known: Vec<(u32, u32)>,
    pub(super) list: Vec<FrameId>,
}

impl LocationFrames {
    pub(super) fn new(tables: &Tables) -> Self {
        // An empty range stands for a location without frames so far: each has at least one.
        Self {
            known: vec![(0, 0); tables.locations.len()],
            list: Vec::new(),
        }
    }

    /// The positions in `list` of a location's frames, the outermost first.
    pub(super) fn of(
        &mut self,
        tree: &mut Tree,
        tables: NamedTables<'_>,
        id: LocationId,
    ) -> std::ops::Range<usize> {
        if self.known[id.position()].1 == 0 {
            let start = self.list.len() as u32;
            name_location(tree, tables, id, &mut self.list);
            self.known[id.position()] = (start, self.list.len() as u32);
        }
        let (start, end) = self.known[id.position()];
        start as usize..end as usize
    }
}

fn name_location(
    tree: &mut Tree,
    tables: NamedTables<'_>,
    id: LocationId,
    list: &mut Vec<FrameId>,
) {
    let location = tables.locations[id.position()];
    let path = location.mapping.map_or("", |mapping| {
        tables.string(tables.mappings[mapping.position()].file)
    });
    let is_kernel = path.starts_with("[kernel");
    let binary = tree.strings.intern_string(path);
    let lines = tables.lines_of(id);
    for (depth, line) in lines.lines.iter().enumerate().rev() {
        let function = lines.function(line);
        let kind = if is_kernel {
            FrameKind::Kernel
        } else if depth + 1 == lines.lines.len() {
            FrameKind::Native
        } else {
            FrameKind::Inlined
        };
        let name = name_function(lines.tables, function);
        if name.is_empty() {
            list.push(name_unnamed(tree, &tables, binary, &location));
            continue;
        }
        let name = tree.strings.intern_string(name);
        let file = tree
            .strings
            .intern_string(lines.tables.string(function.file));
        list.push(tree.intern_frame(
            Frame {
                name,
                binary,
                file,
                kind,
            },
            function.start_line,
        ));
    }
    if lines.lines.is_empty() {
        list.push(name_unnamed(tree, &tables, binary, &location));
    }
}

fn name_unnamed(
    tree: &mut Tree,
    tables: &Tables,
    binary: StringId,
    location: &Location,
) -> FrameId {
    let mapping = location
        .mapping
        .map(|mapping| tables.mappings[mapping.position()]);
    let path = mapping.map_or("", |mapping| tables.string(mapping.file));
    let name = describe_unnamed(path, location);
    let name = tree.strings.intern_string(&name);
    let frame = tree.intern_frame(
        Frame {
            name,
            binary,
            file: StringId(0),
            kind: FrameKind::Unnamed,
        },
        0,
    );
    let build_id = mapping.map_or("", |mapping| tables.string(mapping.build_id));
    tree.note_why_not(frame, WhyNot::of(tables, location), build_id);
    frame
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
