from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from lab import Lab
from nashtune.cli.main import main
from nashtune.models.policy import HFPolicy, PolicyConfig
from nashtune.training.checkpoint import SECTION, newest_checkpoint, read_checkpoint


def logits_of_checkpoint(run: Path, ids: torch.Tensor) -> torch.Tensor:
    content = read_checkpoint(newest_checkpoint(run))
    policy = HFPolicy(PolicyConfig.from_plain(content[SECTION]["config"]["policy"]))
    policy.load()
    policy.load_trainable_state_dict(content["state_dict"])
    policy.eval()
    return policy.model(input_ids=ids).logits.detach()


def test_an_exported_folder_gives_equal_log_probs(lab: Lab) -> None:
    run = lab.fit()
    tokenizer = AutoTokenizer.from_pretrained(run / "export")
    ids = tokenizer("Do you like red?", return_tensors="pt").input_ids
    model = AutoModelForCausalLM.from_pretrained(run / "export")
    assert torch.equal(model(input_ids=ids).logits, logits_of_checkpoint(run, ids))
    assert tokenizer.chat_template


def test_the_model_card_says_what_was_trained(lab: Lab) -> None:
    card = (lab.fit() / "export" / "README.md").read_text()
    for part in (
        "# dpo:",
        "2305.18290",
        "label_smoothing",
        "sha256 of the token ids",
        "accuracy",
        "nashtune fit --config",
    ):
        assert part in card


def test_the_card_of_other_weights_than_the_reports_has_none_of_its_figures(lab: Lab) -> None:
    """A run's earlier checkpoint; so it is where a run went on and was killed before it wrote another report."""
    run, out = lab.fit("--save_every", "2", "--keep_checkpoints", "9"), lab.folder / "earlier"
    steps = json.loads((run / "report.json").read_text())["steps"]
    assert steps > 2 and f"steps: {steps}" in (run / "export" / "README.md").read_text()
    assert main(["export", str(run / "checkpoints" / "step=2.ckpt"), "--out", str(out)]) == 0
    card = (out / "README.md").read_text()
    assert "- Optimiser steps: 2\n" in card and "| not measured | |" in card and "sha256 of the token ids" in card


def test_lora_exports_the_adapter_or_merged_weights(lab: Lab) -> None:
    from peft import PeftModel

    run = lab.fit("--policy.lora.r", "4", "--policy.lora.alpha", "8")
    assert main(["export", str(run), "--merged", "--out", str(lab.folder / "merged")]) == 0
    ids = torch.tensor([[4, 77, 100, 81, 5, 60]])
    expected = logits_of_checkpoint(run, ids)
    merged = AutoModelForCausalLM.from_pretrained(lab.folder / "merged")(input_ids=ids).logits
    torch.testing.assert_close(merged, expected, rtol=1e-4, atol=1e-5)
    base = AutoModelForCausalLM.from_pretrained(
        json.loads((run / "export" / "adapter_config.json").read_text())["base_model_name_or_path"]
    )
    adapted = PeftModel.from_pretrained(base, run / "export").eval()
    torch.testing.assert_close(adapted(input_ids=ids).logits, expected, rtol=1e-4, atol=1e-5)


def test_export_never_overwrites(lab: Lab, refused: Callable[..., str]) -> None:
    run = lab.fit()
    before = sorted((p.name, p.stat().st_mtime_ns) for p in (run / "export").iterdir())
    assert "is not empty and is not overwritten" in refused("export", str(run))
    assert sorted((p.name, p.stat().st_mtime_ns) for p in (run / "export").iterdir()) == before


def test_an_earlier_export_of_a_run_that_goes_on(lab: Lab, refused: Callable[..., str]) -> None:
    run = lab.fit()
    (run / "report.json").unlink()
    assert "of an earlier export, and the run puts its own there when it ends): use" in refused("export", str(run))
    assert "earlier export" not in refused("export", str(run), "--out", str(run / "export"))


def test_a_folder_that_cannot_be_written_to(
    lab: Lab, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = lab.fit()

    def full(*args: object, **kwargs: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def read_only(*args: object, **kwargs: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), "some/folder")

    for fault, said in ((full, "the disk is full"), (read_only, "some/folder: the file system is read-only")):
        monkeypatch.setattr(HFPolicy, "save_pretrained", fault)
        message = refused("export", str(run), "--out", "new")
        assert message == f"error: {said}; nothing was exported. Make room, or choose another folder with --out"
    assert not (lab.folder / "new").exists()


def test_a_report_with_a_bad_byte(lab: Lab, refused: Callable[..., str]) -> None:
    run = lab.fit()
    (run / "report.json").write_bytes(b"\xff")
    assert "report.json is torn or was altered" in refused("export", str(run), "--out", "new")


def test_merging_full_weights_is_refused(lab: Lab, refused: Callable[..., str]) -> None:
    run = lab.fit()
    assert "there is no adapter to merge" in refused("export", str(run), "--merged", "--out", "elsewhere")
    assert not (lab.folder / "elsewhere").exists()


def test_export_as_json(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    run = lab.fit()
    capsys.readouterr()
    assert main(["export", str(run), "--out", "again", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"folder": "again"}
