"""The whole benchmark: proof, cases in alternation, everything beside them, report."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

from speed import cases, commands, epsilon, heads, machine, merge, online, parity, rows, shares
from speed.alternate import Bench
from speed.options import parse


def main() -> int:
    """Run it; 0 where everything ran and was equal, whatever the figures are."""
    args = parse()
    if args.report:
        results = merge.merged(args.report)
        write_results(results, args.out)
        write_report(results, args.out)
        return int(failing(results))
    if machine.describe(args.threads, "")["versions"]["trl"] == "absent":
        print("TRL is not installed beside nashtune; `make bench` makes an environment with both", file=sys.stderr)
        return 2
    work = args.work or Path(tempfile.mkdtemp(prefix="nashtune-speed-"))
    work.mkdir(parents=True, exist_ok=True)
    run = Suite(args, work.resolve())
    try:
        run.all()
    finally:
        write_results(run.results, args.out)
        if not args.keep and args.work is None:
            shutil.rmtree(work, ignore_errors=True)
    write_report(run.results, args.out)
    failed = run.results["failed"]
    for name, why in failed.items():
        print(f"\n{name} FAILED: {why}", file=sys.stderr)
    return int(failing(run.results))


def failing(results: dict[str, Any]) -> bool:
    """Whether something did not run, or was not equal."""
    return bool(results["failed"]) or not results.get("parity", {"agree": True})["agree"]


def write_results(results: dict[str, Any], folder: Path) -> None:
    """speed.json; folders of this machine are left out."""

    def clean(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: clean(inner) for key, inner in value.items() if key != "output"}
        return [clean(inner) for inner in value] if isinstance(value, list) else value

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "speed.json").write_text(json.dumps(clean(results), indent=1) + "\n")


def write_report(results: dict[str, Any], out: Path) -> None:
    """speed.md and speed.png from results; the ratios are printed too."""
    from speed.figures import draw
    from speed.report import ratios, requirements, write

    draw(results, out / "speed.png")
    write(results, out / "speed.md")
    for table in (ratios(results), requirements(results)):
        if table:
            print("\n" + table)
    print(f"\nwritten: {out / 'speed.md'}, {out / 'speed.png'}, results in {out / 'speed.json'}")


class Suite:
    """One run of the benchmark.

    Args:
        args: Of the command line.
        work: Folder for models, data and runs.
    """

    def __init__(self, args: Namespace, work: Path) -> None:
        self.args, self.work = args, work
        self.began = time.monotonic()
        deadline = self.began + 60 * args.minutes
        self.bench = Bench(work, args.threads, args.limit, deadline, keep=args.keep)
        told = self.bench.python("device")
        self.bench.gpu = told["device"] != "cpu"
        asked = {name: str(value) if isinstance(value, Path) else value for name, value in vars(args).items()}
        for private in ("out", "work", "report", "pairs_file", "vllm"):
            asked.pop(private)
        asked["cases"] = [cases.label(case) for case in args.cases]
        asked["model_shape"] = [Path(shape).name for shape in args.model_shape] if args.model_shape else None
        asked["pairs_from"] = args.pairs_file.name if args.pairs_file else None
        self.results: dict[str, Any] = {
            "machine": machine.describe(args.threads, told["device"]),
            "settings": asked,
            "failed": {},
            "cases": {},
        }

    def all(self) -> None:
        """Every section that was asked for. What is required of the cases comes first, repetitions of it last."""
        args, bench = self.args, self.bench
        first = cases.shape_of(args.cases[0])
        shape = self.folder(f"{first}/bf16-live")
        rounds = min(2, args.rounds)
        tiny = args.quick and not args.model_shape
        shapes = list(dict.fromkeys(cases.shape_of(case).removesuffix(cases.TEXTS) for case in args.cases))
        proof = ["tiny"] if tiny else shapes
        self.section("parity", lambda: parity.run(bench, args, self.work, proof))
        turn = 0
        if "offline" in args.sections:
            spent = {case: self.case(case, turn) for case in args.cases}
        self.section("online", lambda: online.run(bench, args, shape, first, rounds))
        self.section("sampling", lambda: self.sampling(shape, first))
        size, tokens = (4096, 256) if args.quick else (args.vocab or 49152, 2048)
        self.section("heads", lambda: heads.run(bench, rounds, size, tokens))
        # the machine's drift between two rounds is as large as the difference of these two
        often = rounds if args.quick else 2 * args.rounds
        self.section("epsilon", lambda: epsilon.run(bench, args, shape, first, often))
        self.section("profile", lambda: shares.run(bench, args, shape, first))
        self.section("scaling", self.scaling)
        counts = (0, 20) if args.quick else (0, 20, 100)
        self.section("commands", lambda: commands.run(self.work, 3 if args.quick else 5, counts))
        self.section("rows", lambda: rows.run(bench, args, self.work))
        if "offline" in args.sections:
            for turn in range(1, args.rounds):
                for case in args.cases:
                    if bench.over(spent[case]):
                        print(f"{case}: round {turn + 1} is left out, it would end after {args.minutes:g} minutes")
                    elif cases.label(case) not in self.results["failed"]:
                        spent[case] = max(spent[case], self.case(case, turn))
        self.results["minutes"] = (time.monotonic() - self.began) / 60

    def folder(self, case: str) -> Path:
        """Of the model and data of a case; shared with those of its shape that take as many steps."""
        shape = "-".join(Path(cases.shape_of(case)).parts).strip("-/")
        return self.work / f"model-{shape}-{cases.steps_of(self.args, case)}"

    def case(self, case: str, turn: int) -> float:
        """One more round of a case; seconds it took."""
        began = time.monotonic()
        print(f"{case}, round {turn + 1}", flush=True)
        self.guard(
            cases.label(case),
            lambda: cases.run_case(self.bench, self.args, case, self.folder(case), turn, self.results["cases"]),
        )
        return time.monotonic() - began

    def section(self, name: str, work: Callable[[], Any]) -> None:
        """A section, where it was asked for."""
        if name not in self.args.sections:
            return
        print(name, flush=True)
        began = time.monotonic()
        if (found := self.guard(name, work)) is not None:
            self.results[name] = found
        print(f"    {time.monotonic() - began:.0f} s", flush=True)

    def guard(self, name: str, work: Callable[[], Any]) -> Any:
        """What fails is reported at the end; the rest goes on. What was measured so far is on the disk."""
        try:
            return work()
        except (RuntimeError, OSError, KeyError) as error:
            self.results["failed"][name] = f"{type(error).__name__}: {error}".splitlines()[0]
            print(f"    FAILED: {error}", flush=True)
            return None
        finally:
            write_results(self.results, self.work)

    def sampling(self, folder: Path, shape: str) -> dict[str, Any]:
        """See sampling.py."""
        args = self.args
        cases.made(self.bench, args, f"{shape}/bf16-live", folder)
        found = self.bench.python(
            "sampling",
            *("--model", str(folder / "model"), "--pairs", str(folder / "pairs.jsonl")),
            *("--prompts", str(args.prompts), "--completions", "4", "--new-tokens", str(args.new_tokens)),
            *("--turns", "2"),
        )
        return {name: found[name] for name in ("tokens_per_second", "rows")}

    def scaling(self) -> list[dict[str, Any]]:
        """See scaling.py; always of a shape by name."""
        args = self.args
        shapes = [cases.shape_of(case).removesuffix(cases.TEXTS) for case in args.cases]
        named = [shape for shape in shapes if not Path(shape).exists()]
        told = ["--shape", "tiny" if args.quick or not named else named[0]]
        told += ["--engine", args.engine] if args.engine else []
        told += ["--vocab", str(args.vocab)] if args.vocab else []
        told += ["--small"] if args.quick else []
        points: list[dict[str, Any]] = self.bench.python("scaling", *told)["points"]
        return points
