import subprocess

import pytest
from common import PMOE


@pytest.fixture
def pmoe(tmp_path):
    """Runs `pmoe ARGS` in an empty folder, in a process of its own."""

    def run(*args, **kwargs) -> subprocess.CompletedProcess:
        command = [PMOE, *map(str, args)]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, **kwargs)

    return run
