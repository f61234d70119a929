"""The contract of a stage: what it declares, and that it can be looked at without torch."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from nashtune.errors import InputError
from nashtune.interfaces import Planned, Stage
from nashtune.plugins.component import NAME
from nashtune.spec.run import load_runs
from nashtune.testing.contract import ContractError, require
from nashtune.testing.declared import check_class, check_names
from nashtune.testing.subject import Subject

THIN = """
import importlib, json, sys
module, name, path, options = json.loads(sys.stdin.read())
sys.path[:0] = path
getattr(importlib.import_module(module), name)(**options)
print(json.dumps("torch" in sys.modules))
"""


def check(subject: Subject, options: Mapping[str, Any]) -> None:
    """Check a stage.

    Raises:
        ContractError: it breaks a rule.
    """
    check_class(subject)
    for name in ("placement", "decides"):
        check_names(subject, "stage-declares", name)
    outputs = subject.cls.outputs  # type: ignore[attr-defined]
    good = bool(outputs) and len(set(outputs)) == len(outputs) and all(NAME.fullmatch(one) for one in outputs)
    require(good, subject.who, "stage-declares", f"outputs is {outputs!r}; give each a name of a-z, 0-9 and _")
    for chosen in subject.given(options):
        stage, who = subject.make(chosen), subject.named(chosen)
        assert isinstance(stage, Stage)
        _thin(subject, chosen, who)
        _checks(stage, who)


def _thin(subject: Subject, options: Mapping[str, Any], who: str) -> None:
    asked = json.dumps([subject.info.module, subject.info.name, sys.path, dict(options)])
    done = subprocess.run([sys.executable, "-c", THIN], input=asked, capture_output=True, text=True, check=False)
    said = " ".join(done.stderr.split())[-300:]
    require(done.returncode == 0, who, "runs", f"it cannot be made in a process of its own: {said}")
    require(not json.loads(done.stdout.splitlines()[-1]), who, "stage-thin", "making it imports torch")


def _checks(stage: Stage, who: str) -> None:
    """A run that says nothing: most stages lack something then, and say so."""
    try:
        planned = stage.check(load_runs(()))
    except InputError:
        return
    except Exception as error:
        text = f"check of an empty run raised {type(error).__name__}: {error}; say what is missing with InputError"
        raise ContractError(who, "stage-checks", text) from error
    require(isinstance(planned, Planned), who, "stage-checks", f"check gave {planned!r}")
    try:
        json.dumps(dict(planned.settings))
    except TypeError as error:
        raise ContractError(who, "stage-checks", f"its settings are no plain data: {error}") from error
