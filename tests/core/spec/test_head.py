from __future__ import annotations

import json

import pytest

from nashtune.cli.diff import compare
from nashtune.cli.main import main
from nashtune.cli.show import describe_spec
from nashtune.errors import InputError
from nashtune.spec.model import HeadSpec
from nashtune.spec.overrides import parse_override
from nashtune.spec.resolve import resolve
from nashtune.spec.schema import spec_schema

LOSS = "loss: score_loss:Loss\nreferences: none\n"


@pytest.fixture(autouse=True)
def losses(tmp_path, monkeypatch):
    """A loss that reads scores, by class path."""
    (tmp_path / "score_loss.py").write_text(
        "from typing import ClassVar, Literal\n"
        "from nashtune.interfaces import Loss as Base\n"
        "class Loss(Base):\n"
        '    "Reads scores."\n'
        '    reads: ClassVar[Literal["logprobs", "scores"]] = "scores"\n'
        "    anchors: ClassVar[tuple[str, ...]] = ()\n"
        "    uses_beta: ClassVar[bool] = False\n"
        "    def __call__(self, batch, step):\n"
        "        raise NotImplementedError\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))


def test_a_loss_that_reads_scores_has_a_head_by_default(write):
    spec = resolve(write(LOSS))
    assert spec.head == HeadSpec(members=1, init="scaled", trunk="trained", own_order=False, normalise="none")
    assert resolve("dpo").head is None and "head" not in resolve("dpo").to_dict()


def test_settings_come_from_file_and_command_line_and_go_around(write):
    file = write(LOSS + "head: {members: 3, normalise: gain_bias}\n")
    spec = resolve(file, [parse_override("--spec.head.members", "10"), parse_override("--spec.head.own_order", "true")])
    assert spec.head == HeadSpec(members=10, own_order=True, normalise="gain_bias")
    assert spec.places["head", "members"] == "--spec.head.members"
    again = resolve(json.loads(json.dumps(spec.to_dict())))
    assert again.head == spec.head and again.to_dict() == spec.to_dict()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (LOSS + "head: {members: 0}", "mine.yaml:3: head.members: expected a whole number > 0, found 0"),
        (LOSS + "head: {memebrs: 2}", "head.memebrs is not an option of head; did you mean 'members'?"),
        (LOSS + "head: {trunk: freezed}", "head.trunk: expected 'trained' or 'frozen', found 'freezed'"),
        (LOSS + "head: {normalise: gain}", "expected 'none' or 'bias' or 'gain_bias', found 'gain'"),
        (LOSS + "head: 10", "mine.yaml:3: head takes a mapping, found 10"),
        (
            LOSS + "head: {members: 2, member: 0}",
            "head.member goes on with one output of a head, but head.members is 2",
        ),
        ("base: dpo\nhead: {members: 2}", "the loss 'dpo' reads log-probs and no scores, so head is not read"),
    ],
)
def test_what_is_wrong_is_said(write, text, message):
    with pytest.raises(InputError) as refused:
        resolve(write(text))
    assert message in str(refused.value)


def test_show_and_diff_tell_of_the_head(write, capsys):
    one, ten = write(LOSS, "one.yaml"), write(LOSS + "head: {members: 10}", "ten.yaml")
    page = describe_spec(resolve(ten))
    assert page["head"][0] == {
        "name": "members",
        "value": 10,
        "set_at": "ten.yaml:3",
        "type": "PositiveInt",
        "doc": page["head"][0]["doc"],
    }
    assert page["head"][1]["set_at"] == "default" and "member of an ensemble" in page["head"][0]["doc"]
    assert main(["show", str(ten)]) == 0
    assert "Score head" in capsys.readouterr().out
    assert main(["show", "dpo"]) == 0
    assert "Score head" not in capsys.readouterr().out
    assert compare(resolve(one), resolve(ten)) == [{"key": "head.members", "a": 1, "b": 10}]
    assert {"key": "head.members", "b": 1} in compare(resolve("dpo"), resolve(one))


def test_the_schema_knows_the_head():
    head = spec_schema()["else"]["properties"]["head"]
    assert head["properties"]["members"]["default"] == 1
    assert not head["additionalProperties"] and "score" in head["description"].lower()
