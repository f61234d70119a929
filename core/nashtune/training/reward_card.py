"""The part of a model card that says what a reward model is and how its scores are read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

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


def reward_section(head: HeadSpec, config: Mapping[str, Any], *, adapter: bool) -> str:
    """Markdown.

    Args:
        head: Of the spec.
        config: The run's.
        adapter: Whether the folder is an adapter, and not full weights.
    """
    code = ADAPTER.format(members=head.members) if adapter else WHOLE
    oracle = "reward_model" if head.members == 1 else "reward_ensemble"
    text = CHAT if config["data"].get("template", "chat") == "chat" else PLAIN
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
"""
