"""Kills a run at random moments, lets it go on, and compares the end with that of a run that nobody disturbed.

    python tests/kill_at_random.py --times 100
    python tests/kill_at_random.py --times 100 --game --ranks 2
    python tests/kill_at_random.py --times 100 --ranks 2 --strategy fsdp2_sharded

No test of the suite: it takes a few seconds for each kill. What is killed is `nashtune fit` itself, by `kill -9`, with
several ranks all of them at once or one, by chance. The moment is drawn evenly from what an attempt is expected to
last: an undisturbed run is measured first, its start-up, its work and its end apart, and of a run that goes on the work
that is left is counted. So nearly every attempt is hit alive. After a few kills a run is left alone to its end, which
is compared, bit for bit, and another one is begun until so many were killed. A tally ends it all.
"""

from __future__ import annotations

import argparse
import os
import random
import tempfile
import time
from collections import Counter
from multiprocessing.process import BaseProcess
from pathlib import Path

import yaml

from killing import Forked
from lab import pair_rows, write_rows
from ranks import DDP, FSDP2, SECONDS, start_on_ranks

OFFLINE = ("--spec", "dpo", "--data.batch_size", "2", "--save_every", "2")
GAME = (
    *("--spec", "onpo", "--spec.schedule.rounds", "2", "--data.batch_size", "3", "--samples.prompts", "3"),
    *("--spec.oracle", "rules", "--spec.oracle.rules", "[distinct_1]"),
    *("--spec.sampler.completions", "4", "--spec.sampler.max_new_tokens", "6"),
)
STRATEGIES = {"ddp": DDP, "fsdp2": FSDP2, "fsdp2_sharded": (*FSDP2, "--trainer.strategy.checkpoints", "sharded")}


def main() -> int:
    """0 when every run came to the same end."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--times", type=int, default=20, help="kills")
    parser.add_argument("--each", type=int, default=5, help="kills of one run, at most; then it is left alone")
    parser.add_argument("--game", action="store_true", help="a game of two rounds instead of an offline run")
    parser.add_argument("--ranks", type=int, default=1, help="processes of a run (gloo)")
    parser.add_argument("--strategy", choices=STRATEGIES, default="ddp", help="of several processes")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--folder", type=Path, default=None, help="where runs are left (default: a temporary folder)")
    asked = parser.parse_args()
    for name, value in {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}.items():
        os.environ.setdefault(name, value)  # before the server of processes starts
    folder = asked.folder or Path(tempfile.mkdtemp(prefix="kill-"))
    prepare(folder)
    runs = Runs(folder, asked.game, asked.ranks, asked.strategy)
    draw, tally, whole, different = random.Random(asked.seed), Counter[str](), 0, 0
    print(
        f"undisturbed: {runs.seconds:.1f} s, {runs.start_up:.1f} s of them before anything is saved and "
        f"{runs.ending:.1f} s after the last; everything lies in {folder}",
        flush=True,
    )
    while tally["killed"] < asked.times:
        run, kills = folder / f"run-{whole + 1}", 0
        while kills < asked.each and tally["killed"] < asked.times:
            death = runs.start_and_kill(run, draw)
            if death is None:
                tally["came to its end first"] += 1
                break
            kills += 1
            tally.update(["killed", f"of these: {death.who}", f"of these: {death.where}"])
            number = tally["killed"]
            print(f"kill {number}: {run.name}, {death.who} after {death.after:.2f} s, {death.left}", flush=True)
        else:
            runs.finish(run)
        whole += 1
        problems = runs.compare(run)
        different += bool(problems)
        print(f"{run.name}: {'; '.join(problems) or 'as undisturbed'}", flush=True)
    for name, count in sorted(tally.items(), key=lambda one: (one[0].startswith("of"), one[0])):
        print(f"{count:5}  {name}")
    print(f"{tally['killed']} kills in {whole} runs, {different} of which came to another end")
    return 1 if different else 0


def prepare(folder: Path) -> None:
    """A tiny model, rows and a run file."""
    from nashtune.testing import tiny_model

    folder.mkdir(parents=True, exist_ok=True)
    tiny_model(folder / "model")
    write_rows(folder / "train.jsonl", pair_rows(14))
    write_rows(folder / "validation.jsonl", pair_rows(6, start=100))
    run = {
        "policy": {"path": str(folder / "model")},
        "data": {"train": "train.jsonl", "validation": "validation.jsonl", "max_length": 128},
        "trainer": {"accelerator": "cpu", "max_epochs": 2, "enable_progress_bar": False},
        "samples": {"prompts": 2, "max_new_tokens": 6, "show": 0},
        "spec": {"optimizer": {"lr": 1e-3}},
    }
    (folder / "run.yaml").write_text(yaml.safe_dump(run))


class Death:
    """How an attempt was killed.

    Args:
        who: "all" or "rank 1", or "the process" where there is one.
        after: Seconds after it was started.
        run: The run folder as it was left.
        last: Whether the run had its last checkpoint already.
    """

    def __init__(self, who: str, after: float, run: Path, *, last: bool) -> None:
        self.who, self.after, self.left = who, after, newest(run)
        began = (run / "config.yaml").is_file()
        saved = any(run.glob("checkpoints/step=*")) or any(run.glob("journal/round-*"))
        self.where = "after its last step" if last else "at work" if saved else "begun" if began else "starting"


class Runs:
    """Runs of one command in one folder, and the one that was not disturbed.

    Args:
        folder: Of model, rows and runs.
        game: Whether it is a game.
        ranks: Processes.
        strategy: Of several processes: a name among `STRATEGIES`.

    Attributes:
        seconds: That an undisturbed run takes.
        start_up: Of these, until the first thing is saved.
        ending: Of these, after the last one.
    """

    def __init__(self, folder: Path, game: bool, ranks: int, strategy: str) -> None:
        self._folder, self._game, self._ranks, self._strategy = folder, game, ranks, STRATEGIES[strategy]
        self._true = folder / "undisturbed"
        first = Forked(target=os.getpid)  # the server imports everything now, and not in what is timed
        first.start()
        first.join()
        began = time.monotonic()
        processes = self._start(self._true)
        seen, changed = 0, [began]  # when there was more of it on the disk than before
        while any(one.is_alive() for one in processes):
            if (now := done(self._true)) > seen:
                seen = now
                changed.append(time.monotonic())
            time.sleep(0.005)
        if not self._end(processes):
            raise SystemExit(self._failure(self._true, processes))
        self.seconds = time.monotonic() - began
        self.start_up, self.ending = changed[1] - began, began + self.seconds - changed[-1]

    def expected(self, run: Path) -> float:
        """Seconds that the next attempt at a run will take, if it is not killed."""
        left = 1.0 - min(1.0, done(run) / done(self._true))
        return self.start_up + left * (self.seconds - self.start_up - self.ending) + self.ending

    def start_and_kill(self, run: Path, draw: random.Random) -> Death | None:
        """Begin a run or go on with it, and kill it; None where it came to its end before."""
        expected = self.expected(run)
        moment, processes = draw.uniform(0, expected), self._start(run)
        victims = processes if self._ranks == 1 or draw.random() < 0.5 else [draw.choice(processes)]
        began = time.monotonic()
        while time.monotonic() - began < moment and all(one.is_alive() for one in processes):
            time.sleep(0.002)
        killed = [one for one in victims if one.is_alive()]
        for process in killed:
            process.kill()
        if self._end(processes):
            self._be_quicker((time.monotonic() - began) / expected)
            return None
        if not killed:
            raise SystemExit(self._failure(run, processes))
        several = "all" if len(victims) > 1 else f"rank {processes.index(victims[0])}"
        last = newest_step(run) == newest_step(self._true)
        return Death("the process" if self._ranks == 1 else several, moment, run, last=last)

    def _be_quicker(self, share: float) -> None:
        """Expect less of the next attempts: one has come to its end in this share of what was expected of it."""
        share = min(1.0, share)
        self.seconds, self.start_up, self.ending = (share * one for one in (self.seconds, self.start_up, self.ending))

    def finish(self, run: Path) -> None:
        """Go on to the end.

        Raises:
            SystemExit: it does not get there.
        """
        processes = self._start(run)
        if not self._end(processes):
            raise SystemExit(self._failure(run, processes))

    def compare(self, run: Path) -> list[str]:
        """What differs from the undisturbed run."""
        import torch
        from safetensors.torch import load_file

        from nashtune.evaluation.report import read_metrics

        problems = []
        ours, theirs = (load_file(one / "export" / "model.safetensors") for one in (run, self._true))
        if ours.keys() != theirs.keys() or not all(torch.equal(ours[name], theirs[name]) for name in theirs):
            problems.append("other weights")
        if read_metrics(run).series.get("train/loss") != read_metrics(self._true).series.get("train/loss"):
            problems.append("other losses in the log")
        kept = [sorted(path.name for path in (one / "checkpoints").glob("step=*")) for one in (run, self._true)]
        if kept[0] != kept[1]:
            problems.append(f"checkpoints {kept[0]}, not {kept[1]}")
        for path in sorted(self._true.glob("journal/round-*/*.parquet")):
            other = run / path.relative_to(self._true)
            if not other.exists() or other.read_bytes() != path.read_bytes():
                problems.append(f"other {path.relative_to(self._true)}")
        return problems

    def _start(self, run: Path) -> list[BaseProcess]:
        options = GAME if self._game else OFFLINE
        command = ["fit", "--config", "run.yaml", *options, "--run_dir", str(run), "--ckpt_path", "auto"]
        if self._ranks > 1:
            return start_on_ranks(command, self._folder, ranks=self._ranks, strategy=self._strategy)
        process = Forked(target=alone, args=(command, str(self._folder)))
        process.start()
        return [process]

    def _end(self, processes: list[BaseProcess]) -> bool:
        """Wait for all; whether all ended well. One that does not notice that another is gone is an error."""
        end = time.monotonic() + self.grace
        for process in processes:
            process.join(max(end - time.monotonic(), 0.01))
        if hung := [number for number, one in enumerate(processes) if one.is_alive()]:
            for process in processes:
                process.kill()
                process.join()
            raise SystemExit(f"ranks {hung} were still there {self.grace:.0f} s later")
        return all(one.exitcode == 0 for one in processes)

    def _failure(self, run: Path, processes: list[BaseProcess]) -> str:
        logs = "\n".join(path.read_text() for path in sorted(self._folder.glob("rank-*.log")))
        return f"{run.name}: exit codes {[one.exitcode for one in processes]}\n{logs}"

    @property
    def grace(self) -> float:
        """Seconds in which a run ends, or a rank notices that another is gone."""
        return 300.0 + SECONDS


def done(run: Path) -> int:
    """How much of a run was done, in optimiser steps and files of its journal."""
    return newest_step(run) + len(list(run.glob("journal/round-*/*.parquet")))


def newest_step(run: Path) -> int:
    """Of the checkpoints of a run; 0 where there is none."""
    steps = [path.stem.partition("=")[2] for path in run.glob("checkpoints/step=*.ckpt")]
    return max((int(step) for step in steps if step.isdecimal()), default=0)


def newest(run: Path) -> str:
    """What there is of a run."""
    step, rounds = newest_step(run), len(list(run.glob("journal/round-*")))
    parts = [f"step {step} is saved"] * bool(step) + [f"{rounds} rounds in the journal"] * bool(rounds)
    return ", ".join(parts) or "nothing saved yet"


def alone(command: list[str], folder: str) -> None:
    """One process without a process group; its output goes to rank-0.log."""
    os.chdir(folder)
    handle = os.open("rank-0.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(handle, stream)
    from nashtune.cli.main import main as nashtune

    os._exit(nashtune(command))


if __name__ == "__main__":
    raise SystemExit(main())
