"""What is known of a component's class by importing it: for the few whose source does not say it."""

from __future__ import annotations

import inspect
from typing import Any

from nashtune.errors import InputError
from nashtune.plugins.classinfo import Argument, ClassInfo, argument_docs
from nashtune.plugins.loading import load_object


def inspect_class(module: str, name: str) -> ClassInfo:
    """`class_info` by importing.

    Raises:
        InputError: the module cannot be imported or has no such class.
    """
    cls = load_object(module, name)
    if not isinstance(cls, type):
        raise InputError(f"{module}:{name} is a {type(cls).__name__}, not a class")
    texts = [text for one in reversed(cls.__mro__) for text in (vars(one).get("__init__"), one)]
    docs = argument_docs(inspect.getdoc(text) or "" for text in texts if text is not None)
    arguments = [
        Argument(
            name=one.name,
            annotation=_text(one.annotation),
            required=one.default is one.empty,
            default=None if one.default is one.empty else one.default,
            doc=docs.get(one.name, ""),
        )
        for one in inspect.signature(cls).parameters.values()
        if one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)
    ]
    plain = (str, int, float, bool, tuple, list, dict, type(None))
    attributes = {
        key: value
        for key, value in inspect.getmembers_static(cls)
        if not key.startswith("__") and isinstance(value, plain)
    }
    doc = inspect.cleandoc(cls.__doc__ or "")
    try:
        file, line = inspect.getsourcefile(cls) or "", inspect.getsourcelines(cls)[1]
    except (OSError, TypeError):
        file, line = "", 0
    return ClassInfo(
        module=cls.__module__,
        name=cls.__name__,
        summary=doc.partition("\n")[0].strip(),
        doc=doc,
        arguments=tuple(arguments),
        attributes=attributes,
        file=file,
        line=line,
        bases=tuple(f"{base.__module__}:{base.__qualname__}" for base in cls.__mro__[1:-1]),
    )


def _text(annotation: Any) -> str:
    if annotation is inspect.Parameter.empty:
        return ""
    return annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
