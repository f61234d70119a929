"""The JSON schema (draft 7) of a spec file, from the same readings of the classes that `check` uses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nashtune.errors import InputError
from nashtune.plugins import Registered, load_plugins
from nashtune.plugins.static import class_info
from nashtune.spec.model import ABOUT, ABOUT_KINDS, COMPONENTS, NONE, SECTIONS
from nashtune.spec.reductions import KEYS, SETTINGS
from nashtune.spec.settings import object_schema

CLASS_PATH = r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*[.:][A-Za-z_]\w*$"
OPTIONAL = ("kl", "oracle", "sampler", "pairing")
"""Sections that may say `none`."""


def spec_schema() -> dict[str, Any]:
    """Schema of a spec file, with every component that is installed.

    A file with `base:` may name only the options that change, so its sections have definitions of their own.
    """
    definitions: dict[str, Any] = {}
    for kind in COMPONENTS.values():
        definitions[kind] = _component(kind, change=False)
        definitions[f"{kind}_change"] = _component(kind, change=True)
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "nashtune spec",
        "type": "object",
        "properties": {
            "base": {"type": "string", "description": "Spec that this one changes, by name or path; one level only."},
            **{section: True for section in SECTIONS},
        },
        "additionalProperties": False,
        "if": {"required": ["base"]},
        "then": {"properties": _sections(change=True)},
        "else": {"properties": _sections(change=False), "required": ["loss"]},
        "definitions": definitions,
    }


def _sections(*, change: bool) -> dict[str, Any]:
    sections: dict[str, Any] = {}
    for section, kind in COMPONENTS.items():
        reference = {"$ref": f"#/definitions/{kind}{'_change' if change else ''}"}
        none = {"const": NONE}
        if section == "references":
            # One of them may be `none` on top of a base: it is taken away.
            each = {"anyOf": [none, reference]} if change else reference
            mapping = {"type": "object", "minProperties": 1, "additionalProperties": each}
            sections[section] = {"anyOf": [none, mapping]}
        else:
            sections[section] = {"anyOf": [none, reference]} if section in OPTIONAL else reference
        sections[section]["description"] = SECTIONS[section]
    about: dict[str, Any] = {key: {"type": "string", "description": text} for key, text in ABOUT.items()}
    about["reduces_to"] = {
        "anyOf": [{"const": NONE}, {"type": "array", "minItems": 1, "items": _reduction()}],
        "description": ABOUT["reduces_to"],
    }
    about["kind"] = {"enum": list(ABOUT_KINDS), "description": ABOUT["kind"]}
    sections["about"] = {"type": "object", "properties": about, "additionalProperties": False, "minProperties": 1}
    optimizer = class_info("nashtune.spec.model:OptimizerSpec")
    sections["optimizer"] = {**object_schema(optimizer.arguments, optimizer.module), "minProperties": 1}
    head = class_info("nashtune.spec.model:HeadSpec")
    sections["head"] = {**object_schema(head.arguments, head.module), "minProperties": 1}
    for section in ("about", "head", "optimizer"):
        sections[section]["description"] = SECTIONS[section]
    return {section: _sibling(sections[section]) for section in SECTIONS}


def _reduction() -> dict[str, Any]:
    """An entry of `about.reduces_to`."""
    settings = {"type": "object", "minProperties": 1, "propertyNames": {"pattern": f"^({'|'.join(SETTINGS)})(\\.|$)"}}
    kinds: dict[str, Any] = {"exact": {"type": "boolean"}, "at": settings, "with": settings}
    return {
        "type": "object",
        "properties": {key: {**kinds.get(key, {"type": "string"}), "description": text} for key, text in KEYS.items()},
        "required": ["method", "exact"],
        "minProperties": 3,
        "additionalProperties": False,
    }


def _sibling(schema: dict[str, Any]) -> dict[str, Any]:
    """Draft 7 ignores what stands beside `$ref`, so a description needs `allOf` around it."""
    if "$ref" not in schema:
        return schema
    rest = {key: value for key, value in schema.items() if key != "$ref"}
    return {**rest, "allOf": [{"$ref": schema["$ref"]}]}


def _component(kind: str, *, change: bool) -> dict[str, Any]:
    """A component in any of its forms: a name, a name with options, a class path with or without options."""
    registry = load_plugins().registry
    names: list[str] = []
    objects: list[dict[str, Any]] = []
    options: dict[str, Any] = {}
    for name in registry.names(kind):
        try:
            entry = _named(registry.get(kind, name), change=change)
        except InputError:  # a class that cannot be read: `check` says why when a spec names it
            continue
        names.append(name)
        objects.append(entry)
        options |= {key: {} for key in entry["properties"] if key != "name"}
    path = {"type": "string", "pattern": CLASS_PATH, "description": "Class of your own: package.module.Class"}
    forms: list[dict[str, Any]] = [
        {"enum": names, "description": f"Name of a {kind}."},
        *objects,
        path,
        {"type": "object", "properties": {"name": path}, "required": ["name"]},
    ]
    if change:
        forms.append({"type": "object", "properties": options, "additionalProperties": False, "minProperties": 1})
    return {"anyOf": forms}


def _named(entry: Registered, *, change: bool) -> dict[str, Any]:
    info = class_info(entry.component.target)
    schema = object_schema(info.arguments, info.module)
    name = {"const": entry.component.name, "description": f"{info.summary} (plugin {entry.plugin} {entry.version})"}
    required: Sequence[str] = [] if change else schema.get("required", [])
    return {
        **schema,
        "description": info.summary,
        "properties": {"name": name, **schema["properties"]},
        "required": ["name", *required],
    }
