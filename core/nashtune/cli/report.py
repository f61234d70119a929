"""`nashtune report`: one HTML page of a run or of a comparison, which needs nothing else to be read."""

from __future__ import annotations

import argparse
from pathlib import Path

from nashtune.errors import InputError
from nashtune.files import cannot_write, write_bytes_atomically
from nashtune.terminal import say

SUMMARY = "write the HTML page of a run or of a comparison"
EPILOG = """\
    nashtune report runs/dpo-001                          writes runs/dpo-001/report.html
    nashtune report comparisons/dpo-ipo-001 --out page.html
The page is one file, with its figures, answers and data inside; it loads nothing from anywhere, so it can be mailed and
read without a network. A page that nashtune has made may be replaced; no other file is.
Exit codes: 0 done, 2 the input was wrong."""
OURS = b'<meta name="generator" content="nashtune '
HEAD = 4096  # bytes: where a page says who has made it


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("folder", type=Path, metavar="RUN_OR_COMPARISON", help="folder of a run or of a comparison")
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="file to write (default: RUN/report.html, COMPARISON/index.html)"
    )


def run(args: argparse.Namespace) -> int:
    """Write the page and say where it is.

    Raises:
        InputError: the folder holds neither, a file in it is torn, or the page cannot be written.
    """
    from nashtune.html.run_files import COMPARISON

    folder: Path = args.folder
    compared = (folder / COMPARISON).exists()
    out: Path = args.out or folder / ("index.html" if compared else "report.html")
    refuse_other(out)
    if compared:
        from nashtune.html import comparison_page

        text = comparison_page.render(folder)
    else:
        from nashtune.html import run_page

        text = run_page.render(folder)
    data = text.encode()
    try:
        write_bytes_atomically(out, data)
    except OSError as error:
        raise InputError(
            f"{out} cannot be written ({cannot_write(error) or error.strerror}); name another file: --out FILE"
        ) from error
    say(f"{out}   ({len(data) / 1e6:.1f} MB)")
    return 0


def refuse_other(out: Path) -> None:
    """Refuse a folder, and a file that is no page of ours.

    Raises:
        InputError: it is one.
    """
    if out.is_dir():
        raise InputError(f"--out: {out} is a folder; name a file in it, such as {out / 'report.html'}")
    if not out.exists():
        return
    with out.open("rb") as stream:
        if OURS not in stream.read(HEAD):
            raise InputError(
                f"--out: {out} is there and is no page that nashtune has made, so it is not overwritten; choose "
                "another name"
            )
