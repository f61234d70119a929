"""Makes the demonstration's preference set: sample, score, pair, split.

    python -m nashtune.demo.make_preferences --out DIR

Every prompt of `prompts.txt` gets a few completions from the model (`PolicySampler`); those that finished within the
limit are scored for sentiment (`VaderOracle`), and the best and the worst form a pair (`best_worst`). So the preference
that a model learns from the set is "say it more positively", which anyone can see in a sample. Same arguments on the
same machine give the same files.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
from collections.abc import Iterator, Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse.typing import ClosedUnitInterval, NonNegativeFloat, PositiveInt

from nashtune.errors import InputError
from nashtune.files import write_bytes_atomically
from nashtune.pairing.scores import best_worst

if TYPE_CHECKING:
    from nashtune.interfaces.oracle import RewardOracle
    from nashtune.interfaces.sampler import Sampler

SPLITS = ("train", "validation")
CHUNK = 8  # prompts per call of the sampler: the unit of progress
LEAST_WORDS = 3
# Beginnings of words that a small model says unasked now and then and that a shipped set need not repeat.
UNWANTED = re.compile(
    r"\b(abort|assault|election|extremis|fuck|gay|jew|kill|murder|muslim|nazi|nigg|pervert|porn|racis|rape|sex|shit|slave"
    r"|suicid|terroris)",
    re.IGNORECASE,
)


def read_prompts(text: str) -> list[str]:
    """The prompts, one a line; empty lines do not count.

    Raises:
        InputError: a prompt stands twice, so that it could land in both splits.
    """
    seen: dict[str, int] = {}
    for number, line in enumerate(text.splitlines(), 1):
        prompt = line.strip()
        if prompt in seen:
            raise InputError(f"prompts, line {number}: {prompt!r} stands in line {seen[prompt]} already; remove one")
        if prompt:
            seen[prompt] = number
    return list(seen)


def draw(
    sampler: Sampler, tokenizer: Any, prompts: Sequence[str], samples: int, seed: int
) -> Iterator[dict[int, list[str]]]:
    """Finished completions of the prompts, chunk by chunk: prompt number -> texts of one line, without EOS.

    A completion that was cut at the token limit is left out, and so is one that `is_sentence` refuses.
    """
    ids = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}], add_generation_prompt=True, return_dict=False
        )
        for prompt in prompts
    ]
    order = sorted(range(len(prompts)), key=lambda i: len(ids[i]))  # little padding within a chunk
    for start in range(0, len(order), CHUNK):
        chunk = order[start : start + CHUNK]
        texts: dict[int, list[str]] = {i: [] for i in chunk}
        for drawn in sampler.sample([ids[i] for i in chunk], samples, seed=seed, indices=chunk):
            text = tokenizer.decode(drawn.token_ids, skip_special_tokens=True).strip()
            if drawn.finish == "stop" and is_sentence(text):
                texts[chunk[drawn.prompt]].append(text)
        yield texts


def is_sentence(text: str) -> bool:
    """Whether a completion may enter the set: one line (prompts ask for a sentence), a few words, none unwanted."""
    return "\n" not in text and len(text.split()) >= LEAST_WORDS and UNWANTED.search(text) is None


def make_rows(
    prompts: Sequence[str], texts: dict[int, list[str]], oracle: RewardOracle, min_gap: float
) -> list[dict[str, Any]]:
    """Preference rows in the order of the prompts; a prompt without two completions `min_gap` apart gives none."""
    rows = []
    for i, prompt in enumerate(prompts):
        options = texts[i]
        scores = oracle.score([prompt] * len(options), options).mean.tolist()
        for chosen, rejected in best_worst(scores, min_gap):
            rows.append(
                {
                    "prompt": prompt,
                    "chosen": options[chosen],
                    "rejected": options[rejected],
                    "chosen_score": scores[chosen],
                    "rejected_score": scores[rejected],
                    "source": "demo",
                }
            )
    return rows


def split(rows: Sequence[dict[str, Any]], validation_share: float) -> dict[str, list[dict[str, Any]]]:
    """Rows by split, no prompt in both; the order is that of the prompts' hashes, so it mixes the prompts' themes."""
    key = {prompt: hashlib.sha256(prompt.encode()).hexdigest() for prompt in {row["prompt"] for row in rows}}
    mixed = sorted(key, key=key.__getitem__)
    held_out = set(mixed[: round(validation_share * len(mixed))])
    ordered = sorted(rows, key=lambda row: key[row["prompt"]])
    return {
        "train": [row for row in ordered if row["prompt"] not in held_out],
        "validation": [row for row in ordered if row["prompt"] in held_out],
    }


def write(splits: dict[str, list[dict[str, Any]]], out: Path) -> None:
    """`demo-train.jsonl` and `demo-validation.jsonl` in `out`, each complete or not there."""
    for name, rows in splits.items():
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        write_bytes_atomically(out / f"demo-{name}.jsonl", text.encode())


def run(args: argparse.Namespace) -> dict[str, float]:
    """Makes the set and returns its numbers.

    Raises:
        InputError: the folder holds a set already, the model is not there, or no pair came out.
    """
    out = Path(args.out)
    for name in SPLITS:
        if (out / f"demo-{name}.jsonl").exists():
            raise InputError(f"--out: {out / f'demo-{name}.jsonl'} exists and is not overwritten; name another folder")
    out.mkdir(parents=True, exist_ok=True)
    source = Path(args.prompts) if args.prompts else files("nashtune.demo").joinpath("prompts.txt")
    prompts = read_prompts(source.read_text(encoding="utf-8"))[: args.limit]
    folder = _model_folder(args.model)

    from nashtune.interfaces import Surroundings
    from nashtune.models.policy import HFPolicy, PolicyConfig
    from nashtune.oracles.vader import VaderOracle
    from nashtune.samplers.policy import PolicySampler

    oracle = VaderOracle()
    oracle.score([""], [""])  # a missing package shows before the sampling, not after
    policy = HFPolicy(PolicyConfig(path=str(folder)))
    policy.load()
    tokenizer = policy.tokenizer()
    sampler = PolicySampler(max_new_tokens=args.max_new_tokens, temperature=args.temperature)
    sampler.attach(Surroundings(policy=policy, tokenizer=tokenizer))

    texts: dict[int, list[str]] = {}
    chunks = draw(sampler, tokenizer, prompts, args.samples, args.seed)
    for chunk in _with_progress(chunks, -(-len(prompts) // CHUNK)):
        texts.update(chunk)
    rows = make_rows(prompts, texts, oracle, args.min_gap)
    if not rows:
        raise InputError(
            f"no pair came out of {len(prompts)} prompts: too few completions finished within --max-new-tokens "
            f"{args.max_new_tokens}, or none differ by --min-gap {args.min_gap}"
        )
    splits = split(rows, args.validation_share)
    write(splits, out)
    finished = sum(map(len, texts.values()))
    return {
        "prompts": len(prompts),
        "completions": len(prompts) * args.samples,
        "kept_completions": finished,
        "kept_share": finished / (len(prompts) * args.samples),
        "pairs_train": len(splits["train"]),
        "pairs_validation": len(splits["validation"]),
        "mean_chosen_score": sum(row["chosen_score"] for row in rows) / len(rows),
        "mean_rejected_score": sum(row["rejected_score"] for row in rows) / len(rows),
        "mean_gap": sum(row["chosen_score"] - row["rejected_score"] for row in rows) / len(rows),
    }


def _with_progress(chunks: Iterator[dict[int, list[str]]], total: int) -> Iterator[dict[int, list[str]]]:
    """A bar on a terminal; in a log file, where a bar would show nothing until the end, a line per chunk."""
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    if console.is_terminal:
        yield from track(chunks, description="sampling", total=total, console=console)
        return
    for done, chunk in enumerate(chunks, 1):
        print(f"sampled {done} of {total} groups of prompts", file=sys.stderr, flush=True)
        yield chunk


def _model_folder(model: str) -> Path:
    if model == "demo:smollm2":
        from nashtune.demo.model import smollm2_folder

        return smollm2_folder()
    if not (Path(model) / "config.json").is_file():
        raise InputError(f"--model: {model} is neither demo:smollm2 nor a folder with a config.json")
    return Path(model)


def build_parser() -> argparse.ArgumentParser:
    """The script's options; their defaults made the shipped set."""
    parser = argparse.ArgumentParser(
        prog="python -m nashtune.demo.make_preferences",
        description="Make a sentiment preference set.",
        allow_abbrev=False,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--out", required=True, help="folder for demo-train.jsonl and demo-validation.jsonl")
    parser.add_argument("--model", default="demo:smollm2", help="demo:smollm2 or a model folder")
    parser.add_argument("--prompts", help="file of prompts, one a line, instead of the built-in ones")
    parser.add_argument("--limit", type=PositiveInt, help="use only the first N prompts")
    parser.add_argument("--samples", type=PositiveInt, default=6, help="completions per prompt")
    parser.add_argument("--temperature", type=NonNegativeFloat, default=0.7, help="of sampling")
    parser.add_argument("--max-new-tokens", type=PositiveInt, default=40, help="longer completions are left out")
    parser.add_argument("--min-gap", type=NonNegativeFloat, default=0.3, help="least difference of a pair's scores")
    parser.add_argument("--validation-share", type=ClosedUnitInterval, default=0.2, help="share of held-out prompts")
    parser.add_argument("--seed", type=int, default=0, help="of sampling")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the script; 0 done, 2 the input was wrong."""
    try:
        numbers = run(build_parser().parse_args(argv))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(json.dumps(numbers, indent=2))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
