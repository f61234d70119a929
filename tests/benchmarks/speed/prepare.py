"""A process that makes a model folder and data beside it; the benchmark itself never imports torch.

What a process is started from counts in its peak memory, so what starts it stays small.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any


def prepare(given: dict[str, Any]) -> dict[str, Any]:
    """Make them; returns what they are."""
    from speed.data import draw_pairs, file_pairs, order, write_rows
    from speed.models import make_model

    folder, file = Path(given["folder"]), given.get("pairs_file")
    what = make_model(
        given["shape"], folder / "model", vocab=given["vocab"], own_tokenizer=bool(file), seed=given["seed"]
    )
    config = json.loads((folder / "model" / "config.json").read_text())
    longest = int(config.get("max_position_embeddings", 8192))
    if file:
        rows = file_pairs(Path(file), folder / "model", given["pairs"], given["seed"], longest)
    else:
        rows = draw_pairs(
            given["pairs"],
            prompt=given["prompt"],
            answer=given["answer"],
            vocab=int(config["vocab_size"]),
            seed=given["seed"],
        )
    write_rows(rows, folder / "pairs.jsonl")
    (folder / "order.json").write_text(json.dumps(order(len(rows), given["batch"], given["seed"])))
    return {
        "weights": what,
        "architecture": config["architectures"][0] if config.get("architectures") else config["model_type"],
        "vocab": int(config["vocab_size"]),
        "hidden": int(config["hidden_size"]),
        "tied": bool(config.get("tie_word_embeddings", False)),
        **_parameters(folder / "model"),
        "longest": longest,
    }


def _parameters(folder: Path) -> dict[str, int]:
    """Numbers in the weight files."""
    from safetensors import safe_open

    total = embedding = 0
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, "pt") as weights:
            for name in weights.keys():
                shape = weights.get_slice(name).get_shape()
                numbers = 1
                for side in shape:
                    numbers *= side
                total += numbers
                embedding += numbers if name.endswith("embed_tokens.weight") else 0
    return {"parameters": total, "embedding": embedding}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("given")
    parser.add_argument("result", type=Path)
    args = parser.parse_args()
    args.result.write_text(json.dumps(prepare(json.loads(args.given))))
