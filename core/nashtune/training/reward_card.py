"""The parts of a model card that say what a reward or preference model is, and how it is read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nashtune.models.preference_file import PREFERENCE_FILE, PreferenceFile
from nashtune.spec.model import HeadSpec

WHOLE = """\
from transformers import AutoModelForSequenceClassification, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(FOLDER)
model = AutoModelForSequenceClassification.from_pretrained(FOLDER, dtype="float32")"""

ADAPTER = """\
from peft import PeftModel
from transformers import AutoModelForSequenceClassification, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(FOLDER)
base = AutoModelForSequenceClassification.from_pretrained(
    BASE, num_labels={members}, pad_token_id=tokenizer.pad_token_id, dtype="float32", ignore_mismatched_sizes=True
)
model = PeftModel.from_pretrained(base, FOLDER)"""

CHAT = """\
text = tokenizer.apply_chat_template(
    [{"role": "user", "content": PROMPT}, {"role": "assistant", "content": ANSWER}], tokenize=False
)
inputs = tokenizer(text, add_special_tokens=False, return_tensors="pt")"""

PLAIN = """\
inputs = tokenizer(PROMPT + ANSWER + tokenizer.eos_token, return_tensors="pt")"""

WRITTEN = """
Texts in which a special token is written (an answer that shows `</s>`, say) are the exception: nashtune reads it as
text, so that no answer ends its own turn, and the lines above read it as the special token.
"""

ASKED_IN_CHAT = """\
ids = tokenizer.apply_chat_template(
    [{"role": "user", "content": question}], add_generation_prompt=True, return_dict=True, return_tensors="pt"
)"""

ASKED_PLAINLY = """\
ids = tokenizer(question, return_tensors="pt")"""


def preference_section(asked: PreferenceFile) -> str:
    """Markdown: how a preference model is asked.

    Args:
        asked: As it was trained.
    """
    code = ASKED_IN_CHAT if asked.template == "chat" else ASKED_PLAINLY
    return f"""
## How to ask it

A preference model: it reads a prompt and two answers, and its next token says which is better. It writes nothing else.

As a judge in nashtune: `--spec.oracle preference_model --spec.oracle.path FOLDER`, which reads the question from
`{PREFERENCE_FILE}`. With transformers:

```python
question = {asked.question!r}.format(prompt=PROMPT, first=FIRST, second=SECOND)
{code}
answers = [tokenizer("\\n" + answer, add_special_tokens=False).input_ids[-1] for answer in {asked.answers!r}]
first_is_better = model(**ids).logits[0, -1, answers].softmax(-1)[0]
```

Ask in both orders, and take the mean: a model may prefer a place. A question had at most {asked.max_length} tokens in
training, the answer's included.
"""


def measured_section(verdicts: Mapping[str, Any]) -> str:
    """Markdown: how well a reward or preference model orders held-out answers.

    Args:
        verdicts: As `nashtune.evaluation.reward_report` gives them.
    """
    rows = [("pair accuracy", verdicts["accuracy"])]
    if verdicts["kind"] == "comparisons":
        rows.append(("verdict changes with the order", verdicts["position_bias"]["flips"]))
        note = "Accuracy is that of the mean of both orders."
    else:
        longer = verdicts["longer_is_better"]
        above = longer["above"]
        rows += [("accuracy of preferring the longer answer", longer), ("above that", above)]
        note = (
            f"Above that: {100 * longer['level']:g} % bootstrap interval over prompts "
            f"{above['low']:+.4f} to {above['high']:+.4f}. Members: {verdicts['members']}, single accuracies "
            f"{verdicts['members_accuracy']['min']:.4f} to {verdicts['members_accuracy']['max']:.4f}."
        )
    lines = [
        f"| {name} | {one['mean']:.4f} | {'' if one['se'] is None else format(one['se'], '.4f')} |"
        for name, one in rows
    ]
    found = verdicts["calibration"]
    lines += [f"| calibration error (ECE) | {found['ece']:.4f} | |", f"| log loss | {found['log_loss']:.4f} | |"]
    return f"""
## What it prefers

{verdicts["pairs"]} held-out pairs of {verdicts["prompts"]} prompts; errors are over prompts.

| | value | standard error |
|---|---|---|
{chr(10).join(lines)}

{note}
"""


def reward_section(head: HeadSpec, config: Mapping[str, Any], *, adapter: bool) -> str:
    """Markdown.

    Args:
        head: Of the spec.
        config: The run's.
        adapter: Whether the folder is an adapter, and not full weights.
    """
    code = ADAPTER.format(members=head.members) if adapter else WHOLE
    oracle = "reward_model" if head.members == 1 else "reward_ensemble"
    chat = config["data"].get("template", "chat") == "chat"
    text, written = (CHAT, WRITTEN) if chat else (PLAIN, "")
    members = "one score" if head.members == 1 else f"{head.members} scores, of {head.members} members of an ensemble,"
    stored = (
        "The scores are used as they are."
        if head.normalise == "none"
        else "A reward is `gain * score + bias`, with `gain` and `bias` of each output from `nashtune_reward.json`."
    )
    return f"""
## What it is

A reward model: it gives {members} to a prompt with an answer, and does not generate text. The score is a linear map of
the hidden state of the last token. {stored} Only differences between answers to one prompt were trained.

As a judge in nashtune: `--spec.oracle {oracle} --spec.oracle.path FOLDER`. With transformers:

```python
{code}
{text}
scores = model(**inputs).logits[0]
```
{written}"""
