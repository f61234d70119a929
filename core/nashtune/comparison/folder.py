"""The folder of a comparison: one comparison, one folder, never overwritten.

FOLDER/comparison.yaml               the resolved request: specs, run, seeds, budget, judge, versions
FOLDER/runs/SPEC/seed-K/             a run folder for each training, as `nashtune fit` leaves it, and its page
FOLDER/journal/answers/POLICY/seed-K/, FOLDER/journal/judgements/   what is sampled and judged, part by part
FOLDER/answers.parquet               every answer
FOLDER/judgements.parquet            every judgement, in both orders
FOLDER/comparison.json               ratings, costs, and what they are of
FOLDER/index.html                    the page
FOLDER/judges/NAME/                  another judge's verdicts on the same answers, and what comes of them
FOLDER/so_far/5-of-6/                what comes of the policies that there are, while others are still to be trained
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from itertools import count
from pathlib import Path
from typing import Any

import yaml

from nashtune import __version__
from nashtune.comparison.request import Request
from nashtune.comparison.sources import JUDGE, SPLITS, meaning, sources, without_placement
from nashtune.data.sources import HUB
from nashtune.errors import InputError
from nashtune.files import write_bytes_atomically
from nashtune.pipeline.journal import differences, plain
from nashtune.spec.loader import read_yaml
from nashtune.spec.model import Spec

SAVED = "comparison.yaml"
RESULT = "comparison.json"
ANSWERS = "answers.parquet"
JUDGEMENTS = "judgements.parquet"
PAGE = "index.html"
RUN_PAGE = "report.html"
HEADER = "# Written by nashtune. Go on with: nashtune compare --run_dir THIS_FOLDER\n"
ANOTHER_JUDGE = "; to have another judge read the same answers: nashtune compare --run_dir {} --judge NAME"
PACKAGES = ("torch", "lightning", "transformers", "peft", "numpy")


def run_folder(folder: Path, spec: str, seed: int) -> Path:
    """Where a spec is trained with a seed."""
    return folder / "runs" / spec / f"seed-{seed}"


JUDGES = "judges"
SO_FAR = "so_far"


def home_of(folder: Path) -> Path:
    """Where the policies of a comparison are trained and answer: its own folder, or that whose answers it judges.

    Args:
        folder: Of a comparison, or `OTHER/judges/NAME`, or `OTHER/so_far/5-of-6`.
    """
    home = folder.absolute().parent.parent
    return home if folder.absolute().parent.name in (JUDGES, SO_FAR) and (home / SAVED).is_file() else folder


def is_so_far(folder: Path) -> bool:
    """Whether a folder holds what a comparison came to before it had ended."""
    return folder.absolute().parent.name == SO_FAR and home_of(folder) != folder


def folder_of_judge(home: Path, request: Request) -> Path:
    """Where another judge's verdicts on the answers of a comparison lie: `judges/NAME`, or `judges/NAME-2`.

    Args:
        home: The comparison's folder.
        request: The same comparison with the other judge.
    """
    for number in count(1):
        folder = home / JUDGES / (request.judge.name if number == 1 else f"{request.judge.name}-{number}")
        if not (folder / SAVED).exists():
            return folder
        if same_judge(folder, request):
            return folder
    raise AssertionError("counting does not end")


def same_judge(folder: Path, request: Request) -> bool:
    """Whether the judge of a comparison's folder is that of a request, wherever it runs."""
    there = without_placement(read_yaml(folder / SAVED).data["judge"], request.judge)
    return not list(differences(there, plain(meaning(request.judge))))


def claim(folder: Path, request: Request, begun: Mapping[str, Any] | None = None) -> list[str]:
    """Write the request down, or see that the folder's is the same.

    Args:
        folder: Of the comparison.
        request: What is asked for.
        begun: When, where and by what, kept for a comparison that begins.

    Returns:
        What has changed and does not stop it, in sentences: versions of libraries.

    Raises:
        InputError: the folder holds another comparison, or its rows, models or judge have changed.
    """
    path, now = folder / SAVED, plain(request.to_dict() | {"sources": sources(request)})
    made_with, said = versions(), list[str]()
    if path.exists():
        there = dict(read_yaml(path).data)
        made_with, begun = there.pop("versions", made_with), there.pop("begun", None)
        if unknown := sorted(now["sources"].keys() - there.get("sources", {}).keys()):
            said.append(
                f"begun without a note of what was in {', '.join(unknown)}: whether it is the same is not known"
            )
            there["sources"] = {**now["sources"], **there.get("sources", {})}
        changes = list(differences(_meaning(there, request), _meaning(now, request)))
        if changes:
            raise InputError(
                f"--run_dir: {folder} holds another comparison: {_first(changes)}. Put that back to go on "
                f"(`nashtune compare --run_dir {folder}` alone does), or choose another folder"
                + (ANOTHER_JUDGE.format(folder) if all(change.startswith("judge.") for change in changes) else "")
            )
        other = [
            f"{name} {made_with.get(name, 'none')} there, {here} here"
            for name, here in versions().items()
            if made_with.get(name) != here
        ]
        if other:
            said.append(f"begun with other versions, which may give other numbers: {'; '.join(other)}")
        if there == now and not unknown:
            return said
    kept = {**now, "versions": made_with, **({"begun": dict(begun)} if begun else {})}
    text = HEADER + yaml.safe_dump(kept, sort_keys=False, allow_unicode=True)
    write_bytes_atomically(path, text.encode())
    return said


def refuse_changed(folder: Path, request: Request, *, judge: bool = True) -> None:
    """See that rows, models and judge are still those that the comparison began with; it may take days.

    Args:
        folder: Of the comparison.
        request: What it is.
        judge: Whether the judge counts, too.

    Raises:
        InputError: the content of one of them is another one.
    """
    both = [read_yaml(folder / SAVED).data["sources"], plain(sources(request))]
    if not judge:
        both = [{name: one for name, one in own.items() if not name.startswith(f"{JUDGE}.")} for own in both]
    there, here = both
    if changes := list(differences({"sources": there}, {"sources": here})):
        raise InputError(
            f"{folder}: changed while the comparison was at work: {_first(changes)}. Put that back and go on with "
            f"`nashtune compare --run_dir {folder}`, or begin anew in another folder"
        )


def _first(changes: Sequence[str]) -> str:
    return "; ".join(changes[:3]) + (f"; and {len(changes) - 3} more" if len(changes) > 3 else "")


def versions() -> dict[str, str]:
    """Of nashtune and of what its numbers depend on, where installed."""
    found = {"nashtune": __version__}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _meaning(settings: Mapping[str, Any], request: Request) -> dict[str, Any]:
    """Without remarks, and without where things are.

    A judge may have moved to another host overnight, and rows to another folder, whose sha256 is compared.
    """
    found = {name: value for name, value in settings.items() if name != "notes"}
    run = dict(found["run"])
    if "data" in run:
        hashed = [split for split in SPLITS if not str(run["data"].get(split, HUB)).startswith(HUB)]
        run["data"] = {name: value for name, value in run["data"].items() if name not in hashed}
    found["run"] = run
    found["judge"] = without_placement(found["judge"], request.judge)
    specs = {spec.name: spec for spec in request.specs}
    found["specs"] = {
        name: _spec(part, specs[name]) if name in specs else part for name, part in found["specs"].items()
    }
    return found


def _spec(settings: Mapping[str, Any], spec: Spec) -> dict[str, Any]:
    found = {name: part for name, part in settings.items() if name != "about"}  # it tells readers what is trained
    for path, component in spec.components():
        if len(path) == 1 and isinstance(found.get(path[0]), Mapping):
            found[path[0]] = without_placement(found[path[0]], component)
    return found
