"""The run's sections as a stage has them: checked, and as plain data."""

from __future__ import annotations

from typing import Any

from nashtune.pipeline.layers import untyped
from nashtune.pipeline.model import NOT_PER_STAGE
from nashtune.spec.run import Runs
from nashtune.spec.runoptions import SECTION_CLASSES, SINGLE, check_settings


def sections(runs: Runs) -> dict[str, Any]:
    """What was given in every section of a run file, as the options' types read it; defaults are left out.

    Args:
        runs: The run's sections with the stage's own on top.

    Raises:
        InputError: what is wrong, all of it.
    """
    options = check_settings(runs)
    given: dict[str, Any] = {}
    for section in SECTION_CLASSES:
        asked = runs.data.get(section, {})
        given[section] = {key: untyped(options[section][key]) for key in asked}
    given["trainer"] = untyped(options["trainer"])
    for key in SINGLE:
        if key in runs.data and key not in NOT_PER_STAGE:
            given[key] = untyped(runs.data[key])
    return given
