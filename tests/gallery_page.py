"""Writes docs/gallery.md from the specs, and its pictures with the numbers below them.

Run it after a spec, a method's `nashtune verify` command or a picture has changed: `python tests/gallery_page.py`.
"""

from __future__ import annotations

import json
import re
import sys
from functools import cache
from pathlib import Path
from typing import Any

from gallery_draw import picture, save
from gallery_figures import curve, headline, inputs, recipe, spec_of, verified
from gallery_lineage import KINDS, lineage, linked, ordered, parents
from nashtune.evaluation.vector_files import load_cases
from nashtune.spec.locate import find_spec, list_specs
from nashtune.spec.reductions import reductions

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "gallery.md"
FOLDER = ROOT / "docs" / "images" / "gallery"
NUMBERS = FOLDER / "figures.json"
HEAD = """\
# Gallery

Every method that ships, on one page, generated from the specs: what is minimised, by which conventions, which other
method it is, exactly or nearly, what it does where everything can be computed, and how to run it.
[Methods](methods/index.md) compares them in tables. Each entry leads to a page with departures, sources and pitfalls.

The pictures come from the code that trains. [`nashtune verify`](verify.md) plays the spec's own loss, KL controller and
schedule on a game, a table or a [bandit](bandits.md) that is small enough to be solved, and curves of losses and
gradients are from the code that runs [vectors](glossary.md#methods-and-mathematics). The second command below a picture
prints its numbers.

## Lineage

A solid arrow goes from a method to what it [is exactly](specs.md#what-a-method-reduces-to) at some settings: a test
compares the gradients. A dashed one goes to what it is nearly, or in a limit. Blue is within a kind, red between kinds.
Settings and conditions stand with each method below.

![Names of methods in a column for each kind, with arrows to what they reduce to.](images/gallery/lineage.svg)
"""
WHAT = {
    "game": "left, duality gaps over the rounds; right, where the policies went",
    "bandit": "left, the policy at rest beside the reference; right, the risk to end below the reference",
    "optimum": "loss and gradient of one pair, and the policy that minimises the loss on a table of preferences",
    "curve": "loss and gradient of one row",
}


@cache
def names() -> tuple[str, ...]:
    """The built-in specs, by kind and then by name."""
    found = [listed.name for listed in list_specs() if listed.plugin == "builtin"]
    return tuple(sorted(found, key=lambda name: (list(KINDS).index(spec_of(name).about["kind"]), name)))


def edges() -> dict[str, dict[str, bool]]:
    """What each spec reduces to, and whether exactly."""
    return {name: parents(reductions(spec_of(name).about), names()) for name in names()}


def render(numbers: dict[str, Any]) -> str:
    """The page.

    Args:
        numbers: What stands below the pictures, by spec.
    """
    joined = edges()
    parts = [HEAD]
    for kind, title in KINDS.items():
        parts.append(f"## {title}\n")
        for name in ordered([name for name in names() if spec_of(name).about["kind"] == kind], joined):
            children = [child for child, others in joined.items() if name in others]
            parts.append(_entry(name, numbers[name]["headline"], children))
    return "\n".join(parts)


def _entry(name: str, found: dict[str, Any], children: list[str]) -> str:
    about, file, made = spec_of(name).about, find_spec(name), recipe(name)
    run = file.read_text(encoding="utf-8").splitlines()[1].partition("run:")[2].strip()
    commands = [run, *([made.command] if made.command and (found or made.picture != "optimum") else [])]
    paper = about["paper"]
    link = f"[{paper}](https://arxiv.org/abs/{paper.removeprefix('arXiv:')})" if paper[:6] == "arXiv:" else f"<{paper}>"
    cases = load_cases(file.parent / "vectors" / f"{name}.json")  # type: ignore[union-attr]
    equation = re.sub(r"([,;])  ", r"\1\n", about["equation"])  # two spaces part an equation from its definitions
    lines = [
        f"### {name}\n",
        f"{about['title']}, {link}. [Its page](methods/{name}.md).\n",
        f"```text\n{equation}\n```\n",
        f"- **Conventions**: {about['conventions']}.",
    ]
    if "values" in about:
        lines.append(f"- **Known values**: {about['values']}.")
    for title, exact in (("Is exactly", True), ("Is nearly", False)):
        lines += [f"- **{title}** {linked(one, names())}." for one in reductions(about) if one.exact is exact]
    if children:
        lines.append(f"- **Reduce to it**: {', '.join(f'[{one}](#{one})' for one in children)}.")
    lines.append(f"- **[Vectors](methods/{name}.md#vectors)**: {len(cases)} cases, `nashtune vectors {name}`.\n")
    if made.picture == "none":
        lines.append(NO_PICTURE)
    else:
        what = WHAT["curve" if made.picture == "optimum" and not found else made.picture]
        lines.append(f"![{name}: {what}.](images/gallery/{name}.svg)\n")
        lines += [f"{sentence}\n" for sentence in (_sentence(made.picture, found),) if sentence]
    lines.append("```sh\n" + "\n".join(commands) + "\n```\n")
    return "\n".join(lines)


NO_PICTURE = (
    "No picture of its own: a policy gradient against an opponent has no minimiser to compute. [nash_md](#nash_md) "
    "shows the mirror step that it approximates, and the tests compare its expected gradient with the exact one.\n"
)


def _sentence(kind: str, found: dict[str, Any]) -> str:
    if kind == "optimum" and not found:
        return "Its loss falls without curvature, so that `nashtune verify` finds no single minimiser on a table."
    if kind == "optimum":
        shown = ", ".join(f"{p:.3f}" for p in found["policy"])
        return f"On the table its minimiser is the policy {shown}, at a KL of {found['kl']:.3g} nats from uniform."
    if kind == "bandit":
        beside = f", and {found['vanilla_risk']:.3f} for exp(R/β) at that KL" if "vanilla_risk" in found else ""
        return (
            f"At rest it is {found['kl']:.3g} nats from the reference and gains {found['gain']:+.3g} of true reward. "
            f"Over the noise of the estimates its risk is {found['risk']:.3f}{beside}. The file is that of "
            "[Bandits](bandits.md#a-first-bandit)."
        )
    if kind == "game":
        bound = f" (bound {found['bound']:.3g})" if found.get("bound") is not None else ""
        with_kl = (
            f", of the last one with the KL penalty τ = {found['tau']:g} {found['regularised']:.3g}"
            if "tau" in found
            else ""
        )
        return (
            f"After {found['rounds']} rounds the duality gap of the last policy is {found['last']:.3g}, of the average "
            f"one {found['average']:.3g}{bound}{with_kl}."
        )
    return ""


def draw_all(folder: Path) -> dict[str, Any]:
    """Every picture, and the numbers below it."""
    folder.mkdir(parents=True, exist_ok=True)
    numbers: dict[str, Any] = {}
    for name in names():
        made = recipe(name)
        found = verified(made.command) if made.command else None
        if made.picture != "none":
            drawn = curve(spec_of(name)) if made.picture in ("optimum", "curve") else None
            save(picture(found, drawn, made.picture), folder / f"{name}.svg")
        numbers[name] = {"inputs": inputs(name), "headline": headline(found, made.picture)}
        sys.stderr.write(f"{name}: {made.picture}\n")
    save(lineage({name: spec_of(name).about["kind"] for name in names()}, edges()), folder / "lineage.svg")
    return numbers


def lineage_inputs() -> list[Any]:
    """All that the picture of the lineage depends on."""
    return [[name, spec_of(name).about["kind"], others] for name, others in edges().items()]


if __name__ == "__main__":
    made = draw_all(FOLDER) | {"lineage": lineage_inputs()}
    NUMBERS.write_text(json.dumps(made, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    PAGE.write_text(render(made), encoding="utf-8")
    sys.stdout.write(f"{PAGE}: {len(names())} methods\n")
