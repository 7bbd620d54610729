"""Writes kubeconform's schemas from the OpenAPI description in Kubernetes' Go module.

    python3 schemas.py SWAGGER.json OUTPUT_DIRECTORY

One file for each kind, with all definitions that it refers to. Unknown fields are errors.
"""
import json
import pathlib
import sys

REFERENCE_PREFIX = "#/definitions/"

# The API server accepts more types than the description names.
WIDER_TYPES = {
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString": {"type": ["string", "integer"]},
    "io.k8s.apimachinery.pkg.api.resource.Quantity": {"type": ["string", "number"]},
}


def make_strict(node):
    """A copy that refuses unknown fields. Formats such as int64 are no JSON Schema formats."""
    if isinstance(node, list):
        return [make_strict(item) for item in node]
    if not isinstance(node, dict):
        return node
    node = {
        key: value if key == "enum" else make_strict(value)
        for key, value in node.items()
        if not (key == "format" and isinstance(value, str))
    }
    if isinstance(node.get("properties"), dict):
        node.setdefault("additionalProperties", False)
    return node


def find_references(node):
    if isinstance(node, dict):
        reference = node.get("$ref")
        if isinstance(reference, str):
            yield reference.removeprefix(REFERENCE_PREFIX)
        node = list(node.values())
    if isinstance(node, list):
        for item in node:
            yield from find_references(item)


def collect(name, definitions, found):
    """Adds a definition, and all that it refers to, to `found`."""
    if name in found:
        return
    found[name] = make_strict(definitions[name])
    for reference in find_references(definitions[name]):
        collect(reference, definitions, found)


def main(swagger, directory):
    definitions = json.loads(pathlib.Path(swagger).read_text())["definitions"] | WIDER_TYPES
    directory = pathlib.Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    for name, definition in definitions.items():
        for kind in definition.get("x-kubernetes-group-version-kind", []):
            schema = make_strict(definition)
            api_version = "/".join(filter(None, [kind["group"], kind["version"]]))
            for field, value in (("kind", kind["kind"]), ("apiVersion", api_version)):
                if field in schema.get("properties", {}):
                    schema["properties"][field] = {"enum": [value]}
            schema["definitions"] = {}
            collect(name, definitions, schema["definitions"])
            parts = [kind["kind"], kind["group"].split(".")[0], kind["version"]]
            file = "-".join(part.lower() for part in parts if part) + ".json"
            (directory / file).write_text(json.dumps(schema))


main(*sys.argv[1:])
