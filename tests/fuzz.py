"""Throws made-up input at the command line and looks at how it ends: `python tests/fuzz.py --seconds 60`.

Random command lines, TOML files and damaged run directories (tests/fuzz_inputs.py). Whatever the input,
`pmoe` ends with status 0, 1, 2, 75 or 128 + a signal's number, without a traceback, within a minute, with
less than 2 GB of memory, and writes nothing outside its folder. Bad input is one line, after which the folder
is as before.

To start a process with torch takes seconds. Here it is imported once, and each command is a fork of this
process with a folder of its own. Linux only. The same seed gives the same examples, as many as the time
allows.
"""

import argparse
import contextlib
import gc
import io
import os
import re
import resource
import select
import shlex
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # a fork has no threads but the one that forked
os.environ["OPENBLAS_NUM_THREADS"] = "1"

import hypothesis
import matplotlib
import torch
from fuzz_inputs import (
    FILES,
    FINISHED,
    Example,
    commands,
    damages,
    flags,
    grids,
    odd_names,
    quick,
    read_folder,
    runs,
)

from pmoe import cli
from pmoe.grid import slurm, workers
from pmoe.plots import estimators, evaluate, export, learning

SECONDS = 60  # for one command
MEMORY = 2 * 2**30
STATUSES = (0, 1, 2, 75)
NOWHERE = "?:? ?"  # no frame of a traceback is this project's
IMPORTED = (slurm, evaluate, estimators, export, learning)  # in advance, as the commands import them late


@dataclass
class Result:
    status: int  # negative: killed by this signal
    out: str
    err: str
    seconds: float
    memory: int  # bytes


# One command


def start(words: list[str], folder: Path, log: Path) -> int:
    """Runs `pmoe WORDS` in a folder, in a fork of this process, and prints into LOG.out and LOG.err."""
    process = os.fork()
    if process:
        return process
    status = 1
    try:
        os.setsid()
        os.chdir(folder)
        for number, name in enumerate([os.devnull, f"{log}.out", f"{log}.err"]):
            file = os.open(name, os.O_RDWR | os.O_CREAT)
            os.dup2(file, number)
        sys.stdout = os.fdopen(1, "w", encoding="utf-8")
        sys.stderr = os.fdopen(2, "w", encoding="utf-8", errors="backslashreplace")
        status = end_of(words)
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(status)


def end_of(words: list[str]) -> int:
    """The exit status of a command that has this process to itself"""
    sys.argv = ["pmoe", *words]
    try:
        cli.main()
    except SystemExit as stop:
        return int(stop.code or 0) % 256
    except BaseException:  # noqa: BLE001  whatever it is, a process would end so
        traceback.print_exc()
        return 1
    return 0


def watch(process: int, stop: tuple[int, float] | None) -> tuple[int, float, int]:
    """Waits for a process, and kills it where it takes too much: status, seconds, bytes of memory."""
    began = time.monotonic()
    ends = os.pidfd_open(process)
    while not select.select([ends], [], [], 0.02)[0]:
        seconds = time.monotonic() - began
        if stop and seconds > stop[1]:
            os.kill(process, stop[0])
            stop = None
        if seconds > SECONDS or memory_of(process) > MEMORY:
            os.killpg(process, signal.SIGKILL)
    os.close(ends)
    _, status, usage = os.wait4(process, 0)
    # What it has started ends with it.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process, signal.SIGKILL)
    seconds = time.monotonic() - began
    return os.waitstatus_to_exitcode(status), seconds, usage.ru_maxrss * 1024


def memory_of(process: int) -> int:
    """Bytes that a process has now"""
    try:
        pages = Path(f"/proc/{process}/statm").read_text().split()[1]
    except (OSError, IndexError):
        return 0
    return int(pages) * resource.getpagesize()


def run(example: Example, folder: Path, log: Path) -> Result:
    process = start(example.words, folder, log)
    status, seconds, memory = watch(process, example.stop)
    out, err = [Path(f"{log}.{name}").read_text(errors="replace") for name in ("out", "err")]
    return Result(status, out, err, seconds, memory)


# One example


def prepare(example: Example, root: Path) -> Path:
    """Makes the folder of an example, some levels below its root, so that what climbs out of it is seen."""
    here = root / "a/b/c/here"
    here.mkdir(parents=True)
    (root / "a/sentinel").write_text("sentinel")
    for name, content in {**FILES, **example.files}.items():
        file = here / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    os.mkfifo(here / "fifo")
    return here


def complaint(result: Result, stop: tuple[int, float] | None) -> str | None:
    """What is wrong with how a command ended, without what differs between two that end alike"""
    if "Traceback (most recent call last)" in result.err + result.out:
        place = place_of(result.err + result.out)
        # Of Ctrl-C in a callback of Python's own it says that it is ignored, with a traceback.
        if not stop or not place.endswith(NOWHERE):
            return f"traceback: {place}"
    if result.memory > MEMORY:
        return "more than 2 GB"
    if result.seconds > SECONDS:
        return "more than a minute"
    allowed = STATUSES
    if stop:
        allowed += (128 + stop[0], -stop[0])
    if result.status not in allowed:
        return f"status {result.status}"
    one_line = result.err.count("\n") == 1 and result.err.startswith("error: ")
    is_help = not result.err and result.out
    if result.status == 2 and not one_line and not is_help:
        return "status 2, but not one line"
    return None


def place_of(text: str) -> str:
    """The exception at the end of a traceback, and the last line of the project's own that it came from"""
    frames = re.findall(r'File "(\S+)", line (\d+), in (\S+)', text)
    theirs = re.compile("site-packages|/lib/python|<frozen")
    own = [frame for frame in frames if not theirs.search(frame[0])]
    file, line, function = own[-1] if own else ("?", "?", "?")
    kinds = re.findall(
        r"^(?:\w+\.)*(\w+(?:Error|Exception|Warning|Exit|Interrupt|Abort))\b", text, re.MULTILINE
    )
    kind = kinds[-1] if kinds else "?"
    return f"{kind} in {Path(file).name}:{line} {function}"


def below(folder: Path, without: Path | None = None) -> dict[str, tuple]:
    """What lies below a folder, but in one, by name: size and, of files, content's time"""
    found = {}
    for file in sorted(folder.rglob("*")):
        if without and file.is_relative_to(without):
            continue
        state = file.lstat()
        found[str(file)] = (state.st_size, state.st_mtime_ns) if file.is_file() else ()
    return found


def try_out(example: Example, root: Path) -> str | None:
    """What is wrong with how an example ends, in a folder of its own"""
    here = prepare(example, root)
    around = below(root, here)
    before = below(here)
    result = run(example, here, root.with_suffix(".log"))
    if below(root, here) != around:
        return "wrote outside its folder"
    wrong = complaint(result, example.stop)
    if wrong:
        return wrong
    if result.status == 2 and below(here) != before:
        return "status 2, but the folder has changed"
    return None


# All


class Trials:
    """Tries out examples until the time is over, and keeps the shortest of each kind of failure."""

    def __init__(self, folder: Path, seconds: float):
        self.folder = folder
        self.end = time.monotonic() + seconds
        self.tried: set[str] = set()
        self.counts: Counter = Counter()
        self.failures: dict[str, Example] = {}
        self.seen: Counter = Counter()

    def over(self) -> bool:
        return time.monotonic() > self.end

    def take(self, kind: str, example: Example) -> None:
        mark = repr((example.words, example.notes))
        # Hypothesis repeats itself.
        if self.over() or mark in self.tried:
            return
        self.tried.add(mark)
        self.counts[kind] += 1
        number = self.counts.total()
        root = self.folder / str(number)
        wrong = try_out(example, root)
        if wrong:
            self.seen[wrong] += 1
            known = self.failures.get(wrong)
            if not known or size(example) < size(known):
                self.failures[wrong] = example
        shutil.rmtree(root)

    def several(self, kind: str, strategy, number: int, seed: int) -> None:
        """Examples of a kind, always the same for a seed"""

        @hypothesis.seed(seed)
        @hypothesis.settings(
            max_examples=number,
            phases=[hypothesis.Phase.generate],
            database=None,
            deadline=None,
            suppress_health_check=list(hypothesis.HealthCheck),
        )
        @hypothesis.given(strategy)
        def each(example):
            self.take(kind, example)

        each()

    def report(self) -> int:
        """Prints what was found, and keeps the folders; returns the exit status."""
        for kind, count in self.counts.items():
            print(f"{count} {kind}")
        for number, (wrong, example) in enumerate(self.failures.items()):
            here = prepare(example, self.folder / f"failure{number}")
            print(f"\n{wrong} ({self.seen[wrong]} times)")
            print(f"  cd {here}; pmoe {shlex.join(example.words)}".encode(errors="backslashreplace").decode())
            if example.stop:
                print(f"  signal {example.stop[0]:d} after {example.stop[1]} s")
            for note in example.notes:
                print(f"  {note[:300]}".encode(errors="backslashreplace").decode())
        if not self.failures:
            shutil.rmtree(self.folder)
        return int(bool(self.failures))


def size(example: Example) -> int:
    """How much there is to read"""
    return len(" ".join(example.words)) + len("".join(example.notes))


def train_runs(folder: Path) -> None:
    """A run of each family, to be damaged"""
    for algo in ("sac", "ppo"):
        here = folder / algo
        here.mkdir()
        example = Example(["run", algo, *flags(algo, **quick(algo))])
        result = run(example, here, folder / f"{algo}.log")
        assert result.status == 0, result.err
        result = run(Example(["export", "runs", "-o", "table.csv"]), here, folder / f"{algo}.log")
        assert result.status == 0, result.err
        FINISHED[algo] = read_folder(here)


def warm_up(run_dir: Path) -> None:
    """Runs commands in this process, so that their late imports are not made anew in each fork."""
    out = str(run_dir / "figures")
    run_dir = str(run_dir)
    asked = [
        ["run", "sac", "--env", "x"],
        ["grid", "x"],
        ["status", run_dir],
        ["list"],
        ["diff", "sac", "dac"],
    ]
    asked += [
        ["eval", run_dir, "--episodes", "1"],
        ["plot", run_dir, "--out", out, "--auc"],
        ["plot", "--help"],
    ]
    for words in asked:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            end_of(words)
    # Else each fork's collector writes to, and so copies, what all forks share.
    gc.collect()
    gc.freeze()


def main(seconds: float, seed: int) -> int:
    torch.set_num_threads(1)
    matplotlib.use("agg")
    workers.estimate = lambda jobs: 1.0  # it starts processes that train
    folder = Path(tempfile.mkdtemp(prefix="pmoe-fuzz-"))
    train_runs(folder)
    warm_up(folder / "sac")
    kinds = {
        "runs": (runs(), 10),
        "other commands": (commands(), 10),
        "grids": (grids(), 20),
        "damaged runs": (damages(), 20),
        "odd names": (odd_names(), 3),
    }
    trials = Trials(folder, seconds)
    while not trials.over():
        for kind, (strategy, number) in kinds.items():
            trials.several(kind, strategy, number, seed)
        seed += 1
    return trials.report()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    sys.exit(main(asked.seconds, asked.seed))
