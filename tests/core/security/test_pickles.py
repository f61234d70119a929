"""Files that would run code if they were unpickled: they are refused, and nothing runs."""

from __future__ import annotations

import json
import pickle
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from lab import Lab
from nashtune.data.sources import read_source
from nashtune.errors import InputError
from nashtune.files import sha256_of
from nashtune.models.preflight import check_folder
from nashtune.oracles.reward_weights import check_reward_folder
from nashtune.sharding.files import consolidate
from nashtune.sharding.listing import FORM
from nashtune.training.checkpoint import AtomicCheckpointIO, newest_checkpoint, read_checkpoint


def test_the_payload_works(payload, mark) -> None:
    """Or the tests below would prove nothing."""
    pickle.loads(pickle.dumps(payload))
    assert mark.made


@pytest.fixture
def trained(lab: Lab) -> Path:
    return lab.fit("--trainer.max_steps", "1")


COMMANDS = (
    "fit --ckpt_path last --run_dir run",
    "fit --ckpt_path {0}",
    "validate --ckpt_path {0}",
    "test --ckpt_path {0}",
    "predict --ckpt_path {0}",
    "export run --out out",
)


def test_a_poisoned_checkpoint(trained: Path, payload, mark, refused: Callable[..., str]) -> None:
    file = newest_checkpoint(trained)
    content = torch.load(file, weights_only=True)
    torch.save({**content, "optimizer_states": [payload]}, file)
    for command in COMMANDS:
        assert "holds more than tensors and plain data, and was not read" in refused(*command.format(file).split())
    with pytest.raises(InputError, match=r"GLOBAL posix\.mkdir"):
        AtomicCheckpointIO().load_checkpoint(file, weights_only=False)  # as Lightning reads the weights
    file.write_bytes(pickle.dumps(payload))  # no archive at all: the format before torch 1.6
    for command in COMMANDS:
        refused(*command.format(file).split())
    with pytest.raises(InputError):
        AtomicCheckpointIO().load_checkpoint(file, weights_only=False)
    assert not mark.made


def test_a_poisoned_checkpoint_in_pieces(tmp_path: Path, payload, mark) -> None:
    folder = tmp_path / "step=1.ckpt"
    folder.mkdir()
    torch.save({"optimizer_states": [payload]}, folder / "state.pt")
    state = {"bytes": (folder / "state.pt").stat().st_size, "sha256": sha256_of(folder / "state.pt")}
    listed = {"form": FORM, "files": {"state.pt": state}, "tensors": {}}
    (folder / "files.json").write_text(json.dumps(listed))
    for read in (consolidate, read_checkpoint, AtomicCheckpointIO().load_checkpoint):
        with pytest.raises(InputError, match=r"GLOBAL posix\.mkdir"):
            read(folder)
    assert not mark.made


def test_a_checkpoint_whose_config_names_a_class(trained: Path, evil: str, mark, refused: Callable[..., str]) -> None:
    file = newest_checkpoint(trained)
    content = torch.load(file, weights_only=True)
    config = content["nashtune"]["config"]
    content["nashtune"]["config"] = {**config, "spec": {**config["spec"], "loss": {"name": f"{evil}.Bad"}}}
    torch.save(content, file)
    for command in COMMANDS:
        assert "--allow-import evil_parts" in refused(*command.format(file).split())
    tapped = {**config["trainer"], "callbacks": [{"class_path": f"{evil}.Tap"}]}
    content["nashtune"]["config"] = {**config, "trainer": tapped}
    torch.save(content, file)
    assert "evil_parts.Tap is not imported" in refused("fit", "--ckpt_path", str(file))
    content["nashtune"]["config"] = "none"
    torch.save(content, file)
    assert "was not written by nashtune" in refused("fit", "--ckpt_path", str(file))
    assert not mark.made


def test_pickled_weights_of_a_model(tiny: Path, tmp_path: Path, payload, mark) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny, folder)
    (folder / "model.safetensors").unlink()
    torch.save({"a": payload}, folder / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"in \*\.bin files alone, which are pickles"):
        check_folder(str(folder), chat=False)
    assert not mark.made


def test_pickled_weights_of_an_adapter(sft_adapter: Path, payload, mark, load) -> None:
    (sft_adapter / "adapter_model.safetensors").unlink()
    torch.save({"a": payload}, sft_adapter / "adapter_model.bin")
    for attempt in (lambda: check_folder(str(sft_adapter), chat=False), lambda: load(sft_adapter)):
        with pytest.raises(InputError, match=r"in \*\.bin files alone, which are pickles"):
            attempt()
    assert not mark.made


def test_pickled_weights_of_a_reward_model(heads: Path, payload, mark) -> None:
    (heads / "model.safetensors").unlink()
    torch.save({"a": payload}, heads / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"in \*\.bin files alone, which are pickles"):
        check_reward_folder(str(heads), "oracle.path")
    assert not mark.made


def test_an_adapter_that_names_a_module(sft_adapter: Path, evil: str, mark, load) -> None:
    """Peft imports what `megatron_core` names where `megatron_config` is set."""
    file = sft_adapter / "adapter_config.json"
    named = {"megatron_config": {"a": 1}, "megatron_core": evil, "auto_mapping": {"parent_library": evil}}
    file.write_text(json.dumps({**json.loads(file.read_text()), **named}))
    with pytest.raises(InputError, match=r"to be run \(adapter_config\.json: megatron_core: evil_parts\)"):
        load(sft_adapter)
    assert not mark.made


def test_a_parquet_file_that_holds_a_pickle(payload, mark, tmp_path: Path) -> None:
    """Arrow stored extension types of Python as pickles, and older versions of it unpickled them on reading."""
    field = pa.field(
        "prompt",
        pa.string(),
        metadata={
            "ARROW:extension:name": "arrow.py_extension_type",
            "ARROW:extension:metadata": pickle.dumps(payload, protocol=0),
        },
    )
    schema = pa.schema([field, ("chosen", pa.string()), ("rejected", pa.string())])
    table = pa.table([pa.array([text]) for text in ("Q", "a", "b")], schema=schema)
    pq.write_table(table, tmp_path / "rows.parquet")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the type is unknown
        assert len(list(read_source(str(tmp_path / "rows.parquet")))) == 1
    assert not mark.made
