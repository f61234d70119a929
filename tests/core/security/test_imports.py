"""A file names a class: nothing is imported that is neither nashtune's nor an installed plugin's."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from jsonargparse import Namespace
from torch.distributed.algorithms.ddp_comm_hooks import default_hooks

from lab import Lab
from nashtune.cli.lightning import limit_imports
from nashtune.cli.main import main
from nashtune.cli.named import refuse_calls
from nashtune.errors import InputError
from nashtune.plugins.allowed import refuse_foreign
from nashtune.training.checkpoint import newest_checkpoint
from nashtune.trust import granted, grants, take_grants

SPEC = "loss: evil_parts.Bad\nkl: {name: fixed, beta: 0.1}\nreferences: {ref: base}\n"
HINT = "add `--allow-import evil_parts` to the command"


@pytest.mark.parametrize(
    "command",
    [
        "check bad.yaml",
        "check bad.yaml --build",
        "show bad.yaml",
        "diff dpo bad.yaml",
        "vectors bad.yaml --file cases.json",
        "verify bad.yaml",
        "controller bad.yaml",
        "fit --spec bad.yaml --config run.yaml",
        "fit --spec dpo --spec.loss evil_parts:Bad --config run.yaml",
        "fit --config whole.yaml",
        "run pipeline.yaml",
        "run staged.yaml",
    ],
)
def test_a_poisoned_spec_imports_nothing(lab: Lab, evil: str, mark, refused: Callable[..., str], command: str) -> None:
    (lab.folder / "bad.yaml").write_text(SPEC)
    (lab.folder / "cases.json").write_text('{"cases": []}')
    run = yaml.safe_load(lab.run_file.read_text())
    (lab.folder / "whole.yaml").write_text(yaml.safe_dump({**run, "spec": {"name": "x", **yaml.safe_load(SPEC)}}))
    (lab.folder / "pipeline.yaml").write_text(f"stages:\n  one: {{name: {evil}.Bad}}\n")
    (lab.folder / "staged.yaml").write_text("stages:\n  one: {name: fit, spec: ./bad.yaml}\n")
    assert HINT in refused(*command.split())
    assert not mark.made


def test_what_the_command_line_allows_is_imported(lab: Lab, evil: str, mark, monkeypatch: pytest.MonkeyPatch) -> None:
    (lab.folder / "bad.yaml").write_text(SPEC)
    assert main(["check", "bad.yaml", "--build", "--allow-import", evil]) == 0
    assert mark.made
    assert grants().imports == ()  # for that command alone


@pytest.mark.parametrize(
    "text", ["allow_import: [evil_parts]\n", "allow-import: evil_parts\n", "spec: {allow_import: x}\n"]
)
def test_no_file_can_allow_it(lab: Lab, refused: Callable[..., str], text: str) -> None:
    (lab.folder / "more.yaml").write_text(text)
    assert "is not a section of a" in refused("fit", "--spec", "dpo", "--config", "run.yaml", "--config", "more.yaml")


@pytest.mark.parametrize(
    ("trainer", "said"),
    [
        ({"callbacks": [{"class_path": "evil_parts.Tap"}]}, HINT),
        ({"logger": {"class_path": "evil_parts.Tap"}}, HINT),
        ({"strategy": {"class_path": "subprocess.Popen", "init_args": {"args": "true"}}}, "subprocess"),
        ({"profiler": {"class_path": "torch.hub.load"}}, "torch"),
    ],
)
def test_a_poisoned_run_file_names_its_line(
    lab: Lab, evil: str, mark, refused: Callable[..., str], trainer: dict[str, object], said: str
) -> None:
    (lab.folder / "more.yaml").write_text(yaml.safe_dump({"trainer": trainer}))
    for command in ("fit", "check"):
        message = refused(command, "--spec", "dpo", "--config", "run.yaml", "--config", "more.yaml")
        assert said in message and "more.yaml:" in message
    assert not mark.made


CALLS = "lightning.pytorch.callbacks.LambdaCallback"


@pytest.mark.parametrize(
    ("callback", "denied"),
    [
        ({"class_path": "evil_parts.Tap"}, "evil_parts.Tap"),
        ({"class_path": CALLS, "init_args": {"on_fit_start": "os.system"}}, "os.system"),
        # modules import others, so a path below an allowed package can lead out of it
        (
            {
                "class_path": CALLS,
                "init_args": {"on_fit_start": "lightning.pytorch.callbacks.model_checkpoint.os.system"},
            },
            "posix.system",
        ),
        ({"class_path": CALLS, "init_args": {"on_fit_start": {"class_path": "subprocess.Popen"}}}, "subprocess.Popen"),
        ({"class_path": CALLS, "init_args": {"on_fit_start": "evil_parts.Tap"}}, "evil_parts.Tap"),
    ],
)
def test_the_parser_imports_nothing_else(
    lab: Lab, evil: str, mark, refused: Callable[..., str], callback: dict[str, object], denied: str
) -> None:
    """On the command line, where no run file is read: the parser itself is limited."""
    options = ["--spec", "dpo", "--config", "run.yaml", "--trainer.callbacks", json.dumps([callback])]
    message = refused("fit", *options)
    assert f"{denied} is not imported" in message and message.startswith("error: trainer.callbacks:")
    assert not mark.made


LOAD = "lightning.fabric.utilities.cloud_io._load"
CALLED = {
    "a function of lightning": {"class_path": LOAD, "init_args": {"path_or_url": "evil.ckpt", "weights_only": False}},
    "an address": {"class_path": LOAD, "init_args": {"path_or_url": "data:;base64,aGk=", "weights_only": False}},
    "a function of nashtune": {
        "class_path": "nashtune.training.run_folder.write_json",
        "init_args": {"path": "executed", "value": {"a": 1}},
    },
    "a method": {
        "class_path": "lightning.pytorch.demos.boring_classes.BoringModel.load_from_checkpoint",
        "init_args": {"checkpoint_path": "evil.ckpt", "weights_only": False},
    },
    "a function of an allowed package": {
        "class_path": "torch.profiler.schedule",
        "init_args": {"wait": 1, "warmup": 1, "active": 1},
    },
}


def calling(value: object) -> dict[str, object]:
    """The section `trainer` with something to be called at the start."""
    return {"callbacks": [{"class_path": CALLS, "init_args": {"on_fit_start": value}}]}


@pytest.mark.parametrize("called", CALLED.values(), ids=CALLED)
def test_a_function_is_no_class(
    lab: Lab, mark, payload, refused: Callable[..., str], called: dict[str, object]
) -> None:
    """An argument that is typed as a callable takes a function, which the parser would call with what is beside it."""
    torch.save({"x": payload}, lab.folder / "evil.ckpt")
    (lab.folder / "more.yaml").write_text(yaml.safe_dump({"trainer": calling(called)}))
    for command in ("fit", "check"):
        message = refused(command, "--spec", "dpo", "--config", "run.yaml", "--config", "more.yaml")
        assert f"more.yaml:2: trainer.callbacks.0.init_args.on_fit_start.class_path: {called['class_path']}" in message
        assert "is no class" in message or "is not among what may be named here" in message
    options = ["--spec", "dpo", "--config", "run.yaml", "--trainer.callbacks", json.dumps(calling(called)["callbacks"])]
    message = refused("fit", *options)  # where no run file is read
    assert "is no class" in message or "is not imported" in message
    assert not mark.made and not (lab.folder / "executed").exists()


def test_the_parsers_functions_are_looked_at_before_they_are_called() -> None:
    limit_imports()
    function = {"class_path": "torch.profiler.schedule", "init_args": {"wait": 1}}
    with pytest.raises(InputError, match=r"^trainer\.0\.class_path: \S+ is no class, and would be called"):
        refuse_calls(Namespace(trainer=[Namespace(function)]))
    with pytest.raises(InputError, match="is built nowhere in a run file"):
        refuse_calls({"class_path": "transformers.models.llama.modeling_llama.LlamaDecoderLayer"})
    with granted(["torch.profiler"]):
        refuse_calls(Namespace(trainer=[Namespace(function)]))


def test_functions_that_an_argument_may_be_given() -> None:
    refuse_calls({"hook": default_hooks.fp16_compress_hook, "layers": {torch.nn.Linear}, "path": Path(), "n": 1})
    for function in (os.mkdir, torch.nn.init.zeros_, functools.partial(os.mkdir, "a"), "a".join):
        with pytest.raises(InputError, match=r"^hook: the function \S+ would be called"):
            refuse_calls({"hook": function})


def test_a_checkpoint_whose_callback_is_a_function(lab: Lab, payload, mark, refused: Callable[..., str]) -> None:
    file = newest_checkpoint(lab.fit("--trainer.max_steps", "1"))
    torch.save({"x": payload}, lab.folder / "evil.ckpt")
    content = torch.load(file, weights_only=True)
    config = content["nashtune"]["config"]
    function = CALLED["a function of lightning"]
    within_allowed = CALLED["a function of an allowed package"]
    for called, said in ((function, "cloud_io._load is not imported"), (within_allowed, "schedule is no class")):
        content["nashtune"]["config"] = {**config, "trainer": {**config["trainer"], **calling(called)}}
        torch.save(content, file)
        for command in ("fit", "validate", "test", "predict"):
            assert said in refused(command, "--ckpt_path", str(file)), command
    assert not mark.made


def test_lightnings_own_classes_need_no_permission_and_others_an_explicit_one(lab: Lab, evil: str, mark) -> None:
    own = json.dumps([{"class_path": "lightning.pytorch.callbacks.LearningRateMonitor"}])
    lab.fit("--trainer.callbacks", own, "--trainer.max_steps", "1")
    assert not mark.made
    theirs = json.dumps([{"class_path": f"{evil}.Tap"}])
    lab.fit("--trainer.callbacks", theirs, "--trainer.max_steps", "1", "--allow-import", evil, run="second")
    assert mark.made


def test_the_plugins_that_are_installed_are_allowed_and_no_more() -> None:
    for target in ("nashtune.kl.fixed:FixedKL", "nashtune_plugins.dpo.DPOLoss"):
        refuse_foreign(target)
    for target in ("nashtune_plugin.dpo.DPOLoss", "nashtunes.x.Y", "torch.nn.Linear", "os.path.Path"):
        with pytest.raises(InputError, match="is neither nashtune nor an installed plugin"):
            refuse_foreign(target)
    with granted(["my_package.losses"]):
        refuse_foreign("my_package.losses.deep.One")
        with pytest.raises(InputError):
            refuse_foreign("my_package.other.One")


@pytest.mark.parametrize("words", [["--allow-import"], ["--allow-import="], ["--trust_remote_code", "--spec"]])
def test_an_option_without_its_value(words: list[str]) -> None:
    with pytest.raises(InputError, match="needs a value"):
        take_grants(words)


@pytest.mark.parametrize(
    "given", [{"imports": ["*"]}, {"imports": ["a-b"]}, {"imports": [""]}, {"models": ["true"]}, {"models": ["all"]}]
)
def test_trust_is_given_by_name(given: dict[str, list[str]]) -> None:
    with pytest.raises(InputError), granted(**given):
        pass


def test_a_pipeline_hands_its_trust_to_the_trainings_that_it_starts(tmp_path: Path, monkeypatch) -> None:
    from nashtune.interfaces.stage import Work
    from nashtune.pipeline import fit_command

    script = (
        f"import sys, os, json; json.dump([sys.argv[1:], sys.flags.safe_path], open({str(tmp_path / 'said')!r}, 'w'))"
    )
    import sys

    monkeypatch.setattr(fit_command, "COMMAND", (sys.executable, "-c", script))
    with granted(["my_package"], ["hub:a/b"]):
        fit_command.call(["fit"], Work(folder=tmp_path, say=print, stdout=None))
    said, safe = json.loads((tmp_path / "said").read_text())
    assert said == ["fit", "--allow-import", "my_package", "--trust_remote_code", "hub:a/b"]
    assert safe  # a module in the current folder does not take the place of an installed one
