from __future__ import annotations

import subprocess
import sys

import pytest
from tests.lab import Lab


@pytest.mark.parametrize("lines", [0, 12])
def test_a_training_whose_output_nobody_reads_ends_with_141(lab: Lab, lines: int) -> None:
    command = [sys.executable, "-m", "nashtune", "fit", "--spec", "dpo", "--config", str(lab.run_file)]
    with subprocess.Popen(
        [*command, "--run_dir", str(lab.folder / "run")], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        read = [process.stdout.readline() for _ in range(lines)]
        process.stdout.close()
        said = process.stderr.read()
    assert process.returncode == 141, said
    assert "Traceback" not in said and not any("exported" in line for line in [*read, *said.splitlines()]), said
    assert not (lab.folder / "run" / "export").exists()
