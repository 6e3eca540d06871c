"""Hands a grid to Slurm as a job array, through submitit or as a script to submit by hand.

Each task of the array is `pmoe grid FILE --job N`, which starts, resumes or skips, whatever its run needs.
Before its time limit a signal makes it write a checkpoint, and the task is queued again; a pre-empted one is
so by Slurm itself.
"""

import contextlib
import hashlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
import unicodedata
from pathlib import Path

from ..terminal import spans
from .claims import TAKEN, alive
from .read import Grid, GridError, Job, program, unfinished

MARGIN = 120  # seconds before the time limit
STOPPED = 128 + signal.SIGTERM  # exit status of a grid that was told to stop and has written its checkpoint


def options(grid: Grid) -> dict:
    """Slurm's options: minutes, GB, GPUs of a job"""
    seeds = max(len(job.paths) for job in grid.jobs)
    memory = 4 + 4 * seeds  # Humanoid's replay takes 3.1 GB a seed
    return {"time": 1440, "memory": memory, "gpus": 0} | grid.slurm


def check(grid: Grid, asked: dict) -> None:
    """Raises where what a script is to name holds a control character, as a newline would begin a command."""
    named = {
        "the grid's file": str(grid.file),
        "--run-dir": grid.jobs[0].args.run_dir,
        "--partition": asked.get("partition", ""),
        "the current folder": os.getcwd(),
    }
    for what, text in named.items():
        kinds = {unicodedata.category(character) for character in text}
        # Controls, halves of characters, separators of lines and paragraphs
        if kinds & {"Cc", "Cs", "Zl", "Zp"}:
            raise GridError(f"{what} cannot be {text!r}: it has a control character")


def margin(minutes: int) -> int:
    """Seconds before the time limit at which a job is told to save"""
    return min(MARGIN, minutes * 30)


def frozen(grid: Grid) -> Path:
    """A copy of the grid's file, as its jobs are called by their number in it; beside it tasks write their
    logs"""
    text = frozen_text(grid)
    digest = hashlib.sha256(text.encode()).hexdigest()
    name = f"{grid.file.stem}-{digest[:6]}.toml"
    run_dir = grid.jobs[0].args.run_dir
    copy = Path(run_dir, "slurm", name).absolute()
    copy.parent.mkdir(parents=True, exist_ok=True)
    copy.write_text(text)
    return copy


def frozen_text(grid: Grid) -> str:
    """The file's text, with the whole paths of forks, as the copy stands in another folder"""
    text = grid.file.read_text()
    for name, file in grid.forks.items():
        whole = json.dumps(str(file), ensure_ascii=False)
        for quoted in (f'"{name}"', f"'{name}'"):
            text = text.replace(quoted, whole)
    return text


def task(grid: Grid, copy: Path, job: int | str, retries: int) -> list[str]:
    """The command of one task"""
    words = [*program(), "grid", str(copy)]
    words += [f"--job={job}", "--workers=1", f"--retries={retries}"]
    if grid.run_dir:
        words.append(f"--run-dir={grid.run_dir}")
    return words


def open_jobs(grid: Grid) -> list[int]:
    """The numbers of the jobs that are neither finished nor being trained"""
    return [i for i, job in enumerate(grid.jobs) if is_open(job)]


def is_open(job: Job) -> bool:
    trained = any(alive(path) for path in job.paths)
    return bool(unfinished(job)) and not trained


class Task:
    """What submitit runs on the node, and takes up again after `checkpoint`: a command"""

    def __init__(self, words: list[str]):
        self.words = words
        self.folder = os.getcwd()
        self.child: subprocess.Popen | None = None

    def __getstate__(self) -> dict:
        return {"words": self.words, "folder": self.folder, "child": None}

    def __call__(self) -> None:
        # srun sends it to all processes, and it is for submitit.
        ignored = signal.signal(signal.SIGUSR2, signal.SIG_IGN)
        self.child = subprocess.Popen(self.words, cwd=self.folder)
        signal.signal(signal.SIGUSR2, ignored)
        code = self.child.wait()
        # Slurm stopped the command itself (-SIGTERM: before it could handle it), and ends this too.
        # To return would be to have finished.
        while code in (STOPPED, -signal.SIGTERM):
            time.sleep(1)
        # TAKEN: another task has the run.
        if code not in (0, TAKEN):
            raise RuntimeError(f"exit status {code}: {shlex.join(self.words)}")

    def checkpoint(self):
        """On submitit's signal: ends the command in order and asks for the same again. `wait`, which is
        interrupted by it, holds a lock, so that the end is awaited without Popen."""
        import submitit

        if self.child and self.child.returncode is None:
            self.child.send_signal(signal.SIGTERM)
            # It may have just ended.
            with contextlib.suppress(ChildProcessError):
                os.waitid(os.P_PID, self.child.pid, os.WEXITED | os.WNOWAIT)
        return submitit.helpers.DelayedSubmission(self)


def submit(grid: Grid, retries: int) -> None:
    """Submits what is left of a grid as one job array. GridError: submitit or Slurm is not there."""
    try:
        import submitit
    except ModuleNotFoundError:
        raise GridError("--slurm needs submitit: pip install submitit") from None
    if not shutil.which("sbatch"):
        raise GridError("--slurm: there is no sbatch on this machine")
    numbers = open_jobs(grid)
    asked = options(grid)
    check(grid, asked)
    if not numbers:
        print("nothing to submit: every run is done or being trained")
        return
    copy = frozen(grid)
    folder = copy.parent
    partition = {"slurm_partition": asked["partition"]} if "partition" in asked else {}
    executor = submitit.AutoExecutor(folder, cluster="slurm", slurm_max_num_timeout=10**6)
    executor.update_parameters(
        name=grid.file.stem,
        timeout_min=asked["time"],
        mem_gb=asked["memory"],
        gpus_per_node=asked["gpus"],
        cpus_per_task=1,
        slurm_signal_delay_s=margin(asked["time"]),
        # Its `python -m submitit` looks for modules in the current folder first: not in the user's.
        slurm_additional_parameters={"requeue": True, "chdir": str(folder)},
        **partition,
    )
    try:
        with executor.batch():
            tasks = [Task(task(grid, copy, number, retries)) for number in numbers]
            jobs = [executor.submit(each) for each in tasks]
    except subprocess.CalledProcessError as error:
        raise GridError(f"{error.stderr or error}") from None
    except submitit.core.utils.FailedJobError as error:
        raise GridError(str(error)) from None
    first, last = jobs[0].job_id, jobs[-1].job_id
    print(f"submitted {len(jobs)} jobs, {first} to {last}; their logs are in {folder}")
    print(f"pmoe status {grid.file} says how they stand")


SCRIPT = """\
#!/bin/bash
# {count} jobs of {file}; submit with: sbatch THIS_FILE
#SBATCH --job-name={name}
#SBATCH --array={array}
#SBATCH --cpus-per-task=1
#SBATCH --mem={memory}G
#SBATCH --time={time}
{extra}#SBATCH --output={log}
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=B:USR1@{margin}
cd {cwd}
again=
trap 'again=yes; kill $child' USR1  # the time limit is near
trap : TERM CONT                    # Slurm ends the job, and the child has its own signal
{command} &
child=$!
while kill -0 $child 2>/dev/null; do wait $child; done
wait $child; status=$?              # the child's: a signal ends a wait, too
[ $again ] && exec scontrol requeue "${{SLURM_ARRAY_JOB_ID}}_$SLURM_ARRAY_TASK_ID"
[ $status = {stopped} ] && sleep infinity  # a pre-empted job that ended by itself would count as failed
[ $status = {taken} ] && exit 0  # another task has the run
exit $status
"""


def print_script(grid: Grid, retries: int) -> None:
    """Prints a job array that does what is left of a grid, for sbatch."""
    numbers = open_jobs(grid)
    asked = options(grid)
    check(grid, asked)
    if not numbers:
        print("nothing to submit: every run is done or being trained", file=sys.stderr)
        return
    copy = frozen(grid)  # which makes the folder of the logs, as Slurm does not
    words = [shlex.quote(word) for word in task(grid, copy, "N", retries)]
    number = words.index("--job=N")
    words[number] = '--job="$SLURM_ARRAY_TASK_ID"'
    folder = str(copy.parent).replace("%", "%%")  # % begins what Slurm fills in
    extra = ""
    if "partition" in asked:
        extra += f"#SBATCH --partition={shlex.quote(asked['partition'])}\n"
    if asked["gpus"]:
        extra += f"#SBATCH --gpus-per-node={asked['gpus']}\n"
    script = SCRIPT.format(
        count=len(numbers),
        file=grid.file,
        name=shlex.quote(grid.file.stem),
        array=spans(numbers).replace(" ", ""),
        memory=asked["memory"],
        time=asked["time"],
        extra=extra,
        log=shlex.quote(f"{folder}/%A_%a.log"),
        margin=margin(asked["time"]),
        cwd=shlex.quote(os.getcwd()),
        command=" ".join(words),
        stopped=STOPPED,
        taken=TAKEN,
    )
    print(script, end="")
