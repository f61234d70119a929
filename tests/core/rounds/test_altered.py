"""A run folder whose files were altered together with the hashes that prove them is refused, and nothing is trained."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file

from lab import Lab

SPECS = {
    "onpo": ("--spec.schedule.rounds", "1", "--data.batch_size", "1"),
    "ppo": (
        *("--spec.schedule.steps", "1", "--data.prompts_per_round", "2", "--trainer.max_epochs", "2"),
        *("--data.batch_size", "2", "--save_every", "1"),
    ),
}
"""Games that are stopped after the first step of an update."""

Table = Callable[[pa.Table], pa.Table]
Tensors = Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]


def put(name: str, value: object, row: int = 0) -> Table:
    """Another value in a row of a column."""

    def alter(table: pa.Table) -> pa.Table:
        values = table[name].to_pylist()
        values[row] = value
        field = table.schema.field(name)
        return table.set_column(table.schema.get_field_index(name), field, pa.array(values, field.type))

    return alter


def times(count: int) -> Table:
    return lambda table: pa.concat_tables([table] * count)


def tensor(name: str, change: Callable[[torch.Tensor], torch.Tensor]) -> Tensors:
    return lambda tensors: {**tensors, name: change(tensors[name])}


def without(name: str) -> Callable[[Any], Any]:
    def alter(content: Any) -> Any:
        if isinstance(content, dict):
            return {key: value for key, value in content.items() if key != name}
        return content.drop_columns([name])

    return alter


def nan(values: torch.Tensor) -> torch.Tensor:
    return values * math.nan


COMPLETIONS, SCORES, JUDGEMENTS = "completions-policy-0000.parquet", "scores-0000.parquet", "judgements-0000.parquet"
Case = tuple[str, str, Any, str]
CASES: list[Case] = [
    ("onpo", "pairs.parquet", lambda table: table.slice(0, 0), "its pairs are not those that the round's judgements"),
    ("onpo", "pairs.parquet", times(2), "pairs of prompt"),
    ("onpo", "pairs.parquet", put("chosen", -1), "row 0 has chosen -1, and it must be a whole number from 0"),
    ("onpo", "pairs.parquet", put("rejected", 2**30), "there are no such two"),
    ("onpo", "pairs.parquet", put("prompt", 99), "there are no such two"),
    ("onpo", "pairs.parquet", put("prompt", None), "has prompt None"),
    ("onpo", "pairs.parquet", put("p_chosen", 7.0), "has p_chosen 7.0"),
    ("onpo", "pairs.parquet", put("win_rate_chosen", math.nan), "has win_rate_chosen nan"),
    ("onpo", "pairs.parquet", without("p_chosen"), "is not the table that belongs here: it was altered"),
    ("onpo", "dropped.parquet", lambda table: table.append_column("count", table["count"]), "not the table"),
    ("onpo", COMPLETIONS, lambda table: table.slice(0, 3), "it has 3 rows, 32 belong there"),
    ("onpo", COMPLETIONS, times(2), "is there twice"),
    ("onpo", COMPLETIONS, put("prompt", 99), "is missing"),
    ("onpo", COMPLETIONS, put("token_ids", [10**9]), "numbers in token_logp for 1 token_ids"),
    ("onpo", COMPLETIONS, put("token_ids", [1, None]), "has token_ids [1, None]"),
    (
        "onpo",
        COMPLETIONS,
        lambda table: put("token_logp", [])(put("token_ids", [10**9])(table)),
        "has token 1000000000",
    ),
    ("onpo", COMPLETIONS, put("token_logp", [math.nan]), "has token_logp [nan]"),
    ("onpo", SCORES, put("variance", -1.0), "has variance -1.0"),
    ("onpo", SCORES, put("role", "judge"), "has role judge"),
    ("onpo", SCORES, lambda table: table.slice(1), "31 rows, 32 belong there"),
    ("onpo", "prompts.parquet", put("prompt", 3), "are not the 8 of the round"),
    ("onpo", "anchor-", without("rows"), "it has no tensor 'rows'"),
    ("onpo", "anchor-", without("sums"), "it has no tensor 'sums'"),
    ("onpo", "anchor-", tensor("sums", nan), "'sums' has nan"),
    ("onpo", "anchor-", tensor("digests", lambda found: found[:, :3].contiguous()), "'digests' is uint8 of shape"),
    ("onpo", "anchor-", tensor("rows", lambda found: found.float()), "'rows' is float32"),
    ("onpo", "anchor-", tensor("rows", lambda found: found + 1000), "'rows' names row 10"),
    ("ppo", "measured-", tensor("old", nan), "'old' has nan"),
    ("ppo", "measured-", tensor("old", lambda found: found[1:].clone()), "numbers belong there"),
    ("ppo", "measured-", without("ref:ref"), "it has no tensor 'ref:ref'"),
    ("ppo", SCORES, put("mean", math.nan), "has mean nan"),
    ("ppo", SCORES, times(2), "is there twice"),
]
"""Spec, beginning of a file's name in the first round, what is done to its content, and what is said."""


@pytest.fixture(scope="module")
def stopped() -> Iterator[dict[str, Path]]:
    """Run folders by spec, made where a test asks for the first of them."""
    made: dict[str, Path] = {}
    yield made
    for run in made.values():
        shutil.rmtree(run.parent)


@pytest.fixture
def harmed(stopped: dict[str, Path], game: Lab, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A game of a spec, stopped after its first step, to be altered."""

    def copy(spec: str) -> Path:
        if spec not in stopped:
            run = game.fit(*SPECS[spec], "--trainer.max_steps", "1", spec=spec, run="part")
            stopped[spec] = tmp_path_factory.mktemp(spec) / "part"
            shutil.copytree(run, stopped[spec])
        return shutil.copytree(stopped[spec], game.folder / "run")

    return copy


def alter(run: Path, name: str, change: Callable[[Any], Any], *, rows: bool = True) -> Path:
    """Change a file of the first round and let its manifest agree; its number of rows too, if `rows`."""
    manifest = run / "journal" / "round-001" / "manifest.json"
    files = json.loads(manifest.read_text())["files"]
    path = manifest.with_name(next(file for file in files if file.startswith(name)))
    if path.suffix == ".parquet":
        table = change(pq.read_table(path))
        pq.write_table(table, path)
        count = table.num_rows
    else:
        tensors = change(load_file(path))
        save_file(tensors, path)
        count = max(tensor.shape[0] for tensor in tensors.values())
    data = path.read_bytes()
    facts = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    files[path.name] |= {**facts, "rows": count} if rows else facts
    manifest.write_text(json.dumps({"files": files}))
    return path


def going_on(refused: Callable[..., str], run: Path) -> str:
    """What a game says that does not go on; it has trained nothing."""
    before = {path: path.read_bytes() for path in run.glob("checkpoints/*")}
    message = refused("fit", "--ckpt_path", "last", "--run_dir", str(run), "--trainer.max_steps", "-1")
    assert {path: path.read_bytes() for path in run.glob("checkpoints/*")} == before
    return message


@pytest.mark.parametrize(("spec", "file", "change", "said"), CASES)
def test_an_altered_file_of_a_round_is_refused(
    harmed: Callable[[str], Path], refused: Callable[..., str], spec: str, file: str, change: Any, said: str
) -> None:
    run = harmed(spec)
    path = alter(run, file, change)
    message = going_on(refused, run)
    assert said in message and path.name in message and "was altered" in message and "from a copy" in message


@pytest.mark.parametrize("change", [lambda table: table.slice(0, 0), times(500)])
def test_a_table_has_the_rows_that_its_manifest_says(
    harmed: Callable[[str], Path], refused: Callable[..., str], change: Table
) -> None:
    run = harmed("onpo")
    alter(run, "pairs.parquet", change, rows=False)
    assert "rows, and its manifest says" in going_on(refused, run)


@pytest.mark.parametrize("content", ["[]", "{}", "3", '{"seed": 0}', "[" * 100_000])
def test_an_identity_of_something_else_is_refused(
    harmed: Callable[[str], Path], refused: Callable[..., str], content: str
) -> None:
    run = harmed("onpo")
    (run / "journal" / "identity.json").write_text(content)
    assert "identity.json is torn or was altered" in going_on(refused, run)


def test_a_game_goes_on_from_the_same_folder(harmed: Callable[[str], Path], game: Lab) -> None:
    run = harmed("onpo")
    game.fit("--ckpt_path", "last", *SPECS["onpo"], "--trainer.max_steps", "-1", spec=None)
    assert json.loads((run / "report.json").read_text())["steps"] > 1
