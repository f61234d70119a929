"""What is lost from the journal: made again as long as nothing was trained on it, and refused from then on."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from killing import killed_run
from lab import Lab
from nashtune.cli.main import main

ONPO = ("--spec.schedule.rounds", "1", "--data.batch_size", "1")  # several steps in each update
PPO = (
    *("--spec.schedule.steps", "1", "--data.prompts_per_round", "2", "--trainer.max_epochs", "2"),
    *("--data.batch_size", "2", "--save_every", "1"),
)
MADE = {
    "onpo": ["prompts", "completions-policy-0000", "scores-0000", "judgements-0000", "pairs", "anchor-"],
    "ppo": ["prompts", "completions-policy-0000", "scores-0000", "measured-"],
}
"""What the phases of a round make, by the beginnings of the names, in order."""


def lose(run: Path, name: str) -> str:
    """Take a file of the first round out of the manifest; its whole name."""
    manifest = run / "journal" / "round-001" / "manifest.json"
    files = json.loads(manifest.read_text())["files"]
    file = next(file for file in files if file.startswith(name))
    del files[file]
    manifest.write_text(json.dumps({"files": files}))
    return file


def outcome(run: Path) -> dict[str, object]:
    """The journal's files and the weights; a manifest has the order in which they were made."""
    checkpoint = max((run / "checkpoints").glob("step=*.ckpt"), key=lambda path: int(path.stem.removeprefix("step=")))
    found: dict[str, object] = {
        f"{path.parent.name}/{path.name}": path.read_bytes()
        for path in run.glob("journal/*/*")
        if path.suffix != ".json"
    }
    state = torch.load(checkpoint, weights_only=True)["state_dict"]
    return found | {key: value.tolist() for key, value in state.items()}


@pytest.mark.parametrize(("spec", "options"), [("onpo", ONPO), ("ppo", PPO)])
def test_what_an_update_in_progress_was_trained_on_is_not_made_again(
    game: Lab, refused: Callable[..., str], spec: str, options: tuple[str, ...]
) -> None:
    part = game.fit(*options, "--trainer.max_steps", "1", spec=spec, run="part")
    for number, name in enumerate([*MADE[spec], None]):
        harmed = game.folder / f"harmed-{number}"
        shutil.copytree(part, harmed)
        if name is None:
            (harmed / "journal" / "round-001" / "manifest.json").unlink()
        else:
            lose(harmed, name)
        before = {path: path.read_bytes() for path in harmed.glob("journal/*/*")}
        message = refused("fit", "--ckpt_path", "last", "--run_dir", str(harmed), "--trainer.max_steps", "-1")
        named = f"all rows of {name}" if name in ("anchor-", "measured-") else name or "prompts"
        assert f"round 1: no manifest*.json there names {named}" in message
        assert "has trained on this round already" in message and "from a copy, or start a new run" in message
        assert {path: path.read_bytes() for path in harmed.glob("journal/*/*")} == before, "nothing was written"
    game.fit("--ckpt_path", "last", *options, "--trainer.max_steps", "-1", spec=None, run="part")


@pytest.mark.parametrize(("spec", "options"), [("onpo", ONPO), ("ppo", PPO)])
def test_what_nothing_was_trained_on_is_made_again(
    game: Lab, refused: Callable[..., str], spec: str, options: tuple[str, ...]
) -> None:
    whole = outcome(game.fit(*options, spec=spec, run="whole"))
    command = ["fit", "--spec", spec, "--config", str(game.run_file), "--run_dir", str(game.folder / "run"), *options]
    step = "nashtune.training.module:AlignmentModule.training_step"
    assert killed_run(command, str(game.folder), step, 1, after=False) == -9
    shutil.copytree(game.folder / "run", game.folder / "gone")
    for name in MADE[spec][1:]:
        (game.folder / "run" / "journal" / "round-001" / lose(game.folder / "run", name)).unlink()
    assert outcome(game.fit("--ckpt_path", "last", *options, spec=None)) == whole
    lose(game.folder / "gone", "prompts")
    message = refused("fit", "--ckpt_path", "last", "--run_dir", str(game.folder / "gone"))
    assert "round 1: no manifest*.json there names prompts, and without it nobody knows which parts" in message


def test_a_file_that_the_end_needs_is_missed_at_the_start(game: Lab, refused: Callable[..., str]) -> None:
    """One that was altered in its size is found where it is read: the weights are there all the same."""
    part = game.fit(*ONPO, spec="onpo", run="part")
    again = ("fit", "--ckpt_path", "last", "--run_dir", str(part))
    file = part / "journal" / "round-001" / "completions-policy-0000.parquet"
    data = file.read_bytes()
    file.unlink()
    message = refused(*again)
    assert "completions-policy-0000.parquet is missing, and manifest.json" in message and "weights" not in message
    assert not (part / "config.1.yaml").exists(), "nothing was begun"
    altered = bytearray(data)
    altered[len(data) // 2] ^= 1
    file.write_bytes(altered)
    message = refused(*again)
    assert "completions-policy-0000.parquet is torn or was altered" in message
    assert message.endswith(f". The trained weights are whole: nashtune export {part}")
    assert main(["export", str(part), "--out", str(part / "mine")]) == 0
