"""What is no ensemble is refused before weights load, with the option, what was found and the next step."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from nashtune.errors import InputError
from nashtune.interfaces.oracle import Rewards
from nashtune.oracles.chosen_by_run import ChosenByRun, RewardChosenByRun
from nashtune.oracles.reward_ensemble import RewardEnsembleOracle


@pytest.fixture(scope="module")
def member(make_reward) -> Path:
    return make_reward(seed=1)


@pytest.fixture(scope="module")
def heads(make_reward) -> Path:
    return make_reward(3, seed=2)


def refusal(**options) -> str:
    with pytest.raises(InputError) as caught:
        RewardEnsembleOracle(**options, device="cpu").prepare()
    return str(caught.value)


def change(folder: Path, target: Path, weights=None, **facts) -> Path:
    shutil.copytree(folder, target)
    if weights is not None:
        held = load_file(target / "model.safetensors")
        weights(held)
        save_file(held, target / "model.safetensors", metadata={"format": "pt"})
    if facts:
        (target / "nashtune_reward.json").write_text(json.dumps({"template": "chat", "max_length": None, **facts}))
    return target


def test_an_ensemble_has_to_be_named_once(member):
    assert "oracle.path: no folder of a reward ensemble; give one of --spec.oracle.path FOLDER" in refusal()
    assert "oracle.path and oracle.paths are both given" in refusal(path=str(member), paths=[str(member)])


def test_no_member_at_all(tmp_path, heads):
    assert "oracle.paths: an ensemble of K = 0 members: the list is empty" in refusal(paths=[])
    assert f"oracle.path: an ensemble of K = 0 members: {tmp_path} holds no folder" in refusal(path=str(tmp_path))
    zero = change(heads, tmp_path / "zero", weights=lambda w: w.update({"score.weight": w["score.weight"][:0]}))
    config = json.loads((zero / "config.json").read_text()) | {"id2label": {}, "label2id": {}}
    (zero / "config.json").write_text(json.dumps(config))
    assert "a score head without outputs (K = 0)" in refusal(path=str(zero))


def test_a_member_folder_without_a_model_is_no_smaller_ensemble(make_reward, tmp_path):
    make_reward(folder=tmp_path / "seed-0")
    (tmp_path / "seed-1").mkdir()
    assert f"{tmp_path / 'seed-1'} holds no model" in refusal(path=str(tmp_path))


def test_another_number_of_members(member, heads):
    assert "oracle.members: 5, but the score head of" in refusal(path=str(heads), members=5)
    assert "oracle.members: 5, but there are 2 member folders" in refusal(paths=[str(member)] * 2, members=5)


def test_class_scores_are_not_taken_for_members(heads):
    assert "if each output is a reward, say so: --spec.oracle.members 3" in refusal(path=str(heads))


def test_a_member_with_several_outputs(member, heads):
    found = refusal(paths=[str(member), str(heads)])
    assert f"oracle.paths[1]: {heads} has 3 outputs, and a member among several folders has 1" in found


def test_a_head_of_another_width(member, heads, tmp_path):
    cut = change(heads, tmp_path / "cut", weights=lambda w: w.update({"score.weight": w["score.weight"][:2].clone()}))
    found = refusal(path=str(cut), members=3)
    assert "another width than it should: config.json says 3, its score head says 2" in found
    told = change(heads, tmp_path / "told", members=4, gain=[1.0] * 4, bias=[0.0] * 4)
    assert "its score head says 3, nashtune_reward.json says 4" in refusal(path=str(told))


def test_a_head_that_is_missing(tiny, member, sft_adapter, tmp_path):
    headless = change(member, tmp_path / "headless", weights=lambda w: w.pop("score.weight"))
    assert f"oracle.paths[1]: {headless} has no score head" in refusal(paths=[str(member), str(headless)])
    assert "the adapter" in (found := refusal(paths=[str(sft_adapter)])) and "modules_to_save=['score']" in found
    assert "is a LlamaForCausalLM, not a reward model" in refusal(paths=[str(tiny)])


def test_weights_that_were_not_fetched(member, tmp_path):
    pointer = change(member, tmp_path / "pointer")
    (pointer / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 12\n")
    assert "oracle.paths[0]" in (found := refusal(paths=[str(pointer)])) and "git lfs pull" in found


def test_an_adapter_that_lacks_weights(tiny, make_adapter, tmp_path):
    holed = shutil.copytree(make_adapter(tiny), tmp_path / "holed")
    held = load_file(holed / "adapter_model.safetensors")
    held.pop(next(name for name in held if "lora_A" in name))
    save_file(held, holed / "adapter_model.safetensors", metadata={"format": "pt"})
    for paths in ([str(holed)], [str(make_adapter(tiny, seed=2)), str(holed)]):
        with pytest.raises(InputError, match=r"the adapter .*holed does not fit .*missing adapter keys"):
            RewardEnsembleOracle(paths=paths, device="cpu").score(["Hi"], ["a"])


@pytest.mark.parametrize("what", ["vocabulary", "chat template", "rules of splitting text"])
def test_members_with_different_tokenizers(member, tmp_path, what):
    other = change(member, tmp_path / "other")
    tokenizer = json.loads((other / "tokenizer.json").read_text())
    if what == "vocabulary":
        names = list(tokenizer["model"]["vocab"])
        vocabulary = tokenizer["model"]["vocab"]
        vocabulary[names[40]], vocabulary[names[41]] = vocabulary[names[41]], vocabulary[names[40]]
    elif what == "chat template":
        with (other / "chat_template.jinja").open("a") as template:
            template.write("!")
    else:
        tokenizer["normalizer"] = {"type": "Lowercase"}
    (other / "tokenizer.json").write_text(json.dumps(tokenizer))
    found = refusal(paths=[str(member), str(other)])
    assert f"oracle.paths[1]: the tokenizers of {member} and {other} differ ({what}" in found


def test_members_that_were_trained_with_different_templates(member, tmp_path):
    facts = {"members": 1, "gain": [1.0], "bias": [0.0]}
    chat = change(member, tmp_path / "chat", **facts)
    plain = change(member, tmp_path / "plain", **facts, template="plain")
    found = refusal(paths=[str(chat), str(plain)])
    assert (
        f"oracle.template: the members were trained with different ones: {chat} with chat, {plain} with plain" in found
    )
    RewardEnsembleOracle(paths=[str(chat), str(plain)], template="plain", device="cpu").prepare()


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_score_that_is_not_finite_names_prompt_and_member(member, heads, tmp_path, value):
    def spoil(weights):
        weights["score.weight"][-1] = value

    one = change(member, tmp_path / "one", weights=spoil)
    with pytest.raises(
        InputError, match=rf"member 1 \({one}\) gives (nan|-?inf) to the completion 'a' of the prompt 'Hi'"
    ):
        RewardEnsembleOracle(paths=[str(member), str(one)], device="cpu").score(["Hi"], ["a"])
    several = change(heads, tmp_path / "several", weights=spoil)
    with pytest.raises(InputError, match=r"member 2 \(.*several, output 2\) gives .* of the prompt 'Why\?'"):
        RewardEnsembleOracle(path=str(several), members=3, device="cpu").score(["Why?"], ["a"])


def test_options_that_would_not_be_read_are_refused(heads):
    assert "oracle.penalty: 0.5, but the aggregate mean has none" in refusal(path=str(heads), members=3, penalty=0.5)
    found = refusal(path=str(heads), members=3, estimate=0, aggregate="wco")
    assert "oracle.estimate: 0, but the aggregate wco is of all members" in found
    assert "the members are numbered 0 to 2" in refusal(path=str(heads), members=3, estimate=3)


MEMBERS = torch.tensor([[1.0, 1.2, 0.7], [0.2, 0.9, 0.1], [2.0, -1.0, 3.5]], dtype=torch.float64)


def tabular(rewards: Rewards, **options) -> Rewards:
    return RewardEnsembleOracle(**options).tabular(rewards)


def test_known_moments_are_aggregated_as_members_are():
    given = Rewards(mean=torch.zeros(3), members=MEMBERS)
    found = tabular(given, aggregate="uwo")
    expected = [0.9455555556, 0.3366666667, -0.25]
    torch.testing.assert_close(found.mean, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-10)
    torch.testing.assert_close(found.variance, MEMBERS.var(1), rtol=0, atol=1e-12)
    assert tabular(given, aggregate="wco").mean.tolist() == pytest.approx([0.7, 0.1, -1.0])
    assert tabular(given, estimate=2).mean.tolist() == [0.7, 0.1, 3.5]

    moments = Rewards(mean=torch.tensor([1.0, 2.0]), variance=torch.tensor([0.25, 4.0]))
    assert tabular(moments, aggregate="uwo").mean.tolist() == [0.875, 0.0]
    assert tabular(moments, aggregate="lcb", penalty=2.0).mean.tolist() == [0.0, -2.0]
    assert tabular(moments, aggregate="uwo", penalty=0.0).mean.tolist() == [1.0, 2.0]
    assert tabular(moments) is moments
    own = Rewards(mean=torch.zeros(3), variance=torch.ones(3), members=MEMBERS)
    assert tabular(own).variance.tolist() == [1.0] * 3


def test_a_game_that_does_not_say_what_the_rule_needs():
    with pytest.raises(InputError, match="wco needs the members' scores"):
        tabular(Rewards(mean=torch.zeros(2), variance=torch.ones(2)), aggregate="wco")
    with pytest.raises(InputError, match='lcb needs a variance; add "sigma"'):
        tabular(Rewards(mean=torch.zeros(2)), aggregate="lcb")


def test_the_placeholders_ask_for_an_oracle_of_their_kind():
    with pytest.raises(InputError, match=r"--spec\.oracle reward_model --spec.oracle.path FOLDER"):
        RewardChosenByRun().prepare()
    with pytest.raises(InputError, match="which reward"):
        RewardChosenByRun().score(["Hi"], ["a"])
    with pytest.raises(InputError, match=r"--spec\.oracle raters"):
        ChosenByRun().prepare()
    given = Rewards(mean=torch.zeros(2))
    assert RewardChosenByRun().tabular(given) is given
