"""What is installed: pins of requirements.txt are in the ranges of pyproject.toml, no package is left out."""

import subprocess
import sys
from importlib import metadata

import pytest
from common import ROOT
from packaging.markers import default_environment
from packaging.requirements import Requirement

import pmoe

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
WITHOUT_INSTALL = {"benchmarks", "tests"}


def read_pins() -> list[Requirement]:
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    return [Requirement(line) for line in lines if not line.startswith("#")]


def applying(requirements: list[Requirement], python: str) -> dict[str, Requirement]:
    """Those for this version of Python, by name"""
    environment = default_environment() | {"python_version": python}
    found = [x for x in requirements if x.marker is None or x.marker.evaluate(environment)]
    names = [x.name for x in found]
    assert len(names) == len(set(names))
    return dict(zip(names, found))


@pytest.mark.parametrize("python", ["3.10", "3.11", "3.12", "3.13"])
def test_every_dependency_has_a_pin_within_its_range(python):
    ranges = applying([Requirement(text) for text in PROJECT["project"]["dependencies"]], python)
    pins = applying(read_pins(), python)
    assert ranges.keys() <= pins.keys()
    for name, pin in pins.items():
        (version,) = pin.specifier
        assert version.operator == "=="
        if name in ranges:
            assert ranges[name].specifier.contains(version.version), name
            assert ranges[name].extras == pin.extras


def test_every_folder_with_code_is_a_package():
    folders = {file.parent.name for file in ROOT.glob("[!.]*/*.py")} - WITHOUT_INSTALL
    expected = {"pmoe"} | {f"pmoe.{folder}" for folder in folders}
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == expected


def test_version():
    assert pmoe.__version__ == metadata.version("pmoe") == PROJECT["project"]["version"]


def test_python_m_pmoe(tmp_path):
    command = [sys.executable, "-m", "pmoe", "--version"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert result.stdout.startswith(f"pmoe {pmoe.__version__}, ")
