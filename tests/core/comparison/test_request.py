from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
import yaml

from nashtune.comparison.folder import SAVED, claim
from nashtune.comparison.request import from_file
from nashtune.errors import InputError
from nashtune.spec.loader import read_yaml
from nashtune.spec.run import load_runs


def test_settings_are_for_those_who_read_them(ask):
    request = ask("dpo", "simpo", "online_dpo", "--spec.kl.beta", "0.3", "--spec.optimizer.lr", "1e-3")
    dpo, simpo, game = request.specs
    assert (dpo.kl.args["beta"], game.kl.args["beta"], simpo.kl) == (0.3, 0.3, None)
    assert {spec.optimizer.lr for spec in request.specs} == {1e-3}
    assert dpo.oracle is None
    assert game.sampler.args["completions"] == 2
    assert request.judge == game.oracle
    said = "\n".join(request.notes)
    assert "simpo does not read kl.beta (--spec.kl.beta): its loss has no beta" in said
    assert "dpo does not read oracle.name, oracle.rules (" in said
    assert "it draws no completions" in said


def test_the_commands_of_the_page(ask, pit):
    """With the page's own files: a variant of a method, and a run file."""
    page = (Path(__file__).parents[3] / "docs" / "compare.md").read_text(encoding="utf-8")
    for name, text in re.findall(r'```yaml title="([^"]+)"\n(.*?)```', page, re.DOTALL):
        (pit.folder / name).write_text(text)
    commands = [shlex.split(line) for line in re.findall(r"^nashtune compare (.* --config .*)$", page, re.MULTILINE)]
    requests = []
    for words in commands:
        at = words.index("--config")
        settings = [  # the page's own settings of the spec, on the rows and the model of the test
            f"--spec.{'.'.join(one.path)}={one.value if isinstance(one.value, str) else json.dumps(one.value)}"
            for one in load_runs([words[at + 1]]).overrides
        ]
        requests.append(ask(*words[:at], *words[at + 2 :], *settings))
    assert [request.name for request in requests] == ["dpo-ipo-simpo", "dpo-inpo", "dpo-dpo_strong", "dpo-ipo-onpo"]
    assert [request.judge.name for request in requests] == ["vader", "raters", "vader", "raters"]
    assert [spec.kl.args["beta"] for spec in requests[2].specs] == [0.1, 0.5]
    assert (requests[0].budget.amount, requests[0].seeds, requests[1].prompts) == (40, (0, 1), 64)
    for request in requests:
        assert len({(spec.optimizer.lr, spec.optimizer.warmup) for spec in request.specs}) == 1, "not a fair one"
        assert request.budget.kind == "steps"
        for spec in request.specs:
            assert spec.optimizer.warmup_steps(request.budget.amount) < request.budget.amount


def test_an_option_is_for_those_who_have_it(ask):
    """One schedule counts rounds and another steps; only one loss has the option."""
    oracle = ("--spec.oracle.rules", "[length]", "--spec.loss.eta", "0.01", "--spec.sampler.completions", "4")
    request = ask("inpo", "rloo", "--spec.schedule.steps", "6", "--spec.schedule.rounds", "2", *oracle)
    inpo, rloo = request.specs
    assert (inpo.schedule.args, rloo.schedule.args) == ({"rounds": 2}, {"steps": 6})
    assert inpo.loss.args["eta"] == 0.01
    assert request.notes == (
        "inpo does not read schedule.steps (--spec.schedule.steps): its schedule 'online' has no such option",
        "rloo does not read schedule.rounds (--spec.schedule.rounds): its schedule 'on_policy' has no such option",
        "rloo does not read loss.eta (--spec.loss.eta): its loss 'rloo' has no such option",
    )


def test_files_are_kept_by_their_full_names(ask, pit):
    request = ask("dpo", "--judge", "reward_model", "--judge.path", "train.jsonl")
    kept = request.to_dict()
    assert kept["run"]["data"]["train"] == str(pit.folder / "train.jsonl")
    assert kept["judge"]["path"] == str(pit.folder / "train.jsonl")


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["dpo", "dpo"], "two specs are called dpo"),
        (["reward_bt"], "the spec 'reward_bt' trains a reward model, which judges answers and gives none"),
        (["preference_pm"], "the spec 'preference_pm' trains a preference model"),
        (["dpo", "dop"], "did you mean 'dpo'"),
        (["dpo", "--spec", "ipo"], "a comparison names its specs without an option"),
        (["dpo", "--spec.kl.bta", "0.3"], "did you mean 'beta'"),
        (["simpo", "orpo", "--spec.kl.beta", "0.3"], "--spec.kl.beta: kl.beta is for none of the specs"),
        (["dpo", "--judge", "ruels"], "did you mean 'rules'"),
        (["dpo", "--judge", "preference"], "'preference' leaves the oracle to the run; name one"),
        (["dpo", "--judge.rules", "[length]"], "is set, but oracle has no name"),
        (["dpo", "--seeds", "none"], "--seeds: expected a whole number of 1 or more, found 'none'"),
        (["dpo", "--ckpt_path", "last"], "--ckpt_path: the trainings of a comparison begin at the start"),
        (["dpo", "--seed_everything", "true"], "seed_everything: a comparison needs a number, not True"),
        (["dpo", "--spec.name", "mine"], "--spec.name: 'name' is not a section"),
        (["--steps", "3"], "compare: which specs?"),
        (["dpo", "--data.batch_siz", "3"], "did you mean 'batch_size'"),
    ],
)
def test_mistakes(ask, argv, said):
    with pytest.raises(InputError) as caught:
        ask(*argv)
    assert said in str(caught.value)


def test_who_judges(ask, pit):
    """Asked for; else the specs' own where it is the same; else nobody can know."""
    assert ask("dpo", "--judge", "rules", "--judge.rules", "[brevity]").judge.args["rules"] == ["brevity"]
    assert ask("dpo", "ipo").judge.args["rules"] == ["length", "distinct_1"]  # no spec reads it, the run names it
    (pit.folder / "other.yaml").write_text("base: online_dpo\noracle: {name: vader}\n")
    run = yaml.safe_load(pit.run_file.read_text())
    del run["spec"]["oracle"]
    pit.run_file.write_text(yaml.safe_dump(run))
    with pytest.raises(InputError, match="None of the specs has one; name it: --judge NAME"):
        ask("dpo", "ipo")
    (pit.folder / "third.yaml").write_text("base: online_dpo\noracle: {name: rules, rules: [length]}\n")
    with pytest.raises(InputError, match="other is trained with 'vader' and third with 'rules'"):
        ask("other.yaml", "third.yaml")


def test_seeds_begin_at_the_runs_own(ask):
    assert ask("dpo", "--seeds", "3", "--seed_everything", "7").seeds == (7, 8, 9)


def test_what_is_kept_says_the_same(ask, pit):
    request = ask("dpo", "online_dpo", "--seeds", "2", "--steps", "5", "--prompts", "4", "--policy.lora.r", "4")
    claim(pit.folder / "kept", request)
    saved = read_yaml(pit.folder / "kept" / SAVED)
    again = from_file(saved)
    assert again.to_dict() == request.to_dict()
    assert again.specs == request.specs
    assert saved.data["sources"].keys() == {"data.train", "data.validation", "policy.path"}
    claim(pit.folder / "kept", again)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (["--seeds", "2"], "seeds.*there"),
        (["--steps", "4"], "budget.steps: 5 there, 4 here"),
        (["--spec.kl.beta", "0.7"], "specs.dpo.kl.beta: 0.1 there, 0.7 here"),
        (["--data.batch_size", "4"], "run.data.batch_size: 2 there, 4 here"),
        (["--judge", "rules", "--judge.rules", "[brevity]"], "judge.rules"),
    ],
)
def test_another_comparison_is_refused(ask, pit, changed, said):
    first = ["dpo", "--steps", "5"]
    claim(pit.folder / "kept", ask(*first))
    rest = ["dpo", *([] if "--steps" in changed else first[1:])]
    with pytest.raises(InputError, match=said):
        claim(pit.folder / "kept", ask(*rest, *changed))


def test_other_rows_are_refused(ask, pit):
    claim(pit.folder / "kept", ask("dpo"))
    with (pit.folder / "validation.jsonl").open("a") as stream:
        stream.write('{"prompt": "new", "chosen": "a", "rejected": "b"}\n')
    with pytest.raises(InputError, match=r"sources\.data\.validation: .* there, .* here"):
        claim(pit.folder / "kept", ask("dpo"))


def test_what_a_spec_tells_about_itself_may_change(ask, pit):
    """Another version of the library explains a method in other words, and trains the same."""
    claim(pit.folder / "kept", ask("dpo"))
    saved = pit.folder / "kept" / SAVED
    data = yaml.safe_load(saved.read_text())
    data["specs"]["dpo"]["about"] = {"summary": "other words"}
    saved.write_text(yaml.safe_dump(data))
    assert claim(pit.folder / "kept", ask("dpo")) == []


def test_where_a_judge_runs_may_change(ask, pit):
    judge = ("dpo", "--judge", "judge", "--judge.model", "m")
    claim(pit.folder / "kept", ask(*judge, "--judge.url", "http://one.invalid/v1"))
    claim(pit.folder / "kept", ask(*judge, "--judge.url", "http://two.invalid/v1"))
    assert "two.invalid" in (pit.folder / "kept" / SAVED).read_text()
