"""Works through a grid's jobs on this machine: so many processes at a time, a thread each, GPUs shared out."""

import itertools
import os
import shlex
import signal
import subprocess
import tempfile
import time
from collections import deque
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.progress import track
from rich.table import Table
from rich.text import Text

from .claims import holder
from .grid import Grid, Job, checkpoint, command, count, progress, status, unfinished

PAUSE = 5.0  # seconds between looks at the disk
TAKEN = 75  # exit status of `pmoe run` where another process has the run


@dataclass
class Work:
    """A job's process"""

    job: Job
    process: subprocess.Popen
    slot: str | None  # the GPU it was given
    asked: int = 0  # how often it has been told to end


def places(workers: int | None, per_gpu: int) -> list[str | None]:
    """A GPU or None for each process that may run at a time; by default as many as there are cores or places on GPUs"""
    import torch

    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = given.split(",") if given else [str(i) for i in range(torch.cuda.device_count())]
    if gpus and torch.cuda.is_available():
        places = gpus * per_gpu
        return list(itertools.islice(itertools.cycle(places), workers or len(places)))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return [None] * (workers or cores)


def start(job: Job, slot: str | None = None) -> subprocess.Popen:
    """Trains a job in a process of its own, which ends with a checkpoint when this one is gone"""
    env = os.environ | {"OMP_NUM_THREADS": "1", "PMOE_PARENT": str(os.getpid())}
    env |= {} if slot is None else {"CUDA_VISIBLE_DEVICES": slot}
    job.log.parent.mkdir(parents=True, exist_ok=True)
    with open(job.log, "a") as log:
        return subprocess.Popen(command(job), stdout=log, stderr=log, env=env, start_new_session=True)


class Workers:
    def __init__(self, grid: Grid, slots: list[str | None], retries: int):
        self.grid, self.retries, self.free = grid, retries, deque(slots)
        self.waiting, self.active, self.failed = deque(grid.jobs), [], []
        self.signals = []  # what asked to stop
        self.looked = -PAUSE  # when all that waits was last found to be another worker's
        self.console = Console(highlight=False, markup=False)

    def run(self) -> int:
        """Until nothing is left to do; returns the exit status: 0 if all runs are done, 1 if some failed, 128 and the
        signal's number if it was stopped."""
        catch = {n: signal.signal(n, lambda n, _: self.signals.append(n)) for n in (signal.SIGINT, signal.SIGTERM)}
        catch[signal.SIGHUP] = signal.signal(signal.SIGHUP, lambda n, _: self.signals.append(n))
        try:
            with Live(console=self.console, auto_refresh=False, transient=True) as live:
                shown = -60.0
                while self.tick():
                    if time.monotonic() - shown > (1 if self.console.is_terminal else 60):
                        shown = time.monotonic()
                        if self.console.is_terminal:
                            live.update(self.table(), refresh=True)
                        else:
                            self.say(count(status(self.grid.paths)))
                    time.sleep(0.2)
        finally:
            for work in self.active:  # an error in this program itself
                work.process.terminate()
            for number, handler in catch.items():
                signal.signal(number, handler)
        for job in self.failed:
            self.console.print(f"failed: {job.name}; its log is {job.log}")
        states = status(self.grid.paths)
        print(count(states))
        if self.signals:
            print(f"stopped; pmoe grid {self.grid.file} goes on")
            return 128 + self.signals[0]
        return 0 if set(states.values()) == {"done"} else 1

    def tick(self) -> bool:
        """Looks after the processes and starts what there is room for; False: nothing is left to do."""
        for work in [work for work in self.active if work.process.poll() is not None]:
            self.active.remove(work)
            self.free.append(work.slot)
            self.ended(work)
        if self.signals:
            return self.stop()
        look = self.free and time.monotonic() > self.looked + PAUSE
        for _ in range(len(self.waiting) if look else 0):
            job = self.waiting.popleft()
            parts = unfinished(job)
            if any((holder(path) or {"alive": False})["alive"] for part in parts for path in part.paths):
                self.waiting.append(job)  # another worker has it; it may die
                continue
            self.waiting.extendleft(reversed(parts[1:]))
            if parts:
                self.launch(parts[0])
            if not self.free:
                return True
        if look:  # all that wait are other workers', or nothing does
            self.looked = time.monotonic()
        return bool(self.active or self.waiting)

    def launch(self, job: Job) -> None:
        slot, step = self.free.popleft(), checkpoint(job)
        self.active.append(Work(job, start(job, slot), slot))
        self.say(f"started {job.name}" + (f" from step {step:,}" if step else ""))

    def ended(self, work: Work) -> None:
        """A job whose process has ended is done, or tried again, or failed."""
        job, code = work.job, work.process.returncode
        left = unfinished(job)
        if not left:
            self.say(f"done {job.name}")
        elif code == TAKEN:
            self.waiting.append(job)
        elif self.signals:
            self.waiting.appendleft(job)
        else:
            self.say(f"failed with status {code}: {job.name}; its log ends:")
            for line in job.log.read_text(errors="replace").splitlines()[-8:]:
                self.console.print(Text(f"    {line}", "red"))
            job = replace(job, failures=job.failures + 1)
            if job.failures > self.retries or code == 2:  # 2: bad input, which stays bad
                self.failed.append(job)
            else:
                self.waiting.append(job)

    def stop(self) -> bool:
        """Asks every process to write its checkpoint and end, at a second signal ends them; False: all have ended."""
        number = len(self.signals)
        for work in self.active:
            if number > work.asked:
                work.asked = number
                work.process.send_signal(signal.SIGTERM if number == 1 else signal.SIGKILL)
                self.say(f"stopping {work.job.name}")
        return bool(self.active)

    def say(self, text: str) -> None:
        self.console.print(f"{time.strftime('%H:%M:%S')} {text}")

    def table(self) -> Table:
        """The jobs that are running, and a line on all"""
        title = "stopping: waiting for checkpoints; Ctrl-C again does not wait" if self.signals else None
        table = Table("job", "step", "evaluation", "steps/s", "left", title=title, box=None, pad_edge=False)
        for work in self.active:
            step, evaluation, speed = progress(work.job) or (0, "", 0.0)
            total = work.job.args.total_timesteps
            left = clock((total - step) / speed) if speed else ""
            table.add_row(work.job.name, f"{step:,} of {total:,}", evaluation, f"{speed:.0f}" if speed else "", left)
        table.caption = count(status(self.grid.paths))
        return table


def clock(seconds: float) -> str:
    """3723 s -> 1:02"""
    return f"{seconds // 3600:.0f}:{seconds % 3600 // 60:02.0f}"


def preview(grid: Grid, slots: list) -> None:
    """Prints the commands that are left to run, and how long they take by a measurement of this machine's speed."""
    left = [part for job in grid.jobs for part in unfinished(job)]
    for job in left:
        print(shlex.join(["pmoe", *command(job)[3:]]))
    runs, steps = (sum(len(job.paths) * x for job, x in zip(left, xs)) for xs in ([1] * len(left), map(to_do, left)))
    print(f"{runs:,} runs in {len(left):,} processes, {steps:,} steps", flush=True)
    if left:
        seconds = estimate(left)
        print(f"about {seconds / 3600:.1f} hours of one process, {seconds / 3600 / len(slots):.1f} of {len(slots)}")


def to_do(job: Job) -> int:
    """Steps that each seed of a job has still to make"""
    return job.args.total_timesteps - checkpoint(job)


def estimate(jobs: list[Job]) -> float:
    """Seconds that jobs take one after the other, each method's speed being that of its first job here, now."""
    speeds, total = {}, 0.0
    for job in track(jobs, "measuring the speed of this machine", transient=True):
        free = ("env_id", "seed", "total_timesteps")
        method = (job.algo, len(job.paths), *(x for n, x in vars(job.args).items() if n not in free))
        if method not in speeds:
            speeds[method] = measure(job)
        total += to_do(job) / speeds[method]
    return total


def measure(job: Job) -> float:
    """Steps a second of a job: between the second and the third line of its progress, when it is compiled and learns"""
    with tempfile.TemporaryDirectory() as folder:
        args = replace(job.args, run_dir=folder, eval_every=job.args.total_timesteps)
        trial = Job(job.algo, args, [Path(folder, *path.parts[-3:]) for path in job.paths])
        process, lines = start(trial), []
        try:
            while process.poll() is None and len(lines) < 3:
                time.sleep(0.02)
                told = progress(trial)
                if told and told[0] != (lines[-1][0] if lines else 0):
                    lines.append((told[0], time.monotonic()))
        finally:
            process.kill()
            process.wait()
        if len(lines) < 2:
            raise OSError(f"{job.name} cannot be measured: {' '.join(trial.log.read_text().split()[-50:])}")
        return (lines[-1][0] - lines[-2][0]) / (lines[-1][1] - lines[-2][1])
