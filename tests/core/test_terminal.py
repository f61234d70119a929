from __future__ import annotations

import io
import json
import logging

import pytest

from nashtune.cli.output import print_json, print_table
from nashtune.consoles import Console
from nashtune.notes import note
from nashtune.terminal import MESSAGE, message, one_line, plain, say

EVIL = "\x1b[2J\x07\x9b2J\u202e\r\x7f\udce9"
SHOWN = r"\x1b[2J\x07\x9b2J\u202e\r\x7f\udce9"


@pytest.mark.parametrize(
    "text",
    ["", "a b\tc\nd", "β ≤ 1 · “x”", "e\u0301", "漢字\u3000かな", "عربي", "می\u200cخواهم", "1\u202f000"],
)
def test_letters_and_spaces_of_all_scripts_stay(text):
    assert plain(text) == text


def test_what_steers_a_terminal_is_shown_as_its_escape():
    assert plain(f"a\n{EVIL}") == f"a\n{SHOWN}"
    assert one_line("a\nerror: b\t") == r"a\nerror: b\t"


def test_no_line_of_a_message_but_the_first_begins_like_one():
    assert message("error: x\nerror: fake\n  b") == "error: x\n  error: fake\n  b"
    assert len(message("x " * MESSAGE)) < MESSAGE + 100


def test_a_line_is_said_plainly(capsys):
    say(f"a {EVIL}")
    assert capsys.readouterr().out == f"a {SHOWN}\n"


def test_a_note_is_said_plainly(caplog):
    with caplog.at_level(logging.INFO):
        note(f"{EVIL}\nerror: fake")
    assert caplog.messages[-1] == f"note: {SHOWN}\n  error: fake"


def test_tables_are_plain_and_a_first_cell_is_one_line(capsys):
    print_table([EVIL, "b"], [[f"x\nerror: {EVIL}", f"y{EVIL}\nz"]])
    said = capsys.readouterr().out
    assert plain(said) == said and rf"x\nerror: {SHOWN}" in said and f"y{SHOWN}" in said


@pytest.mark.parametrize("data", [{f"a{EVIL}": "β\n\U000e0041"}])
def test_json_says_the_same_without_control_characters(capsys, data):
    print_json(data)
    said = capsys.readouterr().out
    assert plain(said) == said and "β" in said
    assert json.loads(said) == data


def test_a_console_keeps_its_own_control_codes_and_no_others():
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, color_system="standard", markup=False, highlight=False)
    console.print(f"a {EVIL}", style="bold", soft_wrap=True)
    console.clear()
    without = SHOWN.replace(r"\x07", "").replace(r"\r", "")  # rich leaves out a few
    assert file.getvalue().startswith(f"\x1b[1ma {without}\x1b[0m")
    assert file.getvalue().endswith("\x1b[2J\x1b[H")


def test_a_console_leaves_a_broken_pipe_to_its_caller():
    class Unread(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        Console(file=Unread()).print("x")
