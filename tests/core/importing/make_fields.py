"""Makes tests/core/importing/*.fields.json: every field of a tool's config classes, read from its source.

No test runs this, and the tools are not installed for it; their wheels are unpacked, and the files are kept:

    pip download --no-deps llamafactory==0.9.5 transformers==5.6.0 -d wheels    # unpacked into one folder
    python tests/core/importing/make_fields.py llamafactory FOLDER > tests/core/importing/llamafactory-0.9.5.fields.json
    pip download --no-deps axolotl==0.19.0 -d wheels
    python tests/core/importing/make_fields.py axolotl FOLDER > tests/core/importing/axolotl-0.19.0.fields.json
"""

from __future__ import annotations

import ast
import json
import sys
from dataclasses import dataclass, field
from pathlib import Path

CALLS = ("field", "Field")


@dataclass(frozen=True)
class Tool:
    """Where a tool keeps its config classes.

    Args:
        version: What the fields are of.
        files: Patterns below the folder.
        top: Classes whose fields are keys of a config, those of their bases among them.
        below: Key -> classes whose fields are keys below it.
    """

    version: str
    files: list[str]
    top: list[str]
    below: dict[str, list[str]] = field(default_factory=dict)


DATASETS = ["SFTDataset", "DPODataset", "KTODataset", "SyntheticDataset"]
TOOLS = {
    "llamafactory": Tool(
        version="LLaMA-Factory 0.9.5 with transformers 5.6.0",
        files=[
            "transformers/training_args.py",
            "transformers/training_args_seq2seq.py",
            "llamafactory/hparams/*_args.py",
        ],
        top=["ModelArguments", "DataArguments", "TrainingArguments", "FinetuningArguments", "GeneratingArguments"],
    ),
    "axolotl": Tool(
        version="Axolotl 0.19.0",
        files=["axolotl/utils/schemas/*.py"],
        top=["AxolotlConfigWCapabilities"],
        below={
            "datasets": DATASETS,
            "test_datasets": DATASETS,
            "datasets.type": ["UserDefinedDPOType", "UserDefinedKTOType"],
            "special_tokens": ["SpecialTokensConfig"],
            "trl": ["TRLConfig"],
        },
    ),
}
RENAMED = {"BaseTrainingArguments": "Seq2SeqTrainingArguments"}
"""A name that LLaMA-Factory gives to a class of transformers."""

Fields = dict[str, list[str]]
Classes = dict[str, list[tuple[list[str], Fields]]]


def classes_of(files: list[Path]) -> Classes:
    """Every class by name, with its bases and its fields; of two with one name, the later one stands first."""
    found: Classes = {}
    for file in files:
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef):
                own = {
                    line.target.id: [ast.unparse(line.annotation), default_of(line.value)]
                    for line in node.body
                    if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name)
                }
                found.setdefault(node.name, []).insert(0, ([ast.unparse(base) for base in node.bases], own))
    return found


def default_of(value: ast.expr | None) -> str:
    """The default as it stands in the source; `required` where there is none."""
    if value is None:
        return "required"
    if not isinstance(value, ast.Call) or ast.unparse(value.func).rpartition(".")[2] not in CALLS:
        return ast.unparse(value)
    given = {keyword.arg: keyword.value for keyword in value.keywords}
    for part in (*value.args[:1], given.get("default")):
        if part is not None:
            return ast.unparse(part)
    return f"{ast.unparse(given['default_factory'])}()" if "default_factory" in given else "required"


def fields_of(name: str, classes: Classes, inside: bool = False) -> Fields:
    """The fields of a class and of its bases; `inside` a base, a name that two classes have is that of the first."""
    found: Fields = {}
    bases, own = classes[name][-1 if inside else 0]
    for base in (RENAMED.get(one, one) for one in bases):
        if base in classes:
            found |= fields_of(base, classes, inside=True)
    return {**found, **own}


if __name__ == "__main__":
    tool = TOOLS[sys.argv[1]]
    known = classes_of([file for pattern in tool.files for file in sorted(Path(sys.argv[2]).glob(pattern))])
    keys: Fields = {}
    for name in tool.top:
        keys |= fields_of(name, known)
    for key, names in tool.below.items():
        for name in names:
            keys |= {f"{key}.{one}": said for one, said in fields_of(name, known).items()}
    lines = ",\n".join(f"    {json.dumps(key)}: {json.dumps(said)}" for key, said in sorted(keys.items()))
    print(f'{{\n  "of": {json.dumps(tool.version)},\n  "fields": {{\n{lines}\n  }}\n}}')
