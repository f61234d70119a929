"""What can be asked of the benchmark on its command line."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from speed.cases import TEXTS

ROOT = Path(__file__).resolve().parents[3]
SECTIONS = ("parity", "offline", "online", "sampling", "heads", "epsilon", "profile", "scaling", "rows", "commands")
MODES = ("bf16-live", "bf16-cached", "fp32-cached", "fp32-live", "bf16-live-plain")
DEFAULT_CASES = ("llama30m/bf16-live", "llama30m/bf16-cached", "llama30m/fp32-cached")
DEFAULT_CASES += ("smollm135m/bf16-live", "smollm135m/bf16-cached")
TEXT_CASE = f"smollm135m{TEXTS}/bf16-live"
"""One case more where there is a file of pairs: the demo model, its own tokenizer, the file's texts."""
PAIRS_FILE = "NASHTUNE_BENCH_PAIRS"

HELP = f"""Time and memory of `nashtune fit` beside TRL 1.16 on the same model, data, order and mathematics.

Every measurement is a process of its own; the peers take turns within a round and change places from round to round.
`make bench` makes the environment (.venv-bench) and runs this with BENCH_ARGS.

A case is SHAPE/MODE. Shapes: see models.py, or the folder of a model (its weights are used), or a config.json (random
weights of that shape). Modes: {", ".join(MODES)}; `cached` and `plain` turn TRL's gradient checkpointing off, which is
on by default. A shape that ends with {TEXTS} has its own tokenizer and takes the pairs of a file; with a file,
{TEXT_CASE} is one of the cases that run without --only. Sections: {", ".join(SECTIONS)}."""


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line, with what `--quick` changes filled in."""
    cores = len(os.sched_getaffinity(0))
    parser = argparse.ArgumentParser(description=HELP, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--quick", action="store_true", help="few small processes, to see that everything runs: about 5 minutes")
    add(
        "--only",
        nargs="+",
        action="extend",
        metavar="WHAT",
        help="sections, cases (SHAPE/MODE), or parts of a case's name",
    )
    add("--model-shape", nargs="+", metavar="SHAPE", help="run every mode of --modes on these shapes")
    add("--modes", nargs="+", default=["bf16-live", "bf16-cached", "fp32-cached"], choices=MODES)
    add("--vocab", type=int, help="vocabulary of the random shapes; the shape's own when absent")
    add("--prompt-median", type=int, help="median prompt, tokens (205)")
    add("--answer-median", type=int, help="median answer, tokens, its end included (105)")
    add("--pairs", type=int, help="pairs of each process, a multiple of --batch; when absent, by what a "
        "step costs: 6 steps, 3 or 4 of the large shape")  # fmt: skip
    add("--batch", type=int, help="pairs of an optimiser step (4)")
    add("--rounds", type=int, help="most rounds of every case (3)")
    add("--pairs-file", type=Path, help="JSONL (.gz) of {prompt, chosen, rejected}, for shapes that have a "
        f"tokenizer; of --model-shape too, where that is given ({PAIRS_FILE})")  # fmt: skip
    add("--engine", help="nashtune's engine; the product's default when absent")
    add("--seed", type=int, default=0)
    add("--threads", type=int, default=cores, help=f"of every process ({cores})")
    add("--minutes", type=float, help="no further round is begun that would end later than this (40)")
    add("--limit", type=float, default=1800.0, help="seconds that one process may take (1800)")
    add("--prompts", type=int, help="prompts of the online round (8)")
    add("--new-tokens", type=int, help="tokens of each completion of the online round (128)")
    add("--vllm", metavar="VLLM", help="program `vllm` of another environment: the online round is run with a server "
        "beside it, too, whose CPU seconds count; or the URL of a server with that model (see --keep)")  # fmt: skip
    add("--rows", type=int, nargs="+", help="sizes of the data sets of the section rows (1000 10000 100000 1000000)")
    add("--peak-tflops", type=float, help="of the GPU in bf16, where its name is not known here")
    add("--out", type=Path, default=ROOT / "docs" / "results", help="speed.md, speed.png and speed.json go here")
    add("--work", type=Path, help="folder for models, data, runs and logs; a temporary one when absent")
    add("--keep", action="store_true", help="do not remove models and runs of the work folder")
    add("--report", type=Path, nargs="+", metavar="JSON", help="measure nothing: write speed.md, .png and "
        ".json from these results, those of several runs as one")  # fmt: skip
    args = parser.parse_args(argv)
    usual = {"prompt_median": 205, "answer_median": 105, "batch": 4, "rounds": 3, "minutes": 40.0}
    usual |= {"prompts": 8, "new_tokens": 128, "rows": [1_000, 10_000, 100_000, 1_000_000]}
    quick = {"prompt_median": 40, "answer_median": 20, "batch": 2, "rounds": 1, "minutes": 5.0}
    quick |= {"prompts": 4, "new_tokens": 16, "rows": [1_000, 10_000]}
    for name, value in (quick if args.quick else usual).items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    if args.pairs is not None and (args.pairs % args.batch or args.pairs // args.batch < 2):
        parser.error(f"--pairs {args.pairs}: give a multiple of --batch {args.batch}, two steps at least")
    if args.pairs_file is None and os.environ.get(PAIRS_FILE):
        args.pairs_file = Path(os.environ[PAIRS_FILE])
    if args.pairs_file is not None and not args.pairs_file.is_file():
        parser.error(f"{args.pairs_file}: no such file; --pairs-file and {PAIRS_FILE} name one of pairs")
    args.cases, args.sections = _chosen(args, parser)
    return args


def _chosen(args: argparse.Namespace, parser: argparse.ArgumentParser) -> tuple[list[str], list[str]]:
    """Cases and sections to run."""
    if args.model_shape:
        shapes = [f"{shape}{TEXTS}" if args.pairs_file else shape for shape in args.model_shape]
        cases = [f"{shape}/{mode}" for shape in shapes for mode in args.modes]
    else:
        cases = [*(DEFAULT_CASES[:3] if args.quick else DEFAULT_CASES), *([TEXT_CASE] if args.pairs_file else [])]
    if not args.only:
        return cases, list(SECTIONS)
    sections = [one for one in args.only if one in SECTIONS]
    words = [one for one in args.only if one not in SECTIONS]
    known = list(dict.fromkeys([*cases, *DEFAULT_CASES]))
    found = [case for case in (cases if args.model_shape else known) if any(word in case for word in words)]
    found += [word for word in words if "/" in word and word.rpartition("/")[2] in MODES and word not in found]
    for word in words:
        if not any(word in case for case in found):
            parser.error(f"--only {word}: no section or case of that name; sections: {', '.join(SECTIONS)}")
    if not args.pairs_file and any(TEXTS in case for case in found):
        parser.error(f"--only: {TEXTS} needs a file of pairs; name it with --pairs-file or {PAIRS_FILE}")
    if found and "offline" not in sections:
        sections.append("offline")
    return found or cases, sections
