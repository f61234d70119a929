from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from nashtune.bandits.bandit import make_arms
from nashtune.bandits.files import is_bandit, read_bandit
from nashtune.bandits.table import drawn_table, table_of
from nashtune.errors import InputError

THREE = {"rewards": [1, 0, -1], "sigma": [0.5, 1, 2], "reference": [0.2, 0.3, 0.5]}


def written(tmp_path: Path, content: object) -> str:
    path = tmp_path / "bandit.json"
    path.write_text(json.dumps(content))
    return str(path)


def test_a_file_of_one_prompt(tmp_path: Path):
    (arms,) = read_bandit(written(tmp_path, THREE))
    assert arms.name == "bandit" and arms.size == 3
    assert arms.estimate.tolist() == arms.gold.tolist() == [1, 0, -1]
    assert arms.variance.tolist() == [0.25, 1, 4]


def test_a_file_of_prompts_of_different_sizes(tmp_path: Path):
    content = {
        "name": "two",
        "rewards": [[1, 0, -1], [2, 3]],
        "sigma": [[1, 1, 1], [0, 1]],
        "reference": [[0.2, 0.3, 0.5], [0.5, 0.5]],
        "members": [[[1, 0, 0], [3, 0, 1]], [[1, 2], [2, 1]]],
    }
    first, second = read_bandit(written(tmp_path, content))
    assert (first.name, second.name) == ("two[0]", "two[1]")
    assert first.estimate.tolist() == [2, 0, 0.5] and first.variance.tolist() == [2, 0, 0.5]
    table = table_of([first, second])
    assert table.held.tolist() == [[True] * 3, [True, True, False]]
    assert table.members.shape == (2, 2, 3)
    assert table.weight.sum() == pytest.approx(1.0) and table.group.tolist() == [0, 0, 0, 1, 1]


def test_draws_are_the_rewards_plus_noise():
    arms = make_arms("three", **THREE)
    drawn = drawn_table([arms], 4, np.random.default_rng(0))
    noise = np.random.default_rng(0).standard_normal((4, 3))
    assert drawn.estimate == pytest.approx(arms.gold + arms.sigma * noise)
    assert (drawn.variance == arms.variance).all()
    heads = make_arms("three", **THREE, members=np.zeros((5, 3)))
    drawn = drawn_table([heads], 4000, np.random.default_rng(0))
    assert drawn.members.shape == (4000, 5, 3)
    assert drawn.variance.mean(0) == pytest.approx(arms.variance, rel=0.05)
    assert drawn.estimate.std(0) == pytest.approx(arms.sigma / 5**0.5, rel=0.05)


def test_which_files_are_bandits(tmp_path: Path):
    assert is_bandit(written(tmp_path, THREE))
    assert is_bandit(written(tmp_path, {"reference": [1], "sigmma": [1]}))  # to be refused as one, with its keys
    assert not is_bandit(written(tmp_path, {"matrix": [[0.5]]}))
    assert not is_bandit(written(tmp_path, [[0.5]]))
    assert not is_bandit(str(tmp_path / "none.json")) and not is_bandit("rps")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sigma": [0.5, 1]}, "sigma has 2 numbers, and rewards 3; give one per arm"),
        ({"reference": [0.5, 0.5, 0.0]}, "reference of arm 2 is 0; every probability must be above 0"),
        ({"reference": [0.5, 0.7, -0.2]}, "reference of arm 2 is -0.2"),
        ({"reference": [0.5, 0.5, 0.5]}, "reference sums to 1.5, expected 1"),
        ({"sigma": [0.5, -1, 2]}, "sigma of arm 1 is -1; a standard deviation is at least 0"),
        (
            {"rewards": [1, float("nan"), 0]},
            "rewards of arm 1 is nan (arms are counted from 0); expected a finite number",
        ),
        ({"estimate": [1, 2, float("inf")]}, "estimate of arm 2 is inf"),
        ({"rewards": [1], "sigma": [1], "reference": [1]}, "one arm leaves nothing to choose"),
        ({"rewards": "high"}, "rewards: expected a list of numbers"),
        ({"rewards": []}, "rewards: expected a list of numbers"),
        ({"rewards": [1, "x", 2]}, "rewards: expected a list of numbers, one per arm"),
        ({"sigma": 1}, "sigma: expected a list of numbers, one per arm, found a single number"),
        ({"sigma": [[1, 1, 1]]}, "sigma: expected a list of numbers, one per arm, found lists of shape 1 x 3"),
        ({"members": [[1, 2, 3]]}, "1 members; a variance takes at least two"),
        ({"members": [[1, 2, 3], [1, 2]]}, "members[1] has 2 numbers, and rewards 3"),
        ({"members": [[1, 2, 3], [1, 2, 3]], "estimate": [1, 2, 3]}, "both 'estimate' and 'members'"),
        ({"members": 5}, "members: expected one list of scores per member, found 5"),
        ({"members": "ab"}, "members: expected one list of scores per member, found 'ab'"),
        ({"rewards": [1, 10**400, 0]}, "bandit: rewards: expected a list of numbers, one per arm: int too large"),
        ({"members": [[0, 1, 1e300], [0, 2, -1e300]]}, "bandit: the estimate or the variance of arm 2 is too large"),
        ({"sigmma": [1]}, "'sigmma' is not a key of a bandit; did you mean 'sigma'"),
        ({"rewards": [[1, 2, 3], [1, 2, 3]]}, "rewards has 2 prompts, and 'sigma' is not a list of as many lists"),
    ],
)
def test_wrong_files_are_refused(changes, message: str, tmp_path: Path):
    with pytest.raises(InputError) as caught:
        read_bandit(written(tmp_path, {**THREE, **changes}))
    assert message in str(caught.value)


def test_missing_keys_and_broken_files(tmp_path: Path):
    with pytest.raises(InputError, match="'reference' is missing"):
        read_bandit(written(tmp_path, {"rewards": [1, 2], "sigma": [1, 1]}))
    with pytest.raises(InputError, match="expected an object"):
        read_bandit(written(tmp_path, [1, 2]))
    broken = tmp_path / "broken.json"
    broken.write_text("{")
    with pytest.raises(InputError, match="is not JSON"):
        read_bandit(str(broken))
    with pytest.raises(InputError, match="no such file"):
        read_bandit(str(tmp_path / "none.json"))


def test_prompts_of_different_numbers_of_members_are_refused():
    heads = [[1, 0, 0], [3, 0, 1]]
    two = make_arms("two", **THREE, members=heads)
    three = make_arms("three", **THREE, members=[*heads, [0, 0, 0]])
    for prompts, message in (
        ([two, three], "two has 2 members and three 3; one ensemble scores all prompts"),
        ([two, make_arms("none", **THREE)], "two has 2 members and none none"),
        ([make_arms("plain", **THREE), two], "plain has no members and two 2"),
    ):
        with pytest.raises(InputError, match=message):
            table_of(prompts)
