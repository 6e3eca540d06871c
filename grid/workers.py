"""Works through a grid's jobs on this machine: so many processes at a time, a thread each, GPUs shared out."""

import contextlib
import itertools
import os
import shlex
import signal
import subprocess
import sys
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

from .claims import TAKEN, alive, beside
from .grid import Grid, Job, checkpoint, command, count, going_on, progress, status, unfinished

PAUSE = 5.0  # seconds between looks at the disk


@dataclass
class Work:
    """A job's process"""

    job: Job
    process: subprocess.Popen
    slot: str | None  # the GPU it was given
    asked: int = 0  # how often it has been told to end


def places(grid: Grid, workers: int | None, per_gpu: int) -> list[str | None]:
    """A GPU, or None, for each process that may run at a time: by default as many as there are cores, and no more than
    places on GPUs where there are some and a job uses them"""
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    use = any(job.args.device == ("auto" if not hasattr(job.args, "num_steps") else "cuda") for job in grid.jobs)
    if not use or not torch.cuda.is_available():
        return [None] * (workers or cores)
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = given.split(",") if given else [str(i) for i in range(torch.cuda.device_count())]
    return list(itertools.islice(itertools.cycle(gpus), workers or min(cores, len(gpus) * per_gpu)))


def start(job: Job, slot: str | None = None) -> subprocess.Popen:
    """Trains a job in a process of its own, which ends with a checkpoint when this one is gone"""
    env = os.environ | {"OMP_NUM_THREADS": "1", "PMOE_PARENT": str(os.getpid())}
    env |= {} if slot is None else {"CUDA_VISIBLE_DEVICES": slot}
    words = [sys.executable, "-m", f"{__package__}.cli", *command(job)]
    job.log.parent.mkdir(parents=True, exist_ok=True)
    with open(job.log, "a") as log:
        return subprocess.Popen(words, stdout=log, stderr=log, env=env, start_new_session=True)


class Workers:
    def __init__(self, grid: Grid, slots: list[str | None], retries: int, patient: bool = True):
        """What works through a grid's jobs; `patient` waits for those that other workers have."""
        self.grid, self.retries, self.free, self.patient = grid, retries, deque(slots), patient
        self.waiting, self.active, self.failed = deque(grid.jobs), [], []
        self.signals = []  # what asked to stop
        self.looked = -PAUSE  # when all that waits was last found to be another worker's
        self.standing = "", -PAUSE  # how the grid stands, and when that was so
        self.shown = -60.0
        self.console = Console(highlight=False, markup=False)

    def run(self) -> int:
        """Until nothing is left to do; returns the exit status: 0 if all runs are done, 1 if some failed, TAKEN if some
        are others', 128 and the signal's number if it was stopped."""
        stops = [signal.SIGINT, signal.SIGTERM]
        stops += [signal.SIGHUP] if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN else []  # nohup's
        for number in stops:
            signal.signal(number, self.on_signal)
        try:
            with Live(console=self.console, auto_refresh=False, transient=True) as live:
                while True:
                    try:
                        if not self.tick():
                            break
                        self.show(live)
                        time.sleep(0.2)
                    except OSError as error:  # a shared file system may not answer for a while
                        self.say(f"{error}; going on in {PAUSE:.0f} s")
                        time.sleep(PAUSE)
        finally:
            for work in self.active:  # an error in this program itself
                work.process.terminate()
            for number in stops:
                signal.signal(number, signal.SIG_IGN)  # the program is at its end, and has a status
        for job in self.failed:
            self.console.print(
                f"failed: {job.name}; its log is {job.log}; without its folder it starts anew", soft_wrap=True
            )
        states = status(self.grid.paths)
        print(count(states))
        if self.signals:
            print(f"stopped; the same command goes on: {shlex.join(['pmoe', *sys.argv[1:]])}")
            return 128 + self.signals[0]
        return 1 if self.failed else 0 if set(states.values()) == {"done"} else TAKEN

    def on_signal(self, number: int, _) -> None:
        """The first signal stops; of more, which a cluster or a closing terminal may send, only Ctrl-C presses"""
        if not self.signals or number == signal.SIGINT:
            self.signals.append(number)

    def tick(self) -> bool:
        """Looks after the processes and starts what there is room for; False: nothing is left to do."""
        for work in [work for work in self.active if work.process.poll() is not None]:
            self.ended(work)
            self.active.remove(work)
            self.free.append(work.slot)
        if self.signals:
            return self.stop()
        if self.free and time.monotonic() > self.looked + PAUSE:
            return self.fill()
        return bool(self.active or self.waiting)

    def fill(self) -> bool:
        """Starts jobs that are nobody else's while there is room; False: nothing is left to do."""
        others = 0
        while self.free and len(self.waiting) > others:
            parts = unfinished(self.waiting[0])
            if any(alive(path) for part in parts for path in part.paths):
                self.waiting.rotate(-1)  # another worker has it, and may die
                others += 1
                continue
            self.waiting.popleft()
            self.waiting.extendleft(reversed(parts[1:]))
            if parts:
                self.launch(parts[0])
        if self.free:
            self.looked = time.monotonic()
        return bool(self.active or self.waiting and self.patient)

    def launch(self, job: Job) -> None:
        slot, step = self.free.popleft(), checkpoint(job)
        self.active.append(Work(job, start(job, slot), slot))
        self.say(f"started {job.name}" + (f" from step {step:,}" if step else ""))

    def ended(self, work: Work) -> None:
        """A job whose process has ended is done, or tried again, or failed."""
        job, code = work.job, work.process.returncode
        if not unfinished(job):
            return self.say(f"done {job.name}")
        if work.asked:
            return self.waiting.append(job)
        if code == TAKEN:
            self.say(f"another worker has {job.name}")
            return self.waiting.append(job)
        how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"failed with status {code}"
        self.say(f"{how}: {job.name}; its log ends:")
        with contextlib.suppress(OSError):
            for line in job.log.read_text(errors="replace").splitlines()[-8:]:
                self.console.print(Text(f"    {line}", "red"), soft_wrap=True)
        job = replace(job, failures=job.failures + 1)
        if job.failures > self.retries or code == 2:  # 2: bad input, which stays bad
            self.failed.append(job)
            for path in job.paths:
                beside(path, "failed").touch()
        else:
            self.waiting.appendleft(job)

    def stop(self) -> bool:
        """Asks every process to write its checkpoint and end, at a second Ctrl-C ends them; False: all have ended."""
        for work in self.active:
            if work.asked < min(len(self.signals), 2):
                work.process.send_signal(signal.SIGKILL if work.asked else signal.SIGTERM)
                self.say(f"{'killing' if work.asked else 'stopping'} {work.job.name}")
                if not work.asked and work is self.active[-1]:
                    self.say("waiting for their checkpoints; Ctrl-C again kills them without")
                work.asked += 1
        return bool(self.active)

    def say(self, text: str) -> None:
        self.console.print(f"{time.strftime('%H:%M:%S')} {text}", soft_wrap=True)

    def stands(self) -> str:
        """How many runs are done, running, ...; looked up now and then"""
        if time.monotonic() > self.standing[1] + PAUSE:
            self.standing = count(status(self.grid.paths)), time.monotonic()
        return self.standing[0]

    def rows(self) -> list[list[str]]:
        """Name, state, step, return, steps a second and time left of the jobs that run or have failed"""
        rows = []
        for work in self.active:
            step, last, speed = progress(work.job) or (0, "", 0.0)
            total = work.job.args.total_timesteps
            left = clock((total - step) / speed) if speed else ""
            state = "stopping" if work.asked else "running"
            rows.append([work.job.name, state, f"{step:,} of {total:,}", last, f"{speed:.0f}" if speed else "", left])
        return rows + [[job.name, "failed", "", "", "", ""] for job in self.failed]

    def table(self) -> Table:
        title = "waiting for checkpoints; Ctrl-C again does not" if self.signals else None
        table = Table("job", "state", "step", "return", "steps/s", "left", title=title, box=None, pad_edge=False)
        for row in self.rows():
            table.add_row(*row)
        table.caption = self.stands()
        return table

    def show(self, live: Live) -> None:
        """The table, each second; without a terminal the same as lines of a log, each minute"""
        if time.monotonic() < self.shown + (1 if self.console.is_terminal else 60):
            return
        self.shown = time.monotonic()
        if self.console.is_terminal:
            return live.update(self.table(), refresh=True)
        for name, state, step, last, speed, left in self.rows():
            if state == "running" and left:
                self.say(f"{name}: step {step}, return {last}, {speed} steps/s, {left} left")
        self.say(self.stands())


def clock(seconds: float) -> str:
    """3723 s -> 1:02:03"""
    return f"{seconds // 3600:.0f}:{seconds % 3600 // 60:02.0f}:{seconds % 60:02.0f}"


def preview(grid: Grid, slots: list) -> None:
    """Prints the commands that are left to run, and how long they take by a measurement of this machine's speed."""
    left = [part for job in grid.jobs for part in unfinished(job)]
    for job in left:
        options = [f"--{name}" for name in going_on(job.paths)]
        print(shlex.join(["pmoe", *command(job), *options]))
    runs, steps = sum(len(job.paths) for job in left), sum(len(job.paths) * steps_left(job) for job in left)
    print(f"{runs:,} runs in {len(left):,} processes, {steps:,} steps", flush=True)
    if left:
        print("measuring the speed of each method, up to a minute for one", flush=True)
        seconds, n = estimate(left), len(slots)
        print(f"about {clock(seconds)} of one process, {clock(seconds / n)} of {n} at a time, without evaluations, if")
        print("each method is as fast on every environment as it was just now on its first")


def steps_left(job: Job) -> int:
    """Steps that each seed of a job has still to make"""
    return job.args.total_timesteps - checkpoint(job)


def estimate(jobs: list[Job]) -> float:
    """Seconds that jobs take one after the other, each method's speed being that of its first job here and now.
    OSError: one of them does not run."""
    speeds, total = {}, 0.0
    for job in track(jobs, "measuring the speed of this machine", transient=True):
        free = ("env_id", "seed", "total_timesteps")
        method = (job.algo, len(job.paths), *(x for n, x in vars(job.args).items() if n not in free))
        if method not in speeds:
            speeds[method] = measure(job)
        total += steps_left(job) / speeds[method]
    return total


def measure(job: Job) -> float:
    """Steps a second of a job: between the second and the third line of its progress, when it is compiled and learns,
    of a shorter one between the last two or on the whole. OSError: it does not run."""
    with tempfile.TemporaryDirectory() as folder:
        args = replace(job.args, run_dir=folder, eval_every=job.args.total_timesteps)
        trial = Job(job.algo, args, [Path(folder, *path.parts[-3:]) for path in job.paths])
        process, lines = start(trial), [(0, time.monotonic())]
        try:
            while process.poll() is None and len(lines) < 4:
                time.sleep(0.02)
                told = progress(trial)
                if told and told[0] != lines[-1][0]:
                    lines.append((told[0], time.monotonic()))
        finally:
            process.kill()
            process.wait()
        if len(lines) == 1 and process.returncode:
            raise OSError(f"{job.name} cannot be measured: {' '.join(trial.log.read_text().split()[-50:])}")
        if len(lines) == 1:
            return args.total_timesteps / (time.monotonic() - lines[0][1])
        return (lines[-1][0] - lines[-2][0]) / (lines[-1][1] - lines[-2][1])
