"""What a KL controller gives in training is looked at, and a run that it spoils ends with its name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from lab import Lab

CONTROLLERS = """
from nashtune.interfaces import KLController
from nashtune.kl.fixed import scalar_beta


class Falls(KLController):
    '''A beta that is 0 from the third step on.'''

    done = 0

    def beta(self, batch):
        return scalar_beta(0.1 if self.done < 2 else 0.0, batch)

    def observe(self, means):
        self.done += 1


class Number(Falls):
    '''A number in place of a tensor.'''

    def beta(self, batch):
        return 0.1


class Steps(Falls):
    '''Wants what it is not given.'''

    def beta(self, batch, step):
        return scalar_beta(0.1, batch)
"""
SAID = {
    "Falls": "kl Falls: beta gave 0 at step 2; it must be > 0 and finite. Nothing was updated by this step",
    "Number": "and gave float; of one number nashtune.kl.fixed.scalar_beta(value, batch) makes it",
    "Steps": "beta(self, batch, step) is called as beta(self, batch); give it these arguments",
}


@pytest.mark.parametrize("name", SAID)
def test_a_run_ends_with_the_controllers_name(
    lab: Lab, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    folder = Path("modules").resolve()
    folder.mkdir()
    (folder / "given_beta.py").write_text(CONTROLLERS)
    monkeypatch.syspath_prepend(str(folder))
    words = ["--config", str(lab.run_file), "--spec.kl", f"given_beta.{name}", "--allow-import", "given_beta"]
    message = refused("fit", "--spec", "dpo", "--run_dir", "run", *words)
    assert SAID[name] in message
    if name == "Steps":
        assert SAID[name] in refused("check", "dpo", *words, "--build")
