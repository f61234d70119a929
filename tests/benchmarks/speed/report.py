"""docs/results/speed.md, from the results alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from speed import gpu
from speed.cases import TOLERANCES, TRL
from speed.probe import dropped
from speed.targets import targets

NOTES = Path(__file__).with_name("notes.md")


def table(head: Iterable[str], body: Iterable[Iterable[str]]) -> Iterator[str]:
    """Lines of a Markdown table."""
    names = list(head)
    yield "| " + " | ".join(names) + " |"
    yield "|" + "---|" * len(names)
    for row in body:
        yield "| " + " | ".join(row) + " |"
    yield ""


def spread(figure: dict[str, float], digits: int) -> str:
    """Median and range."""
    shown = [f"{figure[name]:,.{digits}f}" for name in ("median", "min", "max")]
    return shown[0] if shown[1] == shown[2] else f"{shown[0]} ({shown[1]} to {shown[2]})"


def within(figures: dict[str, dict[str, float]]) -> str:
    """Shortest and longest timed step of a process; medians over processes."""
    return f"{figures['step_least']['median']:.2f} to {figures['step_most']['median']:.2f}"


def ratios(results: dict[str, Any]) -> str:
    """The ratios of every case, as one table; empty without cases."""
    names = {"tokens_per_second": "real tokens/s", "step_seconds": "step time", "peak_mb": "peak memory"}
    names |= {"start_to_first_step": "start-up", "whole_seconds": "whole process"}
    body = [
        [f"{case}, {peer}", *(f"{figures[name]['of_medians']:.2f}" for name in names)]
        for case, entry in results["cases"].items()
        for peer, figures in entry["summary"]["ratios"].items()
    ]
    return "\n".join(table(("nashtune over", *names.values()), body)).rstrip() if body else ""


def requirements(results: dict[str, Any]) -> str:
    """The table of requirements; empty where nothing is required."""
    rows = (
        (one.what, f"{one.value:.3g}", f"{'≥' if one.least else '≤'} {one.limit:g}", one.verdict)
        for one in targets(results)
    )
    lines = list(table(("requirement", "measured", "target", ""), rows))
    return "\n".join(lines).rstrip() if len(lines) > 3 else ""


def write(results: dict[str, Any], file: Path) -> None:
    """Write the page."""
    parts = [
        _head,
        _targets,
        _proof,
        _cases,
        _gpu,
        _online,
        _sampling,
        _heads,
        _epsilon,
        _profile,
        _scaling,
        _rows,
        _commands,
    ]
    lines = [line for part in [*parts, _notes] for line in part(results)]
    file.write_text("\n".join(line.rstrip() for line in lines).rstrip() + "\n")


def _head(results: dict[str, Any]) -> Iterator[str]:
    machine, asked = results["machine"], results["settings"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    on = f"{machine['cores']} CPU cores ({machine['processor']}), {machine['memory_gib']:.0f} GiB"
    on += f", {machine['device']}" if machine["device"] != "cpu" else ", no GPU"
    on += f"; bf16 in hardware: {', '.join(machine['bf16'])}" if machine["bf16"] else "; no bf16 in hardware"
    yield "# Speed and memory"
    yield ""
    yield "Written by `make bench` from `speed.json` beside this page; change neither by hand."
    if asked["quick"]:
        yield ""
        yield "**A quick pass (`--quick`) on small data: it shows that everything runs; its figures mean little.**"
    yield ""
    yield f"{machine['date']}, {on}, {machine['threads']} threads for each process, load average before the start "
    yield f"{machine['load_before']:.2f}; Python {machine['python']}, {versions}."
    yield ""
    source = "random tokens, prompts and answers of log-normal lengths (medians "
    source += f"{asked['prompt_median']} and {asked['answer_median']})"
    yield f"Data: {source}. A case `+texts` takes pairs of texts from a file instead "
    yield f"(here `{asked['pairs_from']}`)." if asked["pairs_from"] else "(none was given)."
    yield "The AlpacaEval pairs are not shipped, because of their licence (CC BY-NC 4.0): "
    yield "`NASHTUNE_BENCH_PAIRS=FILE make bench`, or `--pairs-file FILE`, adds that case."
    yield f"Each process trains steps of {asked['batch']} pairs; how many is chosen by what a step costs and said "
    yield "with each case. AdamW, clipping at 1, constant learning rate, the same pairs in the same order on both "
    yield "sides. One measured process at a time; the peers take turns and change places from round to round. "
    yield "*Real tokens* are those of a prompt with its chosen and with its rejected answer (2P + C + R for a pair), "
    yield "whether or not an engine computes the prompt twice; padding does not count. The first step is "
    yield "left out of speeds, of processes with 6 steps or more the first two. Peak memory "
    yield "is the kernel's count for the whole process (loading, training, saving). Start-up is from the start of the "
    yield "process to the start of the first step, with empty caches; with a cached reference its one pass is in it. "
    yield "Figures are medians (least to greatest); ratios are ratios of medians."
    yield ""


def _targets(results: dict[str, Any]) -> Iterator[str]:
    yield "![Ratios to TRL, and how costs grow](speed.png)"
    yield ""
    if shown := requirements(results):
        yield "## Requirements"
        yield ""
        yield shown
        yield ""
    for name, why in results["failed"].items():
        yield f"**{name} failed:** {why}"
        yield ""


def _proof(results: dict[str, Any]) -> Iterator[str]:
    if not (proof := results.get("parity")):
        return
    yield "## The same mathematics"
    yield ""
    yield "Float32, live reference, no clipping; gradients are those of the first step. Every case is held to it too: "
    yield "it fails where the peers' losses of a step differ by more than "
    limits = " or ".join(f"{limit:g} ({name})" for name, limit in TOLERANCES.items())
    yield f"{limits}, relative to the loss where that is above 1."
    yield ""
    for shape, found in proof["shapes"].items():
        agree = "agree" if found["agree"] else "do **not** agree"
        yield f"{shape}, {found['pairs']} pairs, learning rate {found['lr']:g}: losses and gradients {agree}. The "
        yield f"largest difference of a loss is {found['loss_difference']:.1e}; of a weight's gradient, relative to "
        yield "its norm, " + ", ".join(f"{value:.1e} (`{name}`)" for name, value in found["gradients"].items()) + "."
        yield ""
        steps = range(len(next(iter(found["losses"].values()))))
        body = ([name, *(f"{loss:.6f}" for loss in losses)] for name, losses in found["losses"].items())
        yield from table(("", *(f"loss of step {i + 1}" for i in steps)), body)


def _cases(results: dict[str, Any]) -> Iterator[str]:
    if not results["cases"]:
        return
    yield "## Training on pairs: `nashtune fit` against a TRL script"
    yield ""
    yield "`live`: the reference is in the loop; TRL as it comes, with gradient checkpointing. `cached`: its log-probs "
    yield "are computed once before the first step, and gradient checkpointing is off on both sides. On a CPU, TRL "
    yield "scores the positions of prompts and padding too; *masked positions skipped* forces on what it does on a GPU."
    yield "*Products by oneDNN*: in float32 on AMD's processors with AVX-512, `fit` has matrix products computed by "
    yield "oneDNN instead of MKL (docs/engines.md); there TRL gets the same, which it does not do by itself."
    yield "*Steps of one process*: its shortest and longest timed step; batches differ in length, so steps do too."
    yield ""
    yield ratios(results)
    yield ""
    for case, entry in results["cases"].items():
        model, summary = entry["model"], entry["summary"]
        yield f"### {case}"
        yield ""
        yield f"{model['architecture']}, {model['parameters'] / 1e6:.1f} M weights ({model['weights']}), vocabulary "
        yield f"{model['vocab']:,}; rounds: {len(entry['rounds'])}; steps of a process: {entry['steps']}, of which "
        yield f"{entry['steps'] - dropped(entry['steps'])} are timed. Largest difference of a loss between the peers: "
        yield f"{entry['loss_difference']:.1e} (tolerance {entry['tolerance']:g})."
        yield ""
        names = {"tokens_per_second": 0, "tokens_per_cpu_second": 0, "step_seconds": 2, "peak_mb": 0}
        names |= {"start_to_first_step": 1, "whole_seconds": 1}
        head = ("", "real tokens/s", "tokens per CPU s", "step, s", "peak MB", "start-up, s", "whole process, s")
        body = [
            [name, *(spread(figures[figure], digits) for figure, digits in names.items()), within(figures)]
            for name, figures in summary["peers"].items()
        ]
        for name, figures in summary["ratios"].items():
            of = [f"{figures[f]['of_medians']:.2f}" if f in figures else "" for f in names]
            body.append([f"nashtune / {name}", *of, ""])
        yield from table((*head, "steps of one process, s"), body)


def _gpu(results: dict[str, Any]) -> Iterator[str]:
    device = results["machine"]["device"]
    if device == "cpu" or not results["cases"]:
        return
    yield "## On the GPU"
    yield ""
    yield "Model FLOPs utilisation counts 6 FLOPs for each weight and real token, 2 more with a live reference. Idle "
    yield "share and waits are of two traced steps at the end of a process."
    yield ""
    most = gpu.peak(device, results["settings"]["peak_tflops"])
    body = []
    for case, entry in results["cases"].items():
        each = gpu.flops_per_token(entry["model"], live_reference="live" in case)
        for name, figures in entry["summary"]["peers"].items():
            traces = [one[name].get("trace", {}) for one in entry["rounds"]]
            used = f"{figures['tokens_per_second']['median'] * each / most:.1%}" if most else "unknown peak"
            last = traces[-1]
            row = [f"{case}, {name}", used, *(spread(figures[f], 0) for f in ("allocated_mb", "reserved_mb"))]
            body.append([*row, f"{last['idle_share']:.1%}" if last else "", f"{last['waits']:.1f}" if last else ""])
    yield from table(("", "MFU", "allocated MB", "reserved MB", "no kernel runs", "waits a step"), body)


def _online(results: dict[str, Any]) -> Iterator[str]:
    if not (found := results.get("online")):
        return
    yield "## One online round"
    yield ""
    yield f"{found['model']['parameters'] / 1e6:.1f} M weights, float32: {found['prompts']} prompts, 2 completions "
    yield f"each of at most {found['limit']} tokens, a rule as judge, reference log-probs, one pass of training. TRL's "
    yield "experimental OnlineDPOTrainer without gradient checkpointing. TRL draws anew for each optimiser step, from "
    yield "the policy as it is then; nashtune draws the whole round from one snapshot of the policy and then trains on "
    yield f"it, so that it draws larger batches. Drawn: {found['drawn'][TRL]} of at most "
    yield f"{found['drawn']['most']} tokens; trained on: "
    yield ", ".join(f"{name} {tokens}" for name, tokens in found["trained_tokens"].items()) + " real tokens."
    yield ""
    digits = {"round_seconds": 1, "peak_mb": 0, "wall": 1, "cpu_seconds": 1}
    body = (
        [
            name,
            *(spread(figures[f], d) for f, d in digits.items()),
            f"{found['ratios'][name]:.2f}" if name in found["ratios"] else "1",
        ]
        for name, figures in found["peers"].items()
    )
    head = ("", "round, s", "peak MB", "whole process, s", "its CPU s, with a server's", "times TRL's speed")
    yield from table(head, body)
    for name, parts in found["parts"].items():
        yield f"Where the round of {name} goes, in seconds, from the start of training to the end of the last step:"
        yield ""
        body = ([part, f"{spent['wall']:.2f}", f"{spent['cpu']:.2f}"] for part, spent in parts.items())
        yield from table(("part", "wall", "CPU"), body)


def _sampling(results: dict[str, Any]) -> Iterator[str]:
    if not (found := results.get("sampling")):
        return
    yield "## Drawing completions"
    yield ""
    yield f"{found['rows']} rows, 4 of each prompt, float32, temperature 1, tokens drawn a second, by turns:"
    yield ""
    body = ([f"`{name}`", *(f"{value:.0f}" for value in values)] for name, values in found["tokens_per_second"].items())
    count = len(next(iter(found["tokens_per_second"].values())))
    yield from table(("", *(f"turn {i + 1}" for i in range(count))), body)


def _heads(results: dict[str, Any]) -> Iterator[str]:
    if not (found := results.get("heads")):
        return
    yield "## The LM head alone"
    yield ""
    yield f"{found['tokens']:,} completion tokens, hidden size {found['hidden']}, vocabulary {found['vocab']:,}, "
    yield "forward and backward with all gradients, from hidden states that are given; `dense` makes the full logits. "
    yield "Memory is the peak above what was there, without the gradients of weight and hidden states that both "
    yield "return, and with them."
    yield ""
    names = (("wall", 2), ("cpu", 2), ("memory", 0), ("with_gradients", 0))
    body = []
    for dtype in ("fp32", "bf16"):
        for engine, figures in found[dtype]["engines"].items():
            body.append([f"{dtype}, `{engine}`", *(spread(figures[f], d) for f, d in names)])
        of = found[dtype]["ratios"]
        body.append([f"{dtype}, ratio", *(f"{of[f]:.2f}" for f, _ in names)])
    yield from table(("", "wall s", "CPU s", "memory, MB", "with gradients, MB"), body)


def _epsilon(results: dict[str, Any]) -> Iterator[str]:
    if not (found := results.get("epsilon")):
        return
    yield "## ε-DPO against DPO"
    yield ""
    yield "`nashtune fit`, bf16 autocast, live reference."
    yield ""
    body = [
        [f"`{name}`", *(spread(figures[f], d) for f, d in (("step_seconds", 2), ("peak_mb", 0)))]
        for name, figures in found["peers"].items()
    ]
    body.append(["ratio", *(f"{found['ratios'][name]:.2f}" for name in ("step_seconds", "peak_mb"))])
    yield from table(("", "step, s", "peak MB"), body)


def _profile(results: dict[str, Any]) -> Iterator[str]:
    if not (found := results.get("profile")):
        return
    yield "## Where the time of a step goes"
    yield ""
    yield "`nashtune fit`, the last step of a process under torch's profiler, which makes it slower: share of each "
    yield "part in the wall time of that step, forward and backward together."
    yield ""
    body = (
        [part, *(f"{one['shares'][part]:.1%}" for one in found)]
        for part in sorted(found[0]["shares"], key=lambda part: -found[0]["shares"][part])
    )
    yield from table(("part of the step", *(f"{one['case']}, {one['seconds']:.2f} s" for one in found)), body)


def _scaling(results: dict[str, Any]) -> Iterator[str]:
    if not (points := results.get("scaling")):
        return
    yield "## How the cost of a pass grows"
    yield ""
    yield "Forward and backward of the log-probs of one batch, bf16 autocast, by engine: `dense` is padded and makes "
    yield "full logits, the other is what a run uses. Where nothing else is said: 4 pairs, prompts of 128 tokens, "
    yield "answers of 64."
    yield ""
    engines = list(dict.fromkeys(point["engine"] for point in points))
    head = ["", *(f"`{engine}`, {what}" for what in ("CPU s", "MB") for engine in engines)]
    for axis in dict.fromkeys(point["axis"] for point in points):
        of = [point for point in points if point["axis"] == axis]
        body = []
        for value in dict.fromkeys(point["value"] for point in of):
            by = {point["engine"]: point for point in of if point["value"] == value}
            row = [f"{value:,}", *(f"{by[engine]['cpu']:.2f}" for engine in engines)]
            body.append([*row, *(f"{by[engine]['memory']:.0f}" for engine in engines)])
        yield from table([axis, *head[1:]], body)


def _rows(results: dict[str, Any]) -> Iterator[str]:
    if not (found := results.get("rows")):
        return
    yield "## How start-up grows with the data"
    yield ""
    yield "`nashtune fit`, a tiny model, rows of about 22 tokens: seconds from the start of the process to its "
    yield "first step, and peak memory. The second start reads the rows that the first one kept. TRL keeps nothing "
    yield "between the processes here."
    yield ""
    columns = ("first", "second", "TRL")
    body = []
    for one in found:
        row = [f"{one['rows']:,}", f"{one['file_mb']:.0f}"]
        row += [f"{one[name]['start']:.1f}" if name in one else "" for name in columns]
        body.append([*row, *(f"{one[name]['peak_mb']:.0f}" if name in one else "" for name in columns)])
    head = [f"{name} start, s" if name != "TRL" else "TRL, s" for name in columns]
    yield from table(("rows", "file, MB", *head, *(f"{name}, peak MB" for name in columns)), body)


def _commands(results: dict[str, Any]) -> Iterator[str]:
    if not (found := results.get("commands")):
        return
    yield "## Quick commands"
    yield ""
    yield "Median seconds of a fresh process, by the number of further plugins, each with a component and a spec."
    yield ""
    counts = list(dict.fromkeys(one["plugins"] for one in found))
    body = (
        [f"`{name}`", *(f"{one['median']:.2f}" for one in found if one["command"] == name)]
        for name in dict.fromkeys(one["command"] for one in found)
    )
    yield from table(("", *(f"{count} plugins" for count in counts)), body)


def _notes(results: dict[str, Any]) -> Iterator[str]:
    if NOTES.exists() and not results["settings"]["quick"]:
        yield NOTES.read_text()
