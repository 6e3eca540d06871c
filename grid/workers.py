"""Works through a grid's jobs on this machine: so many processes at a time, a thread each, GPUs shared
out."""

import contextlib
import itertools
import math
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
from rich.table import Table
from rich.text import Text

from ..terminal import tracked
from .claims import TAKEN, alive, beside
from .read import Grid, Job, checkpoint, command, count, going_on, program, progress, status, unfinished

PAUSE = 5.0  # seconds between looks at the disk


@dataclass
class Work:
    """A job's process"""

    job: Job
    process: subprocess.Popen
    slot: str | None  # the GPU it was given
    asked: int = 0  # how often it has been told to end


def places(grid: Grid, workers: int | None, per_gpu: int) -> list[str | None]:
    """A GPU, or None, for each process that may run at a time: by default as many as there are cores, and no
    more than places on GPUs where there are some and a job uses them; never more than there are runs"""
    import torch

    cores = usable_cores()
    runs = len(grid.paths)
    needed = any(uses_gpu(job.args) for job in grid.jobs)
    if not needed or not torch.cuda.is_available():
        return [None for _ in range(min(workers or cores, runs))]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible:
        gpus = visible.split(",")
    else:
        gpus = [str(i) for i in range(torch.cuda.device_count())]
    room = min(cores, len(gpus) * per_gpu)
    return list(itertools.islice(itertools.cycle(gpus), min(workers or room, runs)))


def usable_cores() -> int:
    """That this process may use, by its affinity and by the quota of its container"""
    cores = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    quotas = cpu_quotas()
    return min([cores, *quotas])


def cpu_quotas(root: Path = Path("/")) -> list[int]:
    """Cores that Linux lets this process's control groups use, a part of one taken for a whole one"""
    mounted = root / "sys/fs/cgroup"
    quotas = []
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    for line in lines:
        controllers, _, path = line.partition(":")[2].partition(":")
        # Version 2 has one tree, version 1 one for each controller.
        if controllers == "":
            tree = mounted
        elif "cpu" in controllers.split(","):
            tree = mounted / "cpu"
        else:
            continue
        # A container may see its own group as the root of the tree, whatever its path outside.
        folder = tree / path.strip("/")
        for group in [folder, *folder.parents]:
            if group.is_relative_to(tree):
                quotas += quota_of(group)
    return quotas


def quota_of(group: Path) -> list[int]:
    """The cores of a control group of either version; none where it has no quota"""
    with contextlib.suppress(OSError, ValueError):
        quota, period = (group / "cpu.max").read_text().split()
        return [math.ceil(int(quota) / int(period))]  # "max": no number, and no quota
    with contextlib.suppress(OSError, ValueError):
        quota = (group / "cpu.cfs_quota_us").read_text()
        period = (group / "cpu.cfs_period_us").read_text()
        # -1: no quota
        if int(quota) > 0:
            return [math.ceil(int(quota) / int(period))]
    return []


def uses_gpu(args) -> bool:
    """Where there is one: PPO, whose networks wait for its environments, only where it is told to"""
    on_policy = hasattr(args, "num_steps")
    return args.device == ("cuda" if on_policy else "auto")


def start(job: Job, slot: str | None = None) -> subprocess.Popen:
    """Trains a job in a process of its own, which ends with a checkpoint when this one is gone"""
    env = os.environ | {"OMP_NUM_THREADS": "1", "PMOE_PARENT": str(os.getpid())}
    if slot is not None:
        env["CUDA_VISIBLE_DEVICES"] = slot
    words = [*program(), *command(job)]
    job.log.parent.mkdir(parents=True, exist_ok=True)
    with open(job.log, "a") as log:
        return subprocess.Popen(words, stdout=log, stderr=log, env=env, start_new_session=True)


class Workers:
    def __init__(self, grid: Grid, slots: list[str | None], retries: int, patient: bool = True):
        """What works through a grid's jobs; `patient` waits for those that other workers have."""
        self.grid = grid
        self.retries = retries
        self.free = deque(slots)
        self.patient = patient
        self.waiting = deque(grid.jobs)
        self.active: list[Work] = []
        self.failed: list[Job] = []
        self.signals: list[int] = []  # what asked to stop
        self.looked = -PAUSE  # when all that waits was last found to be another worker's
        self.counts = ""  # how many runs are done, running, ...
        self.counted = -PAUSE
        self.shown = -60.0
        self.console = Console(highlight=False, markup=False)

    def run(self) -> int:
        """Until nothing is left to do; returns the exit status: 0 if all runs are done, 1 if some failed,
        TAKEN if some are others', 128 and the signal's number if it was stopped."""
        stops = [signal.SIGINT, signal.SIGTERM]
        # nohup ignores it.
        if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
            stops.append(signal.SIGHUP)
        for number in stops:
            signal.signal(number, self.on_signal)
        try:
            with Live(console=self.console, auto_refresh=False, transient=True) as live:
                self.work(live)
        finally:
            # There are some only after an error in this program itself.
            for work in self.active:
                work.process.terminate()
            # The program is at its end, and has a status.
            for number in stops:
                signal.signal(number, signal.SIG_IGN)
        return self.end()

    def work(self, live: Live) -> None:
        """Until nothing is left to do, or all processes have been stopped"""
        while True:
            try:
                if not self.tick():
                    return
                self.show(live)
                time.sleep(0.2)
            except OSError as error:
                # A shared file system may not answer for a while.
                self.say(f"{error}; going on in {PAUSE:.0f} s")
                time.sleep(PAUSE)

    def end(self) -> int:
        """Says how the grid stands, and returns the exit status."""
        for job in self.failed:
            line = f"failed: {job.name}; its log is {job.log}; without its folder it starts anew"
            self.console.print(line, soft_wrap=True)
        states = status(self.grid.steps)
        print(count(states))
        if self.signals:
            again = shlex.join(["pmoe", *sys.argv[1:]])
            print(f"stopped; the same command goes on: {again}")
            return 128 + self.signals[0]
        if self.failed:
            return 1
        return 0 if set(states.values()) == {"done"} else TAKEN

    def on_signal(self, number: int, _) -> None:
        """The first signal stops; after it, as a cluster or a closing terminal may send others, only Ctrl-C
        counts."""
        if not self.signals or number == signal.SIGINT:
            self.signals.append(number)

    def tick(self) -> bool:
        """Looks after the processes and starts what there is room for; False: nothing is left to do."""
        for work in list(self.active):
            if work.process.poll() is not None:
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
            paths = [path for part in parts for path in part.paths]
            if any(alive(path) for path in paths):
                # Another worker has it, and may die.
                self.waiting.rotate(-1)
                others += 1
                continue
            self.waiting.popleft()
            self.waiting.extendleft(reversed(parts[1:]))
            if parts:
                self.launch(parts[0])
        if self.free:
            self.looked = time.monotonic()
        waits = self.patient and bool(self.waiting)
        return waits or bool(self.active)

    def launch(self, job: Job) -> None:
        slot = self.free.popleft()
        step = checkpoint(job)
        self.active.append(Work(job, start(job, slot), slot))
        where = f" from step {step:,}" if step else ""
        self.say(f"started {job.name}{where}")

    def ended(self, work: Work) -> None:
        """A job whose process has ended is done, or tried again, or failed."""
        job = work.job
        code = work.process.returncode
        if not unfinished(job):
            self.say(f"done {job.name}")
        elif work.asked:
            self.waiting.append(job)
        elif code == TAKEN:
            self.say(f"another worker has {job.name}")
            self.waiting.append(job)
        else:
            self.show_failure(job, code)
            self.retry(replace(job, failures=job.failures + 1), code)

    def show_failure(self, job: Job, code: int) -> None:
        """How a job's process ended, and its last words"""
        how = f"failed with status {code}"
        if code < 0:
            how = f"killed by {signal.Signals(-code).name}"
        self.say(f"{how}: {job.name}; its log ends:")
        with contextlib.suppress(OSError):
            lines = job.log.read_text(errors="replace").splitlines()
            for line in lines[-8:]:
                self.console.print(Text(f"    {line}", "red"), soft_wrap=True)

    def retry(self, job: Job, code: int) -> None:
        """Tries a job again that has failed, unless it has too often, or by bad input (status 2), which stays
        bad."""
        if job.failures <= self.retries and code != 2:
            self.waiting.appendleft(job)
            return
        self.failed.append(job)
        for path in job.paths:
            beside(path, "failed").touch()

    def stop(self) -> bool:
        """Asks every process to write its checkpoint and end, at a second Ctrl-C ends them; False: all have
        ended."""
        wanted = min(len(self.signals), 2)
        for work in self.active:
            if work.asked == wanted:
                continue
            if work.asked:
                work.process.kill()
                self.say(f"killing {work.job.name}")
            else:
                work.process.terminate()
                self.say(f"stopping {work.job.name}")
                if work is self.active[-1]:
                    self.say("waiting for their checkpoints; Ctrl-C again kills them without")
            work.asked += 1
            # The table says so at once: a process may end before its next second.
            self.shown = -60.0
        return bool(self.active)

    # What is shown

    def say(self, text: str) -> None:
        clock = time.strftime("%H:%M:%S")
        self.console.print(f"{clock} {text}", soft_wrap=True)

    def standing(self) -> str:
        """How many runs are done, running, ...; looked up now and then"""
        if time.monotonic() > self.counted + PAUSE:
            self.counts = count(status(self.grid.steps))
            self.counted = time.monotonic()
        return self.counts

    def rows(self) -> list[list[str]]:
        """Name, state, step, evaluation, steps a second and time left of the jobs that run or have failed"""
        rows = []
        for work in self.active:
            job = work.job
            last = progress(job) or {"step": "0", "evaluation": "", "speed": "", "left": ""}
            state = "stopping" if work.asked else "running"
            step = f"{last['step']} of {job.steps:,}"
            rows.append([job.name, state, step, last["evaluation"], last["speed"], last["left"]])
        for job in self.failed:
            rows.append([job.name, "failed", "", "", "", ""])
        return rows

    def table(self) -> Table:
        title = "waiting for checkpoints; Ctrl-C again does not" if self.signals else None
        head = ("job", "state", "step", "evaluation", "steps/s", "left")
        table = Table(*head, title=title, box=None, pad_edge=False)
        for row in self.rows():
            table.add_row(*row)
        table.caption = self.standing()
        return table

    def show(self, live: Live) -> None:
        """The table, each second; without a terminal the same as lines of a log, each minute"""
        pause = 1 if self.console.is_terminal else 60
        if time.monotonic() < self.shown + pause:
            return
        self.shown = time.monotonic()
        if self.console.is_terminal:
            live.update(self.table(), refresh=True)
            return
        for name, state, step, evaluation, speed, left in self.rows():
            if state == "running" and left:
                self.say(f"{name}: step {step}, evaluation {evaluation}, {speed} steps/s, {left} left")
        self.say(self.standing())


# What there is to do, without doing it


def preview(grid: Grid, slots: list) -> None:
    """Prints the commands that are left to run, and how long they take by a measurement of this machine's
    speed."""
    left = []
    for job in grid.jobs:
        left += unfinished(job)
    for job in left:
        options = [f"--{name}" for name in going_on(job.paths)]
        print(shlex.join(["pmoe", *command(job), *options]))
    runs = sum(len(job.paths) for job in left)
    steps = sum(len(job.paths) * steps_left(job) for job in left)
    processes = "1 process" if len(left) == 1 else f"{len(left):,} processes"
    print(f"{runs:,} runs in {processes}, {steps:,} steps", flush=True)
    if not left:
        return
    methods = len({method_of(job) for job in left})
    words = "1 method, up to a minute" if methods == 1 else f"{methods:,} methods, up to a minute for each"
    print(f"measuring the speed of {words}", flush=True)
    seconds = estimate(left)
    alone = clock(seconds)
    at_a_time = min(len(slots), len(left))
    shared = clock(seconds / at_a_time)
    print(f"about {alone} of one process, {shared} of {at_a_time} at a time, without evaluations, if")
    print("each method is as fast on every environment as it was just now on its first")


def clock(seconds: float) -> str:
    """3723 s -> 1:02:03"""
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"


def steps_left(job: Job) -> int:
    """Steps that each seed of a job has still to make"""
    return max(0, job.steps - checkpoint(job))


def estimate(jobs: list[Job]) -> float:
    """Seconds that jobs take one after the other, each method's speed being that of its first job here and
    now. OSError: one of them does not run."""
    speeds = {}
    total = 0.0
    for job in tracked(jobs, "measuring the speed of this machine"):
        method = method_of(job)
        if method not in speeds:
            speeds[method] = measure(job)
        total += steps_left(job) / speeds[method]
    return total


def method_of(job: Job) -> tuple:
    """What decides how fast a job is, but for its environment: no real number, as a temperature is"""
    free = ("env_id", "seed", "total_timesteps", "eval_every", "eval_episodes", "checkpoint_every")
    options = []
    for name, value in vars(job.args).items():
        if name not in free and type(value) is not float:
            options.append((name, value))
    return (job.algo, len(job.paths), *options)


def measure(job: Job) -> float:
    """Steps a second of a job: between the second and the third line of its progress, when it is compiled and
    learns, of a shorter one between the last two or on the whole. OSError: it does not run."""
    with tempfile.TemporaryDirectory() as folder:
        args = replace(job.args, run_dir=folder, eval_every=job.steps)
        paths = [Path(folder, *path.parts[-3:]) for path in job.paths]
        trial = Job(job.algo, args, paths)
        process = start(trial)
        steps = [0]
        times = [time.monotonic()]
        try:
            while process.poll() is None and len(steps) < 4:
                time.sleep(0.02)
                step = step_of(trial)
                if step != steps[-1]:
                    steps.append(step)
                    times.append(time.monotonic())
        finally:
            process.kill()
            process.wait()
        if len(steps) > 1:
            return (steps[-1] - steps[-2]) / (times[-1] - times[-2])
        if process.returncode:
            last = " ".join(trial.log.read_text().split()[-50:])
            raise OSError(f"{job.name} cannot be measured: {last}")
        return job.steps / (time.monotonic() - times[0])


def step_of(job: Job) -> int:
    """The last step that a job's log says, 0 before"""
    last = progress(job)
    return int(last["step"].replace(",", "")) if last else 0
