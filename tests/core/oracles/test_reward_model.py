"""A sequence classifier as a reward oracle."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

from nashtune.errors import InputError
from nashtune.oracles.compare import probabilities
from nashtune.oracles.reward_model import RewardModelOracle
from nashtune.oracles.reward_reader import padding_id

CHAT = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "How are you?"}]
PROMPTS = ["Hi", CHAT, "Say something long, please", "Hi"]
TEXTS = ["Hello.", "Fine, thank you for asking.", "Something", ""]


@pytest.fixture(scope="module")
def folder(make_reward):
    return make_reward()


def by_hand(folder, ids: list[int]) -> float:
    """The head on the last token's hidden state, one sequence, no padding."""
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        hidden_TH = model.model(torch.tensor([ids])).last_hidden_state[0]
        return float(model.score(hidden_TH[-1]))


def chat_ids(folder, prompt, completion: str) -> list[int]:
    from transformers import AutoTokenizer

    turns = prompt if isinstance(prompt, list) else [{"role": "user", "content": prompt}]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    return tokenizer.apply_chat_template([*turns, {"role": "assistant", "content": completion}], return_dict=False)


def test_the_score_is_read_at_the_eos_although_padding_shares_its_id(folder):
    """Where pad is EOS, a search for the last token that is not padding stops before the EOS."""
    rewards = RewardModelOracle(path=str(folder), device="cpu").score(PROMPTS, TEXTS)
    expected = [by_hand(folder, chat_ids(folder, p, y)) for p, y in zip(PROMPTS, TEXTS, strict=True)]
    assert chat_ids(folder, "Hi", "Hello.")[-1] == 2  # EOS, and the tokenizer's pad
    torch.testing.assert_close(rewards.mean, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=2e-6)
    assert rewards.mean.std() > 0.1


def test_batch_mates_do_not_change_a_score(folder):
    together = RewardModelOracle(path=str(folder), device="cpu").score(PROMPTS, TEXTS).mean
    alone = RewardModelOracle(path=str(folder), device="cpu", batch_tokens=1).score(PROMPTS, TEXTS).mean
    torch.testing.assert_close(together, alone, rtol=0, atol=2e-6)


def test_padding_ends_no_row():
    assert padding_id([2, 5], 2) == 0
    assert padding_id([0, 1, 2], None) == 3
    assert padding_id([7], 2) == 2


def test_special_tokens_in_an_answer_stay_text(folder):
    oracle = RewardModelOracle(path=str(folder), device="cpu")
    oracle.prepare()
    ids = oracle._reader.texts.encode("Hi</s>", "yes</s>no").ids
    assert ids.count(2) == 1 and ids[-1] == 2


def test_a_long_prompt_loses_its_beginning_and_is_counted(folder):
    oracle = RewardModelOracle(path=str(folder), device="cpu", max_length=20)
    scored = oracle.score(["x" * 30, "Hi"], ["An answer.", "ok"]).mean
    whole = chat_ids(folder, "x" * 30, "An answer.")
    assert scored[0].item() == pytest.approx(by_hand(folder, [whole[0], *whole[-19:]]), abs=2e-6)
    assert oracle.counts() == {"scored": 2, "shortened": 1, "answers_cut": 0}


@pytest.mark.parametrize("template", ["chat", "plain"])
def test_an_answer_that_loses_its_beginning_is_counted_apart(folder, template):
    """One token per letter: so many stand before the answer, one behind it."""
    oracle = RewardModelOracle(path=str(folder), device="cpu", max_length=12, template=template)
    oracle.prepare()
    answer = "a" * (12 - 1 - 1)  # the first token of all and the last one are kept
    for text, cut in ((answer, 0), (answer + "a", 1), (answer + "aaa", 2)):
        oracle.score(["Why?"], [text])
        assert oracle.counts()["answers_cut"] == cut, text
    assert oracle.counts()["shortened"] == 3


def test_the_model_s_positions_bound_the_input(folder):
    oracle = RewardModelOracle(path=str(folder), device="cpu")
    oracle.score(["x" * 600], ["y"])
    assert oracle.counts()["shortened"] == 1


def test_plain_text_gets_one_eos(folder):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    expected = by_hand(folder, [*tokenizer("Question: Answer")["input_ids"], 2])
    oracle = RewardModelOracle(path=str(folder), device="cpu", template="plain")
    assert oracle.score(["Question:"], [" Answer"]).mean.item() == pytest.approx(expected, abs=2e-6)
    with pytest.raises(InputError, match="plain takes texts, and a prompt is a conversation of 2 messages"):
        oracle.score([CHAT], ["a"])


def test_pairs_of_segments_reach_an_encoder(tmp_path):
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "why", "because", "of", "it"]
    raw = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    raw.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=raw,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    ).save_pretrained(tmp_path)
    config = BertConfig(
        vocab_size=8, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, num_labels=1
    )
    model = BertForSequenceClassification(config).eval()
    with torch.no_grad():
        for weight in model.parameters():
            torch.nn.init.normal_(weight, std=0.3)
    model.save_pretrained(tmp_path)
    oracle = RewardModelOracle(path=str(tmp_path), device="cpu", template="pair")
    oracle.prepare()
    scores = oracle.score(["why", "why of it"], ["because of it", "it"]).mean
    ids = [[2, 4, 3, 5, 6, 7, 3], [2, 4, 6, 7, 3, 7, 3]]
    segments = [[0, 0, 0, 1, 1, 1, 1], [0, 0, 0, 0, 0, 1, 1]]
    with torch.no_grad():
        expected = model(torch.tensor(ids), token_type_ids=torch.tensor(segments)).logits[:, 0].double()
    torch.testing.assert_close(scores, expected, rtol=0, atol=2e-6)


def test_as_a_preference_it_is_bradley_terry(folder):
    oracle = RewardModelOracle(path=str(folder), device="cpu")
    scores = oracle.score(["Hi"] * 2, ["Hello.", "Bye."]).mean
    p = probabilities(oracle, ["Hi", "Hi"], ["Hello.", "Bye."], ["Bye.", "Hello."])
    assert p[0].item() == pytest.approx(torch.sigmoid(scores[0] - scores[1]).item(), abs=1e-12)
    assert p[0] + p[1] == 1


def test_bf16_is_close_to_fp32(folder):
    exact = RewardModelOracle(path=str(folder), device="cpu").score(PROMPTS, TEXTS).mean
    rounded = RewardModelOracle(path=str(folder), device="cpu", precision="bf16").score(PROMPTS, TEXTS).mean
    assert 0 < (exact - rounded).abs().max() < 0.1 * exact.abs().max()


def test_nothing_asked_loads_nothing(tmp_path):
    assert RewardModelOracle(path=str(tmp_path)).score([], []).mean.shape == (0,)


def refusal(path, **options) -> str:
    with pytest.raises(InputError) as caught:
        RewardModelOracle(path=str(path), device="cpu", **options).prepare()
    return str(caught.value)


def test_what_is_no_reward_model_is_refused_before_the_weights_load(tiny, make_reward, sft_adapter, tmp_path):
    assert "is a LlamaForCausalLM, not a reward model" in refusal(tiny)
    assert "has 2 outputs, and a reward model has 1" in refusal(make_reward(2))
    assert "has no score head" in refusal(sft_adapter)
    assert "no folder" in refusal(tmp_path / "missing")


def test_a_folder_without_tokenizer_or_template_is_refused(folder, tmp_path):
    bare = shutil.copytree(folder, tmp_path / "bare")
    (bare / "tokenizer.json").unlink()
    assert "has no tokenizer" in refusal(bare)
    plain = shutil.copytree(folder, tmp_path / "plain")
    (plain / "chat_template.jinja").unlink()
    assert "has no chat template; set oracle.template: plain" in refusal(plain)


def rewrite(folder, change) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def test_a_head_that_is_missing_is_not_filled_with_random_numbers(folder, tmp_path):
    headless = shutil.copytree(folder, tmp_path / "headless")
    rewrite(headless, lambda weights: weights.pop("score.weight"))
    assert "has no score head: its weights lack score.weight" in refusal(headless)


def test_a_trunk_that_is_not_whole_is_not_filled_with_random_numbers(folder, tmp_path):
    holed = shutil.copytree(folder, tmp_path / "holed")
    rewrite(holed, lambda weights: weights.pop("model.norm.weight"))
    with pytest.raises(InputError, match=r"lacks 1 weights, such as model\.norm\.weight"):
        RewardModelOracle(path=str(holed), device="cpu").score(["Hi"], ["a"])


def test_a_head_s_bias_is_not_dropped_silently(folder, tmp_path):
    biased = shutil.copytree(folder, tmp_path / "biased")
    rewrite(biased, lambda weights: weights.update({"score.bias": torch.ones(1)}))
    with pytest.raises(InputError, match=r"holds score\.bias, which LlamaForSequenceClassification does not read"):
        RewardModelOracle(path=str(biased), device="cpu").score(["Hi"], ["a"])


def test_a_score_that_is_not_finite_is_an_error(folder, tmp_path):
    broken = shutil.copytree(folder, tmp_path / "broken")
    rewrite(broken, lambda weights: weights.update({"score.weight": weights["score.weight"] * torch.nan}))
    with pytest.raises(InputError, match="gives nan to the completion 'a' of the prompt 'Hi'"):
        RewardModelOracle(path=str(broken), device="cpu").score(["Hi"], ["a"])


def test_a_gpu_that_is_not_there_is_refused(folder, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match=r"oracle\.device: cuda"):
        RewardModelOracle(path=str(folder), device="cuda").prepare()


def test_a_tokenizer_of_another_model_is_refused(folder, tmp_path):
    other = shutil.copytree(folder, tmp_path / "other")
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"vocab_size": 100}))
    assert "do not belong together" in refusal(other)
