"""What every spec file must bring, whatever it describes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lab import Lab
from method_numbers import VECTORS, all_vectors, text
from nashtune.cli.main import main
from nashtune.evaluation.vector_files import load_cases
from nashtune.evaluation.vectors import compare, evaluate
from nashtune.spec.locate import find_spec, list_specs
from nashtune.spec.model import ABOUT
from nashtune.spec.resolve import build, resolve

ROOT = Path(__file__).parents[2]
SPECS = sorted(listed.name for listed in list_specs() if listed.plugin == "builtin")
SECTIONS = ("Equation", "Conventions", "Departures", "Hyper-parameters", "Metrics")
COMPUTED = all_vectors()

each_spec = pytest.mark.parametrize("name", SPECS)


def test_the_first_family_is_there():
    family = {"dpo", "cdpo", "ipo", "ipo_sum", "slic_hinge", "simpo", "orpo", "kto", "epsilon_dpo"}
    assert family <= set(SPECS) and family <= set(COMPUTED)


@each_spec
def test_resolves_and_its_plain_form_resolves_to_the_same(name):
    spec = resolve(name)
    assert spec.name == name
    assert resolve(spec.to_dict()) == spec


@each_spec
def test_its_components_can_be_built(name):
    for _, component in resolve(name).components():
        assert type(build(component)).__name__ == component.target.partition(":")[2]


@each_spec
def test_header_names_paper_command_and_override(name):
    lines = find_spec(name).read_text(encoding="utf-8").splitlines()
    about = resolve(name).about
    assert about["paper"] in lines[0]
    assert re.match(rf"# run: +nashtune fit --spec {name} --config \S", lines[1])
    assert re.match(r"# override: +--spec\.\S+ \S", lines[2])


@each_spec
def test_the_override_in_the_header_works(name, capsys):
    line = find_spec(name).read_text(encoding="utf-8").splitlines()[2]
    example = re.split(r" {3,}\(", line.partition("override:")[2].strip())[0]
    assert main(["check", name, *example.split()]) == 0
    assert "ok" in capsys.readouterr().out


@each_spec
def test_about_says_everything(name):
    spec = resolve(name)
    required = set(ABOUT) - {"reduces_to"}
    assert not {key for key in required if not spec.about.get(key)}
    assert (ROOT / "plugins" / "nashtune_plugins" / f"{spec.about['plugin']}.py").is_file()
    assert re.search(r"\b(sums|averages|reduction)\b", spec.about["conventions"]), (
        "say whether log-probs are sums or means"
    )


@each_spec
def test_every_value_has_its_source(name):
    """A value is explained by a comment on its own line."""
    lines = find_spec(name).read_text(encoding="utf-8").splitlines()
    after_about = next(line for line in lines if re.match(r"(loss|sampler|schedule):", line))
    body = lines[lines.index(after_about) :]
    bare = [line for line in body if re.match(r"  [a-z_]+: [-\d.]", line) and "#" not in line]
    assert not bare


@each_spec
def test_has_vectors_with_gradients_and_they_pass(name):
    spec = resolve(name)
    cases = load_cases(VECTORS / f"{name}.json")
    for case in cases:
        assert any(key.startswith(("grad_policy", "grad_score")) for key in case["expected"])
        difference = compare(evaluate(spec, case), case)
        assert difference is not None and difference.passed, f"{case.get('name')}: {difference}"


@pytest.mark.parametrize("name", sorted(COMPUTED))
def test_vectors_are_what_the_equations_give_with_50_digits(name):
    """After a change there: `python tests/method_numbers.py` writes the files."""
    assert (VECTORS / f"{name}.json").read_text(encoding="utf-8") == text(COMPUTED[name])


@each_spec
def test_has_a_page_with_the_usual_sections(name):
    page = (ROOT / "docs" / "methods" / f"{name}.md").read_text(encoding="utf-8")
    headings = re.findall(r"^## (.+)$", page, re.MULTILINE)
    assert not set(SECTIONS) - set(headings)


GAME = (
    *("--spec.sampler.max_new_tokens", "5", "--spec.sampler.completions", "4", "--data.prompts_per_round", "6"),
    *("--trainer.accumulate_grad_batches", "6", "--trainer.max_epochs", "1"),
)
RULES = ("--spec.oracle", "rules", "--spec.oracle.rules", "[distinct_1]")


def game_of(name: str, heads: Path) -> tuple[str, ...]:
    """Settings of a game: an oracle for any, of an ensemble where the spec names one; none of an offline method."""
    spec = resolve(name)
    if not build(spec.schedule).reads:
        return ()
    if spec.oracle is not None and spec.oracle.name == "reward_ensemble":
        return (*GAME, "--spec.oracle.path", str(heads), "--spec.oracle.members", "3")
    return (*GAME, *RULES)


@pytest.mark.loads
@each_spec
def test_trains_two_steps(name, lab: Lab, heads: Path):
    run = lab.fit("--trainer.max_steps", "2", *game_of(name, heads), spec=name)
    losses = lab.metrics(run).series["train/loss"]
    assert len(losses) == 2 and all(value == value for _, value in losses)
