"""A model brings weights and settings; its code runs only where the command line names it."""

from __future__ import annotations

import ast
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from lab import Lab
from nashtune.errors import InputError
from nashtune.models.config import PolicyConfig
from nashtune.models.locate import locate
from nashtune.models.preflight import load_tokenizer, preflight
from nashtune.oracles.reward_weights import check_reward_folder, load_classifier
from nashtune.trust import granted

ROOT = Path(__file__).parents[3]
MODELING = "from transformers import LlamaForCausalLM, LlamaConfig\n\nclass Mine(LlamaForCausalLM):\n    pass\n"


def change(file: Path, **values: object) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


@pytest.fixture
def coded(tiny: Path, tmp_path: Path, mark, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The tiny model with code of its own, which leaves the mark when it is imported."""
    folder = tmp_path / "coded"
    shutil.copytree(tiny, folder)
    (folder / "modeling_mine.py").write_text(mark.line + MODELING)
    change(folder / "config.json", model_type="mine", auto_map={"AutoModelForCausalLM": "modeling_mine.Mine"})
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    return folder


def test_a_model_with_code_is_refused_by_every_command(
    lab: Lab, coded: Path, mark, refused: Callable[..., str]
) -> None:
    for command in ("check", "fit"):
        message = refused(command, "--spec", "dpo", "--config", "run.yaml", "--policy.path", str(coded))
        assert "asks for code of its own to be run (config.json: auto_map: modeling_mine.Mine)" in message
        assert f"`--trust_remote_code {coded}`" in message
    assert not mark.made


def test_a_named_model_may_run_its_code(lab: Lab, coded: Path, mark, monkeypatch: pytest.MonkeyPatch) -> None:
    change(coded / "config.json", model_type="llama")
    monkeypatch.chdir(lab.folder)
    lab.fit("--policy.path", "coded", "--trainer.max_steps", "1", "--trust_remote_code", str(coded))
    assert mark.made


def test_a_model_that_transformers_has_is_loaded_by_transformers(
    lab: Lab, coded: Path, mark, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    change(coded / "config.json", model_type="llama")
    monkeypatch.chdir(lab.folder)
    with caplog.at_level("INFO"):
        lab.fit("--policy.path", "coded", "--trainer.max_steps", "1")
    assert not mark.made
    assert "coded is loaded by transformers' own code, without what config.json names" in caplog.text


def test_trust_in_one_model_is_not_trust_in_another(coded: Path, tmp_path: Path, mark) -> None:
    shutil.copytree(coded, tmp_path / "other")
    with granted(models=[str(coded)]):
        locate(str(coded))
        with pytest.raises(InputError, match="asks for code"):
            locate(str(tmp_path / "other"))
    with pytest.raises(InputError, match="asks for code"):
        locate(str(coded))
    assert not mark.made


def test_no_file_can_trust_a_model(lab: Lab, refused: Callable[..., str]) -> None:
    (lab.folder / "more.yaml").write_text("policy: {trust_remote_code: true}\n")
    message = refused("fit", "--spec", "dpo", "--config", "run.yaml", "--config", "more.yaml")
    assert "trust_remote_code" in message and "is not an option of" in message


def test_code_in_another_repository_needs_a_word_of_its_own(coded: Path) -> None:
    change(coded / "config.json", auto_map={"AutoModelForCausalLM": "someone/else--modeling_mine.Mine"})
    with granted(models=[str(coded)]), pytest.raises(InputError, match="--trust_remote_code hub:someone/else"):
        locate(str(coded))


@pytest.mark.parametrize(
    ("file", "values"),
    [
        ("config.json", {"text_config": {"auto_map": {"AutoModel": "deep.Inside"}}}),
        ("config.json", {"attn_implementation": "someone/kernel"}),
        ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["mine.Slow", None]}}),
    ],
)
def test_every_way_to_ask_for_code_is_seen(tiny: Path, tmp_path: Path, file: str, values: dict[str, object]) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny, folder)
    change(folder / "config.json", model_type="mine")
    change(folder / file, **values)
    for look in (locate, load_tokenizer, lambda path: check_reward_folder(path, "oracle.path")):
        with pytest.raises(InputError, match="asks for code"):
            look(str(folder))


def test_an_adapters_base_model_is_looked_at_too(sft_adapter: Path, coded: Path, mark) -> None:
    change(sft_adapter / "adapter_config.json", base_model_name_or_path=str(coded))
    with pytest.raises(InputError, match="asks for code") as caught:
        locate(str(sft_adapter))
    assert f"--trust_remote_code {coded}" in str(caught.value)
    with granted(models=[str(sft_adapter)]), pytest.raises(InputError, match="asks for code"):
        locate(str(sft_adapter))  # an adapter cannot pass its trust on to whatever it names
    with granted(models=[str(coded)]):
        assert locate(str(sft_adapter)).base == coded
    assert not mark.made


def test_an_adapters_base_model_of_the_hub_is_named_as_the_hub_does(
    sft_adapter: Path, coded: Path, mark, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nashtune.models.locate._from_hub", lambda name, option: coded)
    change(sft_adapter / "adapter_config.json", base_model_name_or_path="someone/base")
    with pytest.raises(InputError, match="--trust_remote_code hub:someone/base"):
        locate(str(sft_adapter))
    with granted(models=["hub:someone/base"]):
        assert locate(str(sft_adapter)).base == coded
    with granted(models=["hub:someone/other"]), pytest.raises(InputError, match="asks for code"):
        locate(str(sft_adapter))
    assert not mark.made


def test_an_adapters_own_tokenizer_of_a_known_model(
    sft_adapter: Path, tiny: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copy(tiny / "tokenizer.json", sft_adapter)
    (sft_adapter / "tokenizer_config.json").write_text('{"auto_map": {"AutoTokenizer": ["mine.Slow", null]}}')
    with caplog.at_level("INFO"):
        assert locate(str(sft_adapter)).tokenizer == sft_adapter
    assert "without what tokenizer_config.json names" in caplog.text


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"attn_implementation": "someone/kernel"}, "attn_implementation: someone/kernel"),
        ({"text_config": {"_experts_implementation": "someone/kernel"}}, "_experts_implementation: someone/kernel"),
        ({"parts": [{"a": [{"_attn_implementation": "someone/kernel"}]}]}, "_attn_implementation: someone/kernel"),
        ({"configuration_files": ["config.9.0.json"]}, "configuration_files: config.9.0.json"),
    ],
)
def test_a_note_hides_nothing_that_comes_after_it(
    tiny: Path, tmp_path: Path, values: dict[str, object], said: str
) -> None:
    """`auto_map` of a known model is left alone with one line; what else its configuration asks for is not."""
    folder = tmp_path / "model"
    shutil.copytree(tiny, folder)
    change(folder / "config.json", auto_map={"AutoModelForCausalLM": "modeling_mine.Mine"}, **values)
    with pytest.raises(InputError, match="asks for code") as caught:
        locate(str(folder))
    assert said in str(caught.value)


def test_the_attention_of_a_reward_model_is_never_its_configs(heads: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import AutoModelForSequenceClassification

    asked: dict[str, object] = {}

    def load(*_: object, **settings: object) -> None:
        asked.update(settings)
        raise OSError

    monkeypatch.setattr(AutoModelForSequenceClassification, "from_pretrained", load)
    with pytest.raises(InputError):
        load_classifier(locate(str(heads)), torch.float32, "oracle.path")
    assert asked["attn_implementation"] == "sdpa"


def test_a_kernel_from_the_hub_is_code(tiny: Path) -> None:
    with pytest.raises(InputError, match=r"policy\.attention: someone/kernel is compiled code"):
        preflight(PolicyConfig(path=str(tiny), attention="someone/kernel"))


def test_a_chat_template_cannot_leave_its_sandbox(tiny: Path, tmp_path: Path, mark) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny, folder)
    reach = "cycler.__init__.__globals__.os.mkdir"
    (folder / "chat_template.jinja").write_text(f"{{{{ {reach}({str(mark.file)!r}) }}}}")
    with pytest.raises(Exception, match="unsafe"):
        load_tokenizer(folder).apply_chat_template([{"role": "user", "content": "a"}], tokenize=False)
    assert not mark.made


def test_shards_lie_beside_their_index(tiny: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny, folder)
    for name in ("../other/model.safetensors", "/etc/passwd"):
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
        with pytest.raises(InputError, match="which is not a file beside it"):
            locate(str(folder))


def calls() -> list[tuple[str, ast.Call, str]]:
    """(place, call, name of what is called) everywhere in the product."""
    found = []
    for path in sorted((*(ROOT / "core").rglob("*.py"), *(ROOT / "plugins").rglob("*.py"))):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                found.append((f"{path.relative_to(ROOT)}:{node.lineno}", node, ast.unparse(node.func)))
    return found


def test_every_loading_call_says_that_it_runs_no_code() -> None:
    """A call without the keyword would ask on the terminal, or fall back to pickled weights."""
    loading = [
        (place, call, name) for place, call, name in calls() if name.endswith((".from_pretrained", ".from_config"))
    ]
    transformers = [one for one in loading if "Peft" not in one[2]]
    assert len(transformers) >= 9
    for place, call, name in transformers:
        given = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
        trust = given.get("trust_remote_code", "")
        assert trust in ("False", "trust") or trust.startswith("may_run_code("), f"{place}: {name}"
        if "AutoModel" in name and name.endswith("from_pretrained") and "gguf_file" not in given:
            assert given.get("use_safetensors") == "True", f"{place}: {name}"


def test_nothing_unpickles() -> None:
    loads = [(place, call) for place, call, name in calls() if name == "torch.load"]
    assert loads
    for place, call in loads:
        assert {k.arg: ast.unparse(k.value) for k in call.keywords}["weights_only"] == "True", place
    names = {name for _, _, name in calls()}
    assert not {name.rpartition(".")[2] for name in names} & {"Unpickler", "read_pickle", "FileSystemReader"}
    for place, call in ((place, call) for place, call, name in calls() if name in ("np.load", "numpy.load")):
        assert {k.arg: ast.unparse(k.value) for k in call.keywords}.get("allow_pickle") == "False", place
    assert not names & {"pickle.load", "pickle.loads", "eval", "exec", "yaml.load", "yaml.unsafe_load", "os.system"}
