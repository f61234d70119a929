from __future__ import annotations

import pytest

from nashtune.comparison.budget import Budget, prompts_per_round, steps_of_tokens, with_length
from nashtune.errors import InputError


def test_one_kind_of_budget():
    assert Budget.asked({"steps": "20", "tokens": None, "generations": None}) == Budget("steps", 20)
    assert Budget.asked({}) == Budget("run", 0)
    assert Budget("tokens", 5).words() == "5 tokens"
    assert Budget().words() == "as long as the run says"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"steps": "20", "tokens": "5"}, "--steps and --tokens: a comparison has one budget"),
        ({"tokens": "0"}, "--tokens: expected a whole number of 1 or more, found '0'"),
        ({"generations": "1e3"}, "--generations: expected a whole number of 1 or more, found '1e3'"),
    ],
)
def test_budgets_that_are_none(given, said):
    with pytest.raises(InputError, match="^" + said):
        Budget.asked(given)


def test_length_of_an_offline_run_and_of_a_game():
    run = {"trainer": {"max_epochs": 3, "max_steps": 7, "callbacks": {"class_path": "a.B"}}}
    offline = with_length(run, steps=20, game=False)["trainer"]
    assert (offline["max_steps"], offline["max_epochs"]) == (20, -1)
    assert [one["class_path"] for one in offline["callbacks"]] == ["a.B", "nashtune.comparison.spent.Spent"]
    game = with_length(run, steps=20, game=True, limit=9)["trainer"]
    assert (game["max_steps"], game["max_epochs"]) == (20, 3)  # there an epoch is a pass over a round's rows
    assert game["callbacks"][-1]["init_args"] == {"tokens": 9}
    assert with_length({"trainer": {"callbacks+": [1]}}, steps=None, game=True)["trainer"]["callbacks+"][0] == 1
    assert run["trainer"]["max_steps"] == 7, "the run's own settings were changed"


def test_prompts_of_a_round_that_fit_into_a_budget():
    assert prompts_per_round(100, 12, 50) == 8
    assert prompts_per_round(100, 12, 5) == 5
    with pytest.raises(InputError, match="with one prompt in each round the method draws 12"):
        prompts_per_round(11, 12, 5)


def test_steps_for_so_many_tokens():
    assert steps_of_tokens(1000, 500, 4) == 8
    assert steps_of_tokens(1001, 500, 4) == 9
    assert steps_of_tokens(1, 500, 4) == 1
