"""A causal LM that reads both answers."""

from __future__ import annotations

import shutil

import pytest
import torch

from nashtune.data.budget import budget_batches, padded
from nashtune.errors import InputError
from nashtune.models.preference_file import PREFERENCE_FILE, PreferenceFile
from nashtune.oracles.preference_model import PreferenceModelOracle

TEMPLATE = "{prompt} A: {first} B: {second}"
CHAT = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}, {"role": "user", "content": "?"}]
PROMPTS = ["Hi", "What is the capital of France?", CHAT, "Hi"]
FIRST = ["Hello.", "Paris", "yes", "same"]
SECOND = ["Go away, whoever you are.", "I do not know.", "", "same"]


@pytest.fixture(scope="module")
def folder(tiny, tmp_path_factory):
    """The tiny model with weights large enough to have opinions."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = tmp_path_factory.mktemp("preference")
    model = AutoModelForCausalLM.from_pretrained(tiny)
    with torch.no_grad():
        for i, weight in enumerate(model.parameters()):
            torch.nn.init.normal_(weight, std=0.3, generator=torch.Generator().manual_seed(i))
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny).save_pretrained(folder)
    return folder


def oracle(folder, **options) -> PreferenceModelOracle:
    return PreferenceModelOracle(**{"path": str(folder), "prompt_template": TEMPLATE, "device": "cpu", **options})


def says_first(folder, question: str) -> float:
    """P(token A) against token B behind one question, without padding."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    ids = tokenizer.apply_chat_template(
        [{"role": "user", "content": question}], add_generation_prompt=True, return_dict=False
    )
    with torch.no_grad():
        logits_V = model(torch.tensor([ids])).logits[0, -1].double()
    a, b = tokenizer.convert_tokens_to_ids(["A", "B"])
    return float(torch.softmax(logits_V[[a, b]], 0)[0])


def test_it_is_the_mean_of_both_orders(folder):
    p = oracle(folder).compare(PROMPTS, FIRST, SECOND)
    assert p.dtype == torch.float64
    for i, prompt in enumerate(["Hi", "What is the capital of France?"]):
        forward = says_first(folder, f"{prompt} A: {FIRST[i]} B: {SECOND[i]}")
        backward = says_first(folder, f"{prompt} A: {SECOND[i]} B: {FIRST[i]}")
        assert p[i].item() == pytest.approx((forward + 1 - backward) / 2, abs=1e-6)
        assert abs(forward - backward) > 1e-3
    assert p[3].item() == 0.5  # an answer against itself


def test_conversations_are_written_turn_by_turn(folder):
    p = oracle(folder).compare([CHAT], ["yes"], ["no"])
    text = "user: Hi\n\nassistant: Hello\n\nuser: ?"
    forward, backward = (says_first(folder, f"{text} A: {a} B: {b}") for a, b in (("yes", "no"), ("no", "yes")))
    assert p.item() == pytest.approx((forward + 1 - backward) / 2, abs=1e-6)


def test_swapping_gives_exactly_one_minus(folder):
    judge = oracle(folder, batch_tokens=150)
    p, swapped = judge.compare(PROMPTS, FIRST, SECOND), judge.compare(PROMPTS, SECOND, FIRST)
    assert torch.equal(1 - p, swapped) and torch.equal(1 - swapped, p)
    assert (p[:3] - 0.5).abs().min() > 1e-3


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_padding_does_not_change_an_answer(folder, tmp_path, architecture):
    if architecture == "gpt2":  # absolute positions: a shifted row would see others
        from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

        tokenizer = AutoTokenizer.from_pretrained(folder)
        config = GPT2Config(vocab_size=len(tokenizer), n_positions=256, n_embd=32, n_layer=1, n_head=2)
        model = GPT2LMHeadModel(config)
        with torch.no_grad():
            for i, weight in enumerate(model.parameters()):
                torch.nn.init.normal_(weight, std=0.3, generator=torch.Generator().manual_seed(i))
        model.save_pretrained(tmp_path)
        tokenizer.save_pretrained(tmp_path)
        folder = tmp_path
    together = oracle(folder).compare(PROMPTS, FIRST, SECOND)
    alone = oracle(folder, batch_tokens=1).compare(PROMPTS, FIRST, SECOND)
    torch.testing.assert_close(together, alone, rtol=0, atol=2e-6)


def test_position_that_decides_is_counted(folder):
    judge = oracle(folder)
    judge.compare(PROMPTS, FIRST, SECOND)
    flips = sum(
        (says_first(folder, f"{p} A: {a} B: {b}") > 0.5) == (says_first(folder, f"{p} A: {b} B: {a}") > 0.5)
        for p, a, b in (("Hi", FIRST[0], SECOND[0]), (PROMPTS[1], FIRST[1], SECOND[1]), ("Hi", "same", "same"))
    )
    counts = judge.counts()
    assert counts["comparisons"] == 4 and flips <= counts["position_decides"] <= flips + 1  # the conversation is free


def test_plain_questions_go_without_a_chat_template(folder, tmp_path):
    plain = shutil.copytree(folder, tmp_path / "plain")
    (plain / "chat_template.jinja").unlink()
    with pytest.raises(InputError, match=r"no chat template; set oracle\.template: plain"):
        oracle(plain).prepare()
    judge = oracle(plain, template="plain", prompt_template=TEMPLATE + "\n</s>")
    judge.prepare()
    ids = judge._questions([("Hi</s>", "one</s>", "two")])[0]
    assert ids.count(2) == 1 and ids[-1] == 2  # the template's special token is one, those in the texts are text


def test_a_folder_says_how_it_was_asked_and_the_run_has_the_last_word(folder, tmp_path):
    trained = shutil.copytree(folder, tmp_path / "run" / "export")
    (tmp_path / "run" / "config.yaml").write_text("spec: preference_pm\n")
    text = "Which?\n{prompt}\n1 {first}\n2 {second}\n"
    PreferenceFile(template="plain", question=text, answers=("1", "2"), max_length=30).write(trained)
    asked = {"template": "plain", "prompt_template": text, "tokens": ("1", "2")}
    expected = oracle(folder, **asked).compare(PROMPTS, FIRST, SECOND)
    by_file = PreferenceModelOracle(path=str(tmp_path / "run"), device="cpu")
    assert torch.equal(by_file.compare(PROMPTS, FIRST, SECOND), expected)
    lengths = [len(ids) + 1 for ids in by_file._questions(list(zip(PROMPTS, FIRST, SECOND, strict=True)))]
    assert by_file.counts()["longer_than_trained"] == 2 * sum(length > 30 for length in lengths[:3]) > 0
    for name, value in asked.items():
        given = {"template": "chat", "prompt_template": TEMPLATE, "tokens": ("A", "B")}
        one = PreferenceModelOracle(path=str(trained), device="cpu", **{name: given[name]})
        other = PreferenceModelOracle(path=str(folder), device="cpu", **{**asked, name: given[name]})
        assert torch.equal(one.compare(PROMPTS, FIRST, SECOND), other.compare(PROMPTS, FIRST, SECOND)), value


def test_a_file_that_is_not_ours_is_refused(folder, tmp_path):
    trained = shutil.copytree(folder, tmp_path / "export")
    for content, words in (("{}", "is not what nashtune writes"), ('{"answers": ["A", "B"], "template": "x"}', "'x'")):
        (trained / PREFERENCE_FILE).write_text(content)
        with pytest.raises(InputError, match=words):
            oracle(trained).prepare()


def test_answers_may_contain_braces(folder):
    from transformers import AutoTokenizer

    judge = oracle(folder)
    judge.prepare()
    question = judge._questions([("{second}", "{first}", "{x}")])[0]
    assert AutoTokenizer.from_pretrained(folder).decode(question) == "<|user|>{second} A: {first} B: {x}<|assistant|>"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"tokens": ("Yes", "B")}, "oracle.tokens: 'Yes' is 3 tokens"),
        ({"tokens": ("A", "A")}, "the same token"),
        ({"tokens": ("A", "B", "C")}, "3 texts; give two"),
        ({"device": "cuda"}, "oracle.device: cuda"),
    ],
)
def test_what_does_not_fit_is_refused_before_the_weights_load(folder, monkeypatch, options, words):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError) as caught:
        oracle(folder, **options).prepare()
    assert words in str(caught.value)


def test_a_template_without_an_answer_is_refused():
    with pytest.raises(InputError, match=r"oracle\.prompt_template: the template has no \{second\}"):
        PreferenceModelOracle(path="x", prompt_template="{prompt} {first}")


def test_a_question_longer_than_the_model_reads_is_refused(folder):
    with pytest.raises(InputError, match=r"has 512 positions; lower sampler\.max_new_tokens"):
        oracle(folder).compare(["x" * 600], ["a"], ["b"])


def test_a_lora_adapter_is_merged(sft_adapter, tiny):
    with_adapter, without = (oracle(path).compare(["Hi"], ["a"], ["b"]) for path in (sft_adapter, tiny))
    assert with_adapter.item() != without.item()


def test_nothing_asked_loads_nothing(tmp_path):
    assert oracle(tmp_path).compare([], [], []).shape == (0,)


def test_batches_keep_to_the_budget_and_depend_on_the_rows_alone():
    rows = [[1] * n for n in (3, 10, 4, 4, 2)]
    batches = list(budget_batches(rows, 12))
    assert [[len(rows[i]) for i in batch] for batch in batches] == [[10], [4, 4, 3], [2]]
    reordered = rows[::-1]
    again = [[len(reordered[i]) for i in batch] for batch in budget_batches(reordered, 12)]
    assert again == [[10], [4, 4, 3], [2]]
    ids, mask = padded([[7, 8], [9]], 0, "left")
    assert ids.tolist() == [[7, 8], [0, 9]] and mask.tolist() == [[1, 1], [0, 1]]
