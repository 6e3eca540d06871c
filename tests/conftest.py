import subprocess

import pytest
from common import PMOE


@pytest.fixture
def pmoe(tmp_path):
    """Runs `pmoe ARGS` in an empty folder, in a process of its own."""

    def run(*args, **kwargs) -> subprocess.CompletedProcess:
        command = [PMOE, *map(str, args)]
        kwargs = {"capture_output": True, "text": True, "timeout": 300} | kwargs
        return subprocess.run(command, cwd=tmp_path, check=False, **kwargs)

    return run
