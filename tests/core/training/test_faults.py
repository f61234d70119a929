"""What goes wrong on one rank or on the machine: the run ends like an undisturbed one, or stops and loses nothing."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from faults import EVALUATE, FINISH, LOAD, REMEMBER, SAVE, STEP, VALIDATE, Fault, faulty, said
from lab import Lab
from nashtune.cli.main import main
from nashtune.training.checkpoint import checkpoints_in, newest_checkpoint
from nashtune.training.lock import hold
from ranks import DDP, FSDP2

HALF = ("--data.batch_size", "2")  # of the laboratory's 4: two ranks have the global block that one rank has


def state(run: Path) -> dict[str, torch.Tensor]:
    weights: dict[str, torch.Tensor] = torch.load(newest_checkpoint(run), weights_only=True)["state_dict"]
    return weights


def assert_same(one: Path, other: Path, *, tolerance: float = 0.0) -> None:
    ours, theirs = state(one), state(other)
    assert newest_checkpoint(one).name == newest_checkpoint(other).name
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], rtol=0, atol=tolerance)


def on_two(lab: Lab, run: str, *faults: Fault | None, more: tuple[str, ...] = (), strategy=DDP) -> list[int | None]:
    """One command, whatever has happened before."""
    command = ["fit", "--config", str(lab.run_file), "--spec", "dpo", *HALF, "--save_every", "1", *more]
    folder = lab.folder / run
    return faulty([*command, "--run_dir", str(folder), "--ckpt_path", "auto"], lab.folder, *faults, strategy=strategy)


def test_two_ranks_through_every_fault_end_as_undisturbed(lab: Lab) -> None:
    """Each attempt meets its own fault; the next one goes on. At the end every weight is bitwise the same."""
    cached = ("--spec.references.ref", "cached", "--trainer.val_check_interval", "2")
    assert on_two(lab, "whole", None, None, more=cached) == [0, 0], said(lab.folder)
    for faults, codes in (
        ((None, Fault("kill", LOAD)), {-9}),
        ((Fault("kill", REMEMBER), None), {-9}),
        ((None, Fault("kill", STEP, 3)), {-9}),
        ((Fault("kill", SAVE, 2), None), {-9}),
        ((Fault("kill", VALIDATE), Fault("kill", VALIDATE)), {-9}),
        ((None, Fault("term", STEP, 2)), {143}),
        ((Fault("kill", FINISH), None), {-9}),
    ):
        found = on_two(lab, "parts", *faults, more=cached)
        assert None not in found and set(found) & codes, (faults, found, said(lab.folder))
        assert "Traceback" not in said(lab.folder) or -9 in found
        assert found == [143, 143] or -9 in found, "a launcher that hears 0 from one machine takes the run for done"
    assert not (lab.folder / "parts" / "export").exists()
    assert on_two(lab, "parts", None, None, more=cached) == [0, 0], said(lab.folder)
    assert_same(lab.folder / "whole", lab.folder / "parts")
    for name in ("export/model.safetensors",):
        assert (lab.folder / "whole" / name).read_bytes() == (lab.folder / "parts" / name).read_bytes()


def test_a_run_goes_on_on_other_ranks(lab: Lab) -> None:
    """1 rank x 4 micro-batches, then 2 ranks x 2, then 1 rank x 2: the same steps, up to the order of additions.

    13 rows in steps of 8: the last step of an epoch has 5, and on two ranks one micro-batch has no row on rank 1.
    """
    options = ["--data.limit", "13", "--trainer.max_epochs", "3", "--spec", "dpo", "--save_every", "1"]
    four = ["--data.batch_size", "2", "--trainer.accumulate_grad_batches", "4"]
    two = ["--data.batch_size", "2", "--trainer.accumulate_grad_batches", "2"]
    whole = lab.fit(*options, *four, spec=None, run="whole")
    parts = lab.fit(*options, *four, "--trainer.max_steps", "1", spec=None, run="parts")
    go_on = ["fit", "--ckpt_path", "last", "--run_dir", str(parts)]
    assert faulty([*go_on, *two, "--trainer.max_steps", "4"], lab.folder, None, None) == [0, 0], said(lab.folder)
    assert newest_checkpoint(parts).name == "step=4.ckpt"
    last = ["--data.batch_size", "4", "--trainer.accumulate_grad_batches", "2", "--trainer.max_steps", "-1"]
    assert main([*go_on, *last, "--trainer.devices", "1", "--trainer.strategy", "auto"]) == 0
    assert newest_checkpoint(parts).name == "step=6.ckpt"
    assert_same(whole, parts, tolerance=2e-5)
    ours, theirs = lab.metrics(whole).series["train/loss"], lab.metrics(parts).series["train/loss"]
    assert [value for _, value in theirs] == pytest.approx([value for _, value in ours], abs=1e-5)


def test_not_a_number_on_one_rank_stops_all_and_names_it(lab: Lab) -> None:
    codes = on_two(lab, "run", None, Fault("nan", "nashtune.training.objective:Objective.evaluate", 3))
    assert codes == [2, 2], said(lab.folder)
    log = said(lab.folder)
    assert log.count("step 2: the loss is not finite on 2 of 2 rows: train.jsonl:") == 1, log  # by one for all
    assert "rank 1 of 2" in log and "Traceback" not in log
    assert newest_checkpoint(lab.folder / "run").name == "step=2.ckpt"


@pytest.mark.parametrize(
    ("strategy", "message"),
    [
        (DDP, r"rank 1 of 2, step 2: the gradient is not finite, though the loss is; its rows: train\.jsonl:\S+ "),
        (
            FSDP2,
            r"step 2: some rank's gradient is not finite, though every loss is; whose it was is not known, since it is "
            r"summed over the 2 ranks while it is made\. Rows of that step: rank 0: train\.jsonl:\d+, train\.jsonl:\d+"
            r"; rank 1: train\.jsonl:\d+, train\.jsonl:\d+\. Nothing was updated",
        ),
    ],
    ids=["ddp", "fsdp2"],
)
def test_a_gradient_of_one_rank_is_named_where_it_can_be(lab: Lab, strategy: tuple[str, ...], message: str) -> None:
    codes = on_two(lab, "run", None, Fault("nan gradient", EVALUATE, 3), strategy=strategy)
    assert codes == [2, 2], said(lab.folder)
    log = said(lab.folder)
    assert len(re.findall(message, log)) == 1 and "Traceback" not in log, log
    assert newest_checkpoint(lab.folder / "run").name == "step=2.ckpt"


def test_a_full_disk_of_rank_0_stops_all(lab: Lab) -> None:
    assert on_two(lab, "run", Fault("full disk", SAVE, 2), None) == [2, 2], said(lab.folder)
    for rank in (0, 1):
        log = " ".join((lab.folder / f"rank-{rank}.log").read_text().split())
        assert "the checkpoint could not be written" in log and "--ckpt_path last" in log and "Traceback" not in log
    assert [path.name for path in checkpoints_in(lab.folder / "run").values()] == ["step=1.ckpt"]


def test_a_full_disk_of_one_rank_that_writes_pieces_stops_all(lab: Lab) -> None:
    """torch tells of it by what is no Exception."""
    pieces = (*FSDP2, "--trainer.strategy.checkpoints", "sharded")
    full = Fault("full disk", "nashtune.sharding.strategy:FSDP2Strategy.save_checkpoint", 2)
    assert on_two(lab, "run", None, full, strategy=pieces) == [2, 2], said(lab.folder)
    log = said(lab.folder)
    assert log.count("step=2.ckpt: the checkpoint could not be written ([Errno 27] File too large") == 1  # for all
    assert f"earlier checkpoints in {lab.folder / 'run' / 'checkpoints'} are whole. Free some space and go" in log
    assert "Traceback" not in log
    assert [path.name for path in (lab.folder / "run" / "checkpoints").iterdir()] == ["step=1.ckpt"]


def test_what_rank_0_refuses_alone_ends_the_others_at_once(lab: Lab) -> None:
    """They have ten minutes to wait for it, and `faulty` kills them before that."""
    (lab.folder / "run").mkdir()
    (lab.folder / "run" / "precious").touch()
    same = ["fit", "--config", str(lab.run_file), "--spec", "dpo", *HALF, "--run_dir", "run"]
    patient = Fault("patient", "nashtune.cli.main:main")
    codes = faulty(same, lab.folder, patient, None, strategy=(*DDP[:-1], "0:10:00"))
    assert codes == [2, 2], said(lab.folder)
    assert "run is not empty, and a run is never overwritten" in (lab.folder / "rank-0.log").read_text()
    other = " ".join((lab.folder / "rank-1.log").read_text().split())
    assert "error: rank 0 has ended before the processes met" in other and "Traceback" not in other


def test_a_slow_rank_changes_nothing_and_one_that_hangs_ends_the_run(lab: Lab) -> None:
    limited = ("--trainer.max_steps", "3")
    assert on_two(lab, "whole", None, None, more=limited) == [0, 0], said(lab.folder)
    assert on_two(lab, "slow", None, Fault("slow", STEP, 2), more=limited) == [0, 0], said(lab.folder)
    assert_same(lab.folder / "whole", lab.folder / "slow")
    impatient = (*DDP[:-1], "0:00:15")  # half of what a rank hangs
    codes = on_two(lab, "hang", None, Fault("hang", STEP, 2), more=limited, strategy=impatient)
    assert codes == [1, 1], said(lab.folder)
    assert "the newest checkpoint is step=1.ckpt; go on with" in said(lab.folder)
    assert on_two(lab, "hang", None, None, more=limited) == [0, 0], said(lab.folder)
    assert_same(lab.folder / "whole", lab.folder / "hang")


def fit_once(lab: Lab, *arguments: str, fault: Fault | None = None, env: dict[str, str] | None = None) -> int | None:
    command = ["fit", "--config", str(lab.run_file), "--spec", "dpo", *arguments]
    return faulty(command, lab.folder, fault, env=env)[0]


def test_pre_emption_saves_the_step_and_a_requeued_job_goes_on(lab: Lab, tmp_path: Path) -> None:
    """`save_every` is out of reach: only the signal saves. The same command line starts, and goes on."""
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "scontrol").write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n')
    (tools / "scontrol").chmod(0o755)
    slurm = {"SLURM_JOB_ID": "77", "SLURM_JOB_NAME": "train", "PATH": f"{tools}:{os.environ['PATH']}"}
    whole = lab.fit("--trainer.accumulate_grad_batches", "2", run="whole")
    same = ("--trainer.accumulate_grad_batches", "2", "--run_dir", str(lab.folder / "parts"), "--ckpt_path", "auto")
    assert fit_once(lab, *same, fault=Fault("term", STEP, 1), env=slurm) == 0, said(lab.folder)
    assert newest_checkpoint(lab.folder / "parts").name == "step=1.ckpt"
    assert not (tmp_path / "asked").exists(), "SLURM starts what it pre-empts again by itself"
    assert fit_once(lab, *same, fault=Fault("usr1", STEP, 1), env=slurm) == 0, said(lab.folder)
    assert newest_checkpoint(lab.folder / "parts").name == "step=2.ckpt"
    assert (tmp_path / "asked").read_text() == "requeue 77\n"
    assert fit_once(lab, *same, fault=Fault("term", FINISH), env=slurm) == 0, said(lab.folder)
    assert not (lab.folder / "parts" / "export").exists()
    assert fit_once(lab, *same, env=slurm) == 0, said(lab.folder)
    assert (lab.folder / "parts" / "export").is_dir()
    assert_same(whole, lab.folder / "parts")


def test_auto_begins_again_where_nothing_was_saved(lab: Lab) -> None:
    whole = lab.fit(run="whole")
    parts = lab.folder / "parts"
    same = ("--run_dir", str(parts), "--ckpt_path", "auto")
    assert fit_once(lab, *same, fault=Fault("kill", STEP, 3)) == -9
    assert (parts / "config.yaml").exists() and not checkpoints_in(parts)
    assert fit_once(lab, *same) == 0, said(lab.folder)
    assert (parts / "config.1.yaml").exists()
    assert_same(whole, parts)
    assert lab.metrics(whole).series == lab.metrics(parts).series


def test_auto_needs_a_folder_and_is_for_fit(lab: Lab, refused: Callable[..., str]) -> None:
    for command in (("fit", "--ckpt_path", "auto", "--spec", "dpo"), ("test", "--ckpt_path", "auto", "--run_dir", "x")):
        assert "is for `nashtune fit` and needs --run_dir" in refused(*command, "--config", str(lab.run_file))


def test_the_second_run_in_a_folder_is_refused(lab: Lab, refused: Callable[..., str]) -> None:
    run = lab.fit("--trainer.max_steps", "2")
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.name != ".lock"}
    with hold(run):
        message = refused("fit", "--ckpt_path", "last", "--run_dir", str(run), "--trainer.max_steps", "-1")
        plain = refused("fit", "--config", str(lab.run_file), "--spec", "dpo", "--run_dir", str(run))
    assert f"is in use: process {os.getpid()} on " in plain and "never overwritten" not in plain
    assert f"is in use: process {os.getpid()} on " in message
    assert {path: path.read_bytes() for path in before} == before
    lab.fit("--ckpt_path", "last", "--trainer.max_steps", "-1", spec=None)  # the lock is free again


def test_the_newest_checkpoints_stay(lab: Lab) -> None:
    run = lab.fit("--save_every", "1", "--keep_checkpoints", "3")
    assert list(checkpoints_in(run)) == [6, 7, 8]
    assert list(checkpoints_in(lab.fit("--save_every", "3", run="one"))) == [8]


def test_a_truncated_checkpoint_is_refused_and_the_older_one_goes_on(lab: Lab, refused: Callable[..., str]) -> None:
    whole = lab.fit("--save_every", "1", run="whole")
    run = lab.fit("--save_every", "1", "--keep_checkpoints", "2", "--trainer.max_steps", "5")
    newest, older = run / "checkpoints" / "step=5.ckpt", run / "checkpoints" / "step=4.ckpt"
    os.truncate(newest, newest.stat().st_size // 2)
    os.utime(older, (2**31, 2**31))  # a clock that was wrong: time stamps decide nothing
    message = refused("fit", "--ckpt_path", "last", "--run_dir", str(run))
    assert "step=5.ckpt is no whole checkpoint" in message
    assert f"step=4.ckpt is whole, go on from it: nashtune fit --ckpt_path {older}" in message
    lab.fit("--ckpt_path", str(older), "--trainer.max_steps", "-1", spec=None)
    assert_same(whole, run)
    assert (run / "checkpoints" / "left-step=5.ckpt").exists(), "what was left behind is set aside, not overwritten"
    os.truncate(newest_checkpoint(run), 1000)
    os.unlink(run / "checkpoints" / "step=7.ckpt")
    message = refused("fit", "--ckpt_path", "last", "--run_dir", str(run))
    assert f"begin again in the same folder: nashtune fit --ckpt_path auto --run_dir {run}" in message


def test_a_disk_that_fills_up_between_checkpoints(lab: Lab) -> None:
    run = lab.folder / "run"
    same = ("--save_every", "1", "--run_dir", str(run), "--ckpt_path", "auto")
    log = Fault("no space", "lightning.pytorch.loggers.csv_logs:CSVLogger.save", 9)
    assert fit_once(lab, *same, fault=log) == 2, said(lab.folder)
    assert "the disk is full" in said(lab.folder) and "Traceback" not in said(lab.folder)
    newest = f"the newest checkpoint is {newest_checkpoint(run).name}; go on with: nashtune fit --ckpt_path last"
    assert f"{newest} --run_dir {run}" in said(lab.folder)
    assert fit_once(lab, *same) == 0, said(lab.folder)
    assert_same(lab.fit("--save_every", "1", run="whole"), run)


def test_another_clock_and_another_locale_change_nothing(lab: Lab) -> None:
    """Time runs backwards, the zone is another and text files are ASCII by default, in one half of a run only."""
    names = {"prompt": "Magst du Äpfel, 日本?", "chosen": "Ja, sehr gern ✓", "rejected": "Nein"}
    with (lab.folder / "train.jsonl").open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(names, ensure_ascii=False) + "\n")
    whole = lab.fit("--save_every", "1", run="gänze")
    parts = lab.folder / "stück"
    same = ("--save_every", "1", "--run_dir", str(parts), "--ckpt_path", "auto")
    assert fit_once(lab, *same, fault=Fault("kill", STEP, 4)) == -9
    assert fit_once(lab, *same, fault=Fault("another place", "nashtune.cli.main:main")) == 0, said(lab.folder)
    assert_same(whole, parts)
    assert lab.metrics(whole).series == lab.metrics(parts).series


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a folder read-only")
def test_a_run_folder_on_a_read_only_file_system(lab: Lab) -> None:
    """From the start, and while training."""
    whole = lab.fit("--save_every", "1", run="whole")
    run = lab.fit("--save_every", "1", "--trainer.max_steps", "2")
    go_on = ("--save_every", "1", "--run_dir", str(run), "--ckpt_path", "last", "--trainer.max_steps", "-1")
    for moment in (Fault("read-only", "nashtune.cli.main:_dispatch"), Fault("read-only", STEP, 2), None):
        code = fit_once(lab, *go_on, fault=moment)
        if moment is None:
            assert code == 0, said(lab.folder)
            break
        assert code == 2 and "Traceback" not in said(lab.folder), said(lab.folder)
        assert "read-only" in said(lab.folder).lower(), said(lab.folder)
        assert checkpoints_in(run), "what was saved is still there"
    assert_same(whole, run)
