//! The messages of the earlier version, which collectors and servers of this one meet in each roll-out.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use protox::prost_reflect::{DescriptorPool, EnumDescriptor, MessageDescriptor, ServiceDescriptor};

fn compile(folder: &str, file: &str) -> DescriptorPool {
    let files = protox::compile([file], [folder]).unwrap();
    DescriptorPool::from_file_descriptor_set(files).unwrap()
}

/// Fields: number, name and type.
fn fields(message: &MessageDescriptor) -> Vec<String> {
    let fields = message.fields().map(|field| {
        let (number, name, kind) = (field.number(), field.name().to_owned(), field.kind());
        format!("{number} {name} {kind:?} {:?}", field.cardinality())
    });
    fields.collect()
}

fn values(of: &EnumDescriptor) -> Vec<String> {
    let values = of.values();
    values
        .map(|value| format!("{} {}", value.number(), value.name()))
        .collect()
}

fn methods(service: &ServiceDescriptor) -> Vec<String> {
    let methods = service.methods().map(|method| {
        let (input, output) = (method.input(), method.output());
        format!(
            "{} {} {}",
            method.name(),
            input.full_name(),
            output.full_name()
        )
    });
    methods.collect()
}

fn assert_kept(name: &str, before: Vec<String>, now: &[String]) {
    for line in before {
        assert!(now.contains(&line), "{name}: `{line}` is gone or changed");
    }
}

/// Check that all fields, values and calls of the earlier version are there, unchanged: a program of either version reads what it knows of a
/// message of the other, and skips the rest.
#[test]
fn nothing_is_taken_away() {
    let root = env!("CARGO_MANIFEST_DIR");
    let before = compile(&format!("{root}/../testdata/versions"), "ingest.proto");
    let now = compile(root, "pilotlight/v1/ingest.proto");
    let mut compared = 0;
    for message in before.all_messages() {
        let name = message.full_name();
        let later = now.get_message_by_name(name).expect(name);
        assert_kept(name, fields(&message), &fields(&later));
        compared += 1;
    }
    for of in before.all_enums() {
        let name = of.full_name();
        let later = now.get_enum_by_name(name).expect(name);
        assert_kept(name, values(&of), &values(&later));
        compared += 1;
    }
    for service in before.services() {
        let name = service.full_name();
        let later = now.get_service_by_name(name).expect(name);
        assert_kept(name, methods(&service), &methods(&later));
        compared += 1;
    }
    assert!(compared > 15, "{compared}");
}
