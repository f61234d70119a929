"""The one way from a name, a file or plain data to a checked spec, and from a checked spec to objects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from nashtune.confined import is_plain
from nashtune.errors import InputError
from nashtune.plugins.signatures import refuse_other_signatures
from nashtune.plugins.static import load_class
from nashtune.spec.components import resolve_component
from nashtune.spec.crosscheck import cross_check
from nashtune.spec.draft import Draft, Leaf
from nashtune.spec.findings import Collector
from nashtune.spec.loader import Located, read_yaml
from nashtune.spec.locate import find_spec, is_path
from nashtune.spec.model import NONE, ComponentSpec, Spec
from nashtune.spec.overrides import Override
from nashtune.spec.secrets import find_secrets
from nashtune.spec.sections import read_about, read_head, read_optimizer
from nashtune.spec.types import describe

BASE = "base"


def resolve(source: str | Path | Traversable | Mapping[str, Any] | Located, overrides: Sequence[Override] = ()) -> Spec:
    """Check a spec and fill in every default. Imports no torch.

    Args:
        source: A name, a path, a mapping in the form of `Spec.to_dict` (from a checkpoint or a run file), or such a
            mapping with its positions.
        overrides: Settings on top, in order; a later one wins.

    Raises:
        InputError: what is wrong, all of it, each with where it was written.
    """
    located, name = _read(source)
    draft = Draft()
    _layers(located, draft)
    for override in overrides:
        draft.put(override)
    return finish(draft, name, located.source)


def outline(source: str | Path | Traversable) -> dict[str, str]:
    """A spec's title, paper and kind, and the names of its loss and KL controller; nothing is checked but its form.

    Raises:
        InputError: the file cannot be read as a spec.
    """
    draft = Draft()
    _layers(_read(source)[0], draft)
    about = {key: str(leaf.value) for key, leaf in draft.below("about").items()}
    names = {section: draft.below(section).get("name", Leaf(NONE, "")).value for section in ("loss", "kl")}
    return {**{key: about.get(key, "") for key in ("title", "paper", "kind")}, **names}


def _read(source: str | Path | Traversable | Mapping[str, Any] | Located) -> tuple[Located, str]:
    """The outermost layer, and the name it has by its file."""
    if isinstance(source, Located):
        return source, ""
    if isinstance(source, Mapping):
        return Located(dict(source), "spec"), ""
    file = find_spec(str(source)) if isinstance(source, str) else source
    located = read_yaml(file)
    if located.data is None:
        raise InputError(f"{located.source}: is empty; a spec names at least a loss")
    if isinstance(located.data, Mapping) and "spec" in located.data and "loss" not in located.data:
        return _of_run_file(located)
    if isinstance(located.data, Mapping) and "name" in located.data:
        raise InputError(f"{located.where(('name',))}: a spec's name is the name of its file; remove the key")
    return located, Path(file.name).stem


def _of_run_file(located: Located) -> tuple[Located, str]:
    """The spec inside a run's saved config."""
    inner = located.section("spec")
    if isinstance(inner.data, str):
        return _read(inner.data)
    if not isinstance(inner.data, Mapping) or "loss" not in inner.data:
        raise InputError(f"{inner.where()}: this is a run file and holds no whole spec; give it with --config")
    return inner, ""


def _layers(located: Located, draft: Draft) -> None:
    """Put a file's base and the file itself into the draft."""
    if isinstance(located.data, Mapping) and BASE in located.data:
        where, base = located.where((BASE,)), located.data[BASE]
        if not isinstance(base, str):
            raise InputError(f"{where}: base takes the name or path of one spec, found {describe(base)}")
        try:
            under = read_yaml(_find_base(located, base))
        except InputError as error:
            raise InputError(f"{where}: base: {error}") from error
        if isinstance(under.data, Mapping) and BASE in under.data:
            raise InputError(
                f"{where}: base '{base}' has a base itself ({under.where((BASE,))}); only one level is allowed"
            )
        draft.layer(under)
        lines = dict(located.lines)
        located = Located({key: value for key, value in located.data.items() if key != BASE}, located.source, lines)
    draft.layer(located)


def _find_base(located: Located, base: str) -> Traversable:
    beside = Path(located.source).parent / base  # a path is meant from where the file lies
    return find_spec(str(beside) if is_path(base) and not Path(base).is_absolute() else base)


def base_file(file: Path) -> Traversable | None:
    """The file of the spec that a spec's file builds on; None where it builds on none.

    Args:
        file: Of a spec that resolves.
    """
    located = read_yaml(file)
    base = located.data.get(BASE) if isinstance(located.data, Mapping) else None
    return _find_base(located, base) if base is not None else None


def finish(draft: Draft, name: str, source: str) -> Spec:
    """Resolve and check what the layers came to.

    Raises:
        InputError: what is wrong, all of it.
    """
    found = Collector()
    own = draft.leaves.get(("name",), Leaf(name or "unnamed", source))
    if not isinstance(own.value, str):
        found.add(f"{own.where}: name takes text, found {describe(own.value)}")
    elif not is_plain(own.value):
        found.add(f"{own.where}: name: {own.value!r}; run folders are called after it, so it is a word and no path")
    about = read_about(draft, found)
    optimizer = read_optimizer(draft, source, found)
    single = {
        section: resolve_component(draft, (section,), found)
        for section in ("loss", "kl", "oracle", "sampler", "pairing", "schedule")
    }
    references = {ref: resolve_component(draft, ("references", ref), found) for ref in draft.references()}
    loss, schedule = single.pop("loss"), single.pop("schedule")
    if not draft.below("schedule"):
        draft.leaves["schedule", "name"] = Leaf("offline", source)
        schedule = resolve_component(draft, ("schedule",), found)
        del draft.leaves["schedule", "name"]
    for section, component in (("loss", loss), ("schedule", schedule)):
        leaf = draft.below(section).get("name")
        if component is None and (leaf is None or leaf.value == NONE):
            found.add(f"{leaf.where if leaf else source}: every spec needs a {section}; add `{section}: NAME`")
    head = read_head(draft, loss, source, found)
    found.close()
    assert loss is not None and schedule is not None, "a component that is None without a finding"
    spec = Spec(
        name=own.value,
        about=about,
        loss=loss,
        references={ref: component for ref, component in references.items() if component is not None},
        schedule=schedule,
        head=head,
        optimizer=optimizer,
        places={path: leaf.where for path, leaf in draft.leaves.items()},
        file=source,
        **single,
    )
    cross_check(spec, found)
    for place, component in spec.components():
        for path, problem in find_secrets(component.args, place):
            where = spec.places.get(tuple(map(str, path[: len(place) + 1])), component.where)
            found.add(f"{where}: {'.'.join(map(str, path))}: {problem}")
    found.close()
    return spec


def build(component: ComponentSpec) -> object:
    """Import a component's class and construct it. From here on torch may be loaded.

    Raises:
        InputError: the class cannot be imported, does not implement its interface or not with the interface's
            arguments, or refuses its own.
    """
    cls = load_class(component.target, component.kind)
    where = f"{component.where}: " if component.where else ""
    refuse_other_signatures(cls, component.kind, f"{where}{component.kind} '{component.name}'")
    try:
        return cls(**component.args)
    except ValueError as error:
        raise InputError(f"{where}{component.kind} '{component.name}': {error}") from error
