"""From a pipeline's name or file, run files and the command line to checked stages. Imports no torch.

Layers of a stage's sections, lowest first: the pipeline's `run`, run files, the command line (`--data.train F`), and on
top of these what belongs to the stage alone: the pipeline's `stages.NAME`, run files' `stages.NAME`, the command line's
`--stages.NAME.run.data.train F`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nashtune.errors import InputError, nearest
from nashtune.pipeline.form import STAGES, check_form
from nashtune.pipeline.layers import StageDraft, nested, text_of, untyped
from nashtune.pipeline.model import NOT_PER_STAGE, Pipeline, StageSpec
from nashtune.pipeline.refer import check_references
from nashtune.plugins.static import class_info
from nashtune.spec.components import find_component
from nashtune.spec.findings import Collector
from nashtune.spec.loader import Located, load_yaml, read_yaml
from nashtune.spec.locate import find_pipeline, find_run
from nashtune.spec.model import ComponentSpec
from nashtune.spec.overrides import is_component
from nashtune.spec.run import RUN_SECTIONS, Runs, load_runs
from nashtune.spec.runoptions import put_options
from nashtune.spec.settings import check_options
from nashtune.spec.types import Typed, describe

PREFIX = f"--{STAGES}."


def load_pipeline(
    source: str, configs: Sequence[str] = (), options: Sequence[str] = (), own: Sequence[str] = ()
) -> Pipeline:
    """Read a pipeline with everything on top of it, and check names, types and references.

    Args:
        source: Name or path of the pipeline.
        configs: Run files by name or path; they may have a section `stages`.
        options: `--data.train F` and other sections of a run file, as they were typed.
        own: `--stages.NAME.KEY VALUE`, as they were typed.

    Raises:
        InputError: what is wrong, all of it.
    """
    file = find_pipeline(source)
    located = read_yaml(file)
    check_form(located)
    files = [read_yaml(find_run(config)) for config in configs]
    base = _base(located, files, options)
    drafts = {name: StageDraft(name, base) for name in located.data[STAGES]}
    found = Collector()
    for layer in (located, *files, *_typed(own)):
        if isinstance(layer.data, Mapping) and STAGES in layer.data:
            with found.catch():
                _lay(layer.section(STAGES), drafts, found)
    found.close()
    stages = tuple(stage for draft in drafts.values() if (stage := _stage(draft, found)) is not None)
    found.close()
    check_references(stages)
    run = {key: untyped(value) for key, value in base.data.items() if key not in NOT_PER_STAGE}
    overrides = nested(base.overrides)
    return Pipeline(
        name=located.data.get("name", Path(file.name).stem),
        about=located.data.get("about", {}),
        stages=stages,
        run={**run, **({"spec": overrides} if overrides else {})},
        run_dir=text_of(base.data.get("run_dir")),
    )


def _base(located: Located, files: Sequence[Located], options: Sequence[str]) -> Runs:
    """The sections that every stage has."""
    layers = [located.section("run")] if "run" in located.data else []
    for file in files:
        sections = {key: value for key, value in file.data.items() if key != STAGES} if _mapping(file) else file.data
        if sections or not _mapping(file):
            layers.append(Located(sections, file.source, file.lines))
    runs = load_runs(layers)
    if runs.spec is not None:
        raise InputError(
            "spec: a pipeline's stages name their specs (stages.NAME.spec), so a run file may only have settings on "
            "top of them; leave the spec's name out of it"
        )
    runs = put_options(runs, options)
    if "ckpt_path" in runs.data:
        raise InputError(
            f"{runs.where('ckpt_path')}: ckpt_path is not read by a pipeline; the same command with the same --run_dir "
            "goes on with it"
        )
    return runs


def _mapping(file: Located) -> bool:
    return isinstance(file.data, Mapping)


def _typed(own: Sequence[str]) -> list[Located]:
    """Options of the command line as layers, names before the arguments of what they name."""
    layers: list[tuple[bool, Located]] = []
    tokens = iter(own)
    for token in tokens:
        option, equals, text = token.partition("=")
        if not equals:
            text = next(tokens, "--")
            if text.startswith("--"):
                raise InputError(f"{option} needs a value, for example `{option} 0.1` or `{option}=none`")
        path = option.removeprefix(PREFIX).split(".")
        if "" in path or len(path) < 2:
            raise InputError(f"{option}: which setting of which stage? For example --stages.filter.q 0.9")
        try:
            value = load_yaml(text, option).data
        except InputError:
            value = text  # for the option's type to accept or refuse; @STAGE/OUTPUT is no plain YAML
        leaf: Any = value if isinstance(value, Mapping) else Typed(text, value)
        for key in reversed(path):
            leaf = {key: leaf}
        names = path[-1] == "name" or (path[1:3] == ["run", "spec"] and is_component(tuple(path[3:])))
        layers.append((not names, Located({STAGES: leaf}, option)))
    return [layer for _, layer in sorted(layers, key=lambda one: one[0])]


def _lay(located: Located, drafts: Mapping[str, StageDraft], found: Collector) -> None:
    if not isinstance(located.data, Mapping):
        raise InputError(f"{located.where()}: stages takes a mapping, found {describe(located.data)}")
    for name in located.data:
        if name not in drafts:
            found.add(f"{located.where((name,))}: there is no stage '{name}'{nearest(name, drafts)}")
            continue
        with found.catch():
            drafts[name].layer(located.section(name))


def _stage(draft: StageDraft, found: Collector) -> StageSpec | None:
    dotted = f"{STAGES}.{draft.name}"
    name = text_of(draft.args.get("name"))
    if not isinstance(name, str):
        first = next(iter(draft.places.values()), dotted)
        found.add(f"{first}: {dotted} has no name; say which kind of stage it is, such as `name: fit`")
        return None
    where = draft.places["name",]
    with found.catch():
        try:
            target, origin = find_component("stage", name)
            info = class_info(target)
        except InputError as error:
            raise InputError(f"{where}: {dotted}: {error}") from error
        args = check_options(
            {key: value for key, value in draft.args.items() if key != "name"},
            info,
            what=dotted,
            who=f"'{name}'",
            where=lambda *path: _place(draft, path),
            found=found,
        )
        return StageSpec(
            name=draft.name,
            component=ComponentSpec("stage", name, target, args, origin, where),
            runs=draft.runs(),
            own=draft.saved(),
            outputs=tuple(info.attributes.get("outputs", ())),
            placement=tuple(info.attributes.get("placement", ())),
            decides=tuple(info.attributes.get("decides", ())),
            notes=tuple(draft.unused()),
        )
    return None


def _place(draft: StageDraft, path: tuple[str | int, ...]) -> str:
    for end in range(len(path), 0, -1):
        if path[:end] in draft.places:
            return draft.places[path[:end]]
    return draft.places["name",]


def run_option(token: str) -> bool:
    """Whether a word of the command line is an option of a run file's section."""
    option = token.partition("=")[0]
    return option.startswith("--") and option[2:].partition(".")[0] in RUN_SECTIONS
