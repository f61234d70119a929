"""A preference model, from pairs to an oracle: the oracle asks the exported model what it was trained on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from lab import Lab, pair_rows
from nashtune.cli.main import main
from nashtune.data.comparisons import QUESTION
from nashtune.models.preference_file import PREFERENCE_FILE
from nashtune.oracles.preference_model import PreferenceModelOracle

pytestmark = pytest.mark.loads

TRAIN = ("--spec.optimizer.lr", "3e-3", "--spec.optimizer.warmup", "0", "--trainer.max_epochs", "4")


@pytest.mark.parametrize("template", ["chat", "plain"])
def test_the_oracle_gives_the_loss_that_training_has_measured(lab: Lab, template: str):
    """Cross-entropy of both orders, from the folder that `fit` exports and through the oracle's own forward pass.

    The folder says how the model was asked, and the oracle asks it so.
    """
    run = lab.fit(*TRAIN, "--data.template", template, spec="preference_pm")
    series = lab.metrics(run).series
    assert series["train/loss"][-1][1] < series["train/loss"][0][1]
    held_out = [(str(row["prompt"]), str(row["chosen"]), str(row["rejected"])) for row in pair_rows(6, start=100)]
    oracle = PreferenceModelOracle(path=str(run / "export"), device="cpu")
    other_way = [(prompt, rejected, chosen) for prompt, chosen, rejected in held_out]
    says_first = oracle._ask([tuple(ids) for ids in oracle._questions([*held_out, *other_way])])
    right = torch.cat([says_first[:6], 1 - says_first[6:]])
    assert series["val/loss"][-1][1] == pytest.approx(float(-right.log().mean()), abs=1e-6)
    assert series["val/accuracy"][-1][1] == pytest.approx(float((right > 0.5).double().mean()))
    p = oracle.compare(*map(list, zip(*held_out, strict=True)))
    torch.testing.assert_close(p, (right[:6] + right[6:]) / 2)
    assert oracle.counts()["longer_than_trained"] == 0

    facts = (run / "export" / PREFERENCE_FILE).read_text()
    assert json.loads(facts) == {"template": template, "question": QUESTION, "answers": ["A", "B"], "max_length": 128}
    assert main(["export", str(run), "--out", "again"]) == 0
    assert (lab.folder / "again" / PREFERENCE_FILE).read_text() == facts
    torch.testing.assert_close(asked_by_card(lab.folder / "again", *held_out[0]), says_first[0].float())


def asked_by_card(folder: Path, prompt: str, first: str, second: str) -> torch.Tensor:
    """What the code in the model card gives."""
    code = (folder / "README.md").read_text().split("```python\n")[1].split("```")[0]
    known = {
        "tokenizer": AutoTokenizer.from_pretrained(folder),
        "model": AutoModelForCausalLM.from_pretrained(folder).eval(),
        **{"PROMPT": prompt, "FIRST": first, "SECOND": second},
    }
    with torch.no_grad():
        exec(code, known)
    return known["first_is_better"]
