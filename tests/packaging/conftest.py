"""A fresh virtual environment with nashtune's wheel and five third-party distributions in it.

The wheels are really built and installed. Only what nashtune depends on (torch, Lightning, ...) is not downloaded
again: once everything is installed, a .pth file puts the site-packages of the running environment behind the fresh
ones. Python does not read .pth files of folders added that way, so an editable nashtune of the running environment
stays out of sight.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
THIRD_PARTY = Path(__file__).parent / "third_party"


@dataclass(frozen=True)
class Fresh:
    """The environment.

    Attributes:
        folder: Of the environment.
        wheel: nashtune's wheel, as installed.
    """

    folder: Path
    wheel: Path

    def python(self, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        return self._run(str(self.folder / "bin" / "python"), *arguments, **environ)

    def nashtune(self, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        """The installed command, from a folder that is not the checkout."""
        return self._run(str(self.folder / "bin" / "nashtune"), *arguments, **environ)

    def _run(self, *command: str, **environ: str) -> subprocess.CompletedProcess[str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "NASHTUNE_", "VIRTUAL_ENV"))}
        return subprocess.run(command, cwd=self.folder, env=kept | environ, capture_output=True, text=True, check=False)


def pip(*arguments: str | Path, python: Path | None = None) -> None:
    where = [f"--python={python}"] if python else []
    quiet = ["--quiet", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", *where, *quiet, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="session")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Fresh:
    folder = tmp_path_factory.mktemp("fresh")
    wheels, venv = folder / "wheels", folder / "venv"
    sources = [ROOT, *sorted(path.parent for path in THIRD_PARTY.glob("*/pyproject.toml"))]
    pip("wheel", "--no-index", "--no-deps", "--no-build-isolation", "--wheel-dir", wheels, *sources)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True)
    pip("install", "--no-index", "--no-deps", *sorted(wheels.glob("*.whl")), python=venv / "bin" / "python")
    [site] = venv.glob("lib/python*/site-packages")
    behind = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    (site / "dependencies.pth").write_text("\n".join(behind) + "\n")
    [wheel] = wheels.glob("nashtune-0*.whl")
    return Fresh(venv, wheel)
