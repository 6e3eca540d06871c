"""What the tests of grids share: files, run directories that only pretend, and waiting."""

import json
import time
from pathlib import Path

from pmoe.grid.read import Grid, read_grid

SAC = '[[method]]\nalgo = "sac"\n'
STEPS = 1_000_000  # of a run, by default


def toml(table: dict) -> str:
    return "".join(f"{name} = {json.dumps(value)}\n" for name, value in table.items())


def text_of(shared: dict, methods: list[dict], more: str = "") -> str:
    """A grid's file"""
    tables = [f"[[method]]\n{toml(method)}" for method in methods]
    return toml(shared) + more + "".join(tables)


def read(folder: Path, text: str) -> Grid:
    file = folder / "grid.toml"
    file.write_text(text)
    return read_grid(file)


def put(path: Path, *checkpoints: int, done: int | None = None) -> None:
    """A run directory with checkpoints at these steps, finished at step `done`"""
    (path / "checkpoint").mkdir(parents=True)
    for step in checkpoints:
        (path / f"checkpoint/{step:010}.pt").touch()
    if done is not None:
        write_done(path, done)


def write_done(path: Path, step: int = STEPS) -> None:
    (path / "done.json").write_text(json.dumps({"step": step, "wall_time": 60.0}))


def wait(condition, seconds: float = 120) -> None:
    """Until it holds; fails if it does not come to hold"""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.02)
