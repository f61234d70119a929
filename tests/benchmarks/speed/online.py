"""One online round: draw two completions of each prompt, judge them, score them under the reference, train on them."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import yaml

from speed.alternate import Bench, Peer, medians, one_round
from speed.cases import NASHTUNE, TRL, made, settings
from speed.nashtune_run import online
from speed.vllm_beside import Server, beside

VLLM = "nashtune, vLLM server"
TARGETS = {NASHTUNE: 2.0, VLLM: 2.5}
TIMES = "speed.round_times.RoundTimes"


def peers(folder: Path, args: Namespace, given: dict[str, Any]) -> list[Peer]:
    """TRL's experimental trainer, nashtune, and nashtune with a server where there is one."""

    def theirs(out: Path) -> list[str]:
        return [
            *(sys.executable, "-m", "speed.trl_online", "--model", str(folder / "model"), "--out", str(out)),
            *("--prompts", str(folder / "prompts.jsonl"), "--batch", str(given["batch"])),
            *("--new-tokens", str(given["new_tokens"]), "--lr", str(given["lr"]), "--beta", str(given["beta"])),
            *("--clip", str(given["clip"]), "--max-length", str(given["max_length"])),
        ]

    return [Peer(TRL, theirs), Peer(NASHTUNE, lambda out: ours(folder, args, given, out, None))]


def ours(folder: Path, args: Namespace, given: dict[str, Any], out: Path, vllm: str | None) -> list[str]:
    """Command of nashtune, with a stopwatch for the parts of its round."""
    command = online(folder, out, given, engine=args.engine, vllm=vllm)
    file = out / "run.yaml"
    run = yaml.safe_load(file.read_text())
    run["trainer"]["callbacks"].append({"class_path": TIMES})
    file.write_text(yaml.safe_dump(run, sort_keys=False))
    return command


@contextmanager
def served(bench: Bench, args: Namespace, folder: Path, what: dict[str, Any]) -> Iterator[Server]:
    """The vLLM server of one process."""
    longest = min(int(what["longest"]), 64 * (args.prompt_median + args.new_tokens))
    log = bench.folder() / "vllm.txt"
    with beside(args.vllm, folder / "model", longest=longest, threads=args.threads, log=log) as server:
        yield server


def run(bench: Bench, args: Namespace, folder: Path, shape: str, rounds: int) -> dict[str, Any]:
    """Rounds of it. The time is from the start of training to the end of its last step, drawing included.

    End-of-sequence is one token of the vocabulary of a random model, so completions run to their limit; the tokens
    that were drawn are counted on both sides.
    """
    what = made(bench, args, f"{shape}/bf16-live", folder)
    pairs = [json.loads(line) for line in (folder / "pairs.jsonl").open()]
    count = min(args.prompts, len(pairs)) // args.batch * args.batch or args.batch
    with (folder / "prompts.jsonl").open("w") as out:
        for row in pairs[:count]:
            out.write(json.dumps({"prompt": row["prompt"]}) + "\n")
    given = settings(args, min(what["longest"], 64 * (args.prompt_median + args.new_tokens)))
    given |= {"prompts": count, "new_tokens": args.new_tokens}
    results: list[dict[str, Any]] = []
    for turn in range(rounds):
        runs = one_round(bench, peers(folder, args, given), turn, count // args.batch)
        if args.vllm:
            with served(bench, args, folder, what) as server:
                url, before = server.url, server.cpu()
                peer = Peer(VLLM, lambda out, url=url: ours(folder, args, given, out, url))  # type: ignore[misc]
                runs |= one_round(bench, [peer], turn, count // args.batch)
                runs[VLLM]["server_cpu"] = server.cpu() - before
        for run in runs.values():
            run["round_seconds"] = run["ends"][-1] - run["marks"]["train_start"]
            run["cpu_seconds"] = run["whole_cpu"] + run.get("server_cpu", 0.0)
        results.append(runs)
    names = list(results[0])
    columns = ("round_seconds", "peak_mb", "wall", "cpu_seconds")
    shown = {name: medians([{c: one[name][c] for c in columns} for one in results]) for name in names}
    trained = {name: results[0][name].get("trained", sum(results[0][name]["tokens"])) for name in names}
    steps = {name: len(results[0][name]["ends"]) for name in names}
    base = shown[TRL]["round_seconds"]["median"]
    return {
        "model": what,
        "prompts": count,
        "completions": 2 * count,
        "limit": args.new_tokens,
        "rounds": results,
        "peers": shown,
        "parts": {name: _parts([one[name]["parts"] for one in results]) for name in names if name != TRL},
        "trained_tokens": trained,
        "drawn": {TRL: results[0][TRL]["drawn"], "most": 2 * count * args.new_tokens},
        "steps": steps,
        "ratios": {name: base / shown[name]["round_seconds"]["median"] for name in names if name != TRL},
    }


def _parts(runs: list[dict[str, list[float]]]) -> dict[str, dict[str, float]]:
    """Median wall and CPU seconds of each part of the round."""
    names = list(dict.fromkeys(name for run in runs for name in run))
    taken = {name: [run.get(name, [0.0, 0.0]) for run in runs] for name in names}
    return {
        name: {unit: median(one[i] for one in each) for i, unit in enumerate(("wall", "cpu"))}
        for name, each in taken.items()
    }
