"""Checks a set of options against the arguments of a class that is read and not imported."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nashtune.errors import nearest
from nashtune.plugins.annotations import annotation_text
from nashtune.plugins.classinfo import Argument, ClassInfo, argument_docs
from nashtune.plugins.lookup import Found, literal, look_up
from nashtune.plugins.source import Unreadable, read_module
from nashtune.plugins.static import class_info
from nashtune.spec.annotations import parse
from nashtune.spec.findings import Collector
from nashtune.spec.types import Mismatch, Type


def check_options(
    given: Mapping[str, Any],
    info: ClassInfo,
    *,
    what: str,
    who: str,
    where: Callable[..., str],
    found: Collector,
    partial: bool = False,
) -> dict[str, Any]:
    """Every argument of a constructor: what was given, checked, and the defaults of the rest.

    Args:
        given: Options as the user wrote them.
        info: The class.
        what: How messages name the options, for example "loss" in `loss.tau`.
        who: How messages name the class, for example "'ipo'".
        where: `file:line` of a path below the options; of all of them without arguments.
        found: Takes what is wrong.
        partial: Whether the rest may come from elsewhere, so that nothing is missing.
    """
    known = {argument.name: argument for argument in info.arguments}
    for key in given:
        if key not in known:
            found.add(f"{where(key)}: {what}.{key} is not an option of {who}{nearest(key, known)}")
    values: dict[str, Any] = {}
    for name, argument in known.items():
        if name in given:
            try:
                values[name] = argument_type(argument, info.module).check(given[name])
            except Mismatch as mismatch:
                dotted = ".".join(str(part) for part in (what, name, *mismatch.path))
                found.add(f"{where_and_what(where(name, *mismatch.path), dotted)}: {mismatch}")
        elif argument.required and partial:
            continue
        elif argument.required:
            doc = f" ({argument.doc})" if argument.doc else ""
            found.add(f"{where()}: {who} needs {what}.{name}: {argument_type(argument, info.module).expected()}{doc}")
        else:
            values[name] = plain(argument.default)
    return values


def where_and_what(where: str, dotted: str) -> str:
    """`file:7: kl.beta`, and not `--spec.kl.beta: kl.beta` where the place already says which option it is."""
    return where if where.startswith("--") and where.endswith(dotted) else f"{where}: {dotted}"


def argument_type(argument: Argument, module: str) -> Type:
    """What an argument accepts. Names outside the vocabulary are looked up in the module of its class."""

    def lookup(name: str) -> Type | None:
        try:
            found = look_up(read_module(module), name)
        except (Unreadable, ModuleNotFoundError, SyntaxError):
            return None
        if not isinstance(found, Found):
            return None
        if isinstance(found.node, ast.ClassDef):
            info = dataclass_info(f"{found.source.module}:{found.node.name}")
            return Record(info) if info is not None else None
        return parse(ast.unparse(found.node), lookup) if isinstance(found.node, ast.Call) else None

    return parse(argument.annotation, lookup)


def settings_info(target: str) -> ClassInfo:
    """`class_info`, and for a dataclass its fields, read from the source as well."""
    return dataclass_info(target) or class_info(target)


def dataclass_info(target: str) -> ClassInfo | None:
    """The fields of a dataclass as arguments; None when the class is not one, or has a base class.

    Raises:
        Unreadable: a default is neither a literal nor a `field(...)` of one.
    """
    module, _, name = target.partition(":")
    found = look_up(read_module(module), name)
    if not isinstance(found, Found) or not isinstance(found.node, ast.ClassDef):
        return None
    source, node = found.source, found.node
    if node.bases or not any("dataclass" in ast.unparse(decorator) for decorator in node.decorator_list):
        return None
    doc = ast.get_docstring(node) or ""
    docs = argument_docs([doc])
    arguments = []
    for stmt in node.body:
        if (
            isinstance(stmt, ast.AnnAssign)
            and isinstance(stmt.target, ast.Name)
            and "ClassVar" not in ast.unparse(stmt.annotation)
        ):
            field = stmt.target.id
            default = _field_default(stmt.value)
            value = None if default is None else literal(source, default)
            annotation = annotation_text(source, stmt.annotation)
            arguments.append(Argument(field, annotation, default is None, value, docs.get(field, "")))
    return ClassInfo(
        module=source.module,
        name=node.name,
        summary=doc.partition("\n")[0].strip(),
        doc=doc,
        arguments=tuple(arguments),
        attributes={},
        file=source.file,
        line=node.lineno,
    )


def _field_default(value: ast.expr | None) -> ast.expr | None:
    """The default of `x: int = 3`, of `field(default=3)` and of `field(default_factory=list | lambda: [3])`."""
    match value:
        case ast.Call(func=ast.Name(id="field") | ast.Attribute(attr="field"), keywords=keywords):
            given = {keyword.arg: keyword.value for keyword in keywords}
            match given.get("default_factory"):
                case ast.Lambda(body=body):
                    return body
                case ast.Name(id=("list" | "dict") as name):
                    return ast.parse("[]" if name == "list" else "{}", mode="eval").body
            return given.get("default")
    return value


@dataclass(frozen=True)
class Record(Type):
    """A mapping whose keys are the fields of a dataclass."""

    info: ClassInfo

    def _check(self, value: Any) -> Any:
        if not isinstance(value, Mapping):
            raise self._refuse(value)
        known = {argument.name: argument for argument in self.info.arguments}
        checked = {}
        for key, part in value.items():
            if key not in known:
                raise Mismatch(f"not an option of {self.info.name}{nearest(key, known)}", (key,))
            try:
                checked[key] = argument_type(known[key], self.info.module).check(part)
            except Mismatch as mismatch:
                raise Mismatch(str(mismatch), (key, *mismatch.path)) from None
        for argument in known.values():
            if argument.required and argument.name not in value:
                expected = argument_type(argument, self.info.module).expected()
                raise Mismatch(f"is missing; {self.info.name} needs {expected}", (argument.name,))
        return checked

    def _expected(self) -> str:
        return f"a mapping ({', '.join(argument.name for argument in self.info.arguments)})"

    def _schema(self) -> dict[str, Any]:
        return object_schema(self.info.arguments, self.info.module)


def object_schema(arguments: Sequence[Argument], module: str) -> dict[str, Any]:
    """JSON schema of an object with these arguments as keys."""
    properties: dict[str, Any] = {}
    for argument in arguments:
        entry = argument_type(argument, module).schema()
        if argument.doc:
            entry["description"] = argument.doc
        if not argument.required:
            entry["default"] = plain(argument.default)
        properties[argument.name] = entry
    schema: dict[str, Any] = {"type": "object", "properties": properties, "additionalProperties": False}
    required = [argument.name for argument in arguments if argument.required]
    return {**schema, "required": required} if required else schema


def plain(value: Any) -> Any:
    """Tuples as lists, as YAML has them."""
    if isinstance(value, (list, tuple)):
        return [plain(part) for part in value]
    return {key: plain(part) for key, part in value.items()} if isinstance(value, Mapping) else value
