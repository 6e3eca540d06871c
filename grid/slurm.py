"""Hands a grid to Slurm as a job array, through submitit or as a script to submit by hand.

Each task of the array is `pmoe grid FILE --job N`, which starts, resumes or skips, whatever its run needs. Before its
time limit a signal makes it write a checkpoint, and the task is queued again; a pre-empted one is so by Slurm itself.
"""

import contextlib
import hashlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from .claims import TAKEN, alive
from .grid import Grid, GridError, unfinished
from .plots.runs import spans

MARGIN = 120  # seconds before the time limit
STOPPED = 128 + signal.SIGTERM  # exit status of a grid that was told to stop and has written its checkpoint


def options(grid: Grid) -> dict:
    """Slurm's options: minutes, GB, GPUs of a job"""
    seeds = max(len(job.paths) for job in grid.jobs)
    return {"time": 1440, "memory": 4 + 4 * seeds, "gpus": 0} | grid.slurm  # Humanoid's replay takes 3.1 GB a seed


def frozen(grid: Grid) -> Path:
    """A copy of the grid's file, as its jobs are called by their number in it; beside it tasks write their logs"""
    text = grid.file.read_text()
    name = f"{grid.file.stem}-{hashlib.sha256(text.encode()).hexdigest()[:6]}.toml"
    copy = Path(grid.jobs[0].args.run_dir, "slurm", name).absolute()
    copy.parent.mkdir(parents=True, exist_ok=True)
    copy.write_text(text)
    return copy


def task(grid: Grid, copy: Path, job: int | str, retries: int) -> list[str]:
    """The command of one task"""
    words = [sys.executable, "-m", f"{__package__}.cli", "grid", str(copy), f"--job={job}", "--workers=1"]
    return [*words, f"--retries={retries}", *([f"--run-dir={grid.run_dir}"] if grid.run_dir else [])]


def open_jobs(grid: Grid) -> list[int]:
    """The numbers of the jobs that are neither finished nor being trained"""
    return [i for i, job in enumerate(grid.jobs) if unfinished(job) and not any(map(alive, job.paths))]


class Task:
    """What submitit runs on the node, and takes up again after `checkpoint`: a command"""

    def __init__(self, words: list[str]):
        self.words, self.child = words, None

    def __getstate__(self) -> dict:
        return {"words": self.words, "child": None}

    def __call__(self) -> None:
        ignored = signal.signal(signal.SIGUSR2, signal.SIG_IGN)  # srun sends it to all processes; it is for submitit
        self.child = subprocess.Popen(self.words)
        signal.signal(signal.SIGUSR2, ignored)
        code = self.child.wait()
        while code in (STOPPED, -signal.SIGTERM):  # the latter before it could handle it
            time.sleep(1)  # Slurm stopped the command itself, and ends this, too; to return would be to have finished
        if code not in (0, TAKEN):  # another task has the run
            raise RuntimeError(f"exit status {code}: {shlex.join(self.words)}")

    def checkpoint(self):
        """On submitit's signal: ends the command in order and asks for the same again. `wait`, which is interrupted by
        it, holds a lock, so that the end is awaited without Popen."""
        import submitit

        if self.child and self.child.returncode is None:
            self.child.send_signal(signal.SIGTERM)
            with contextlib.suppress(ChildProcessError):  # it has just ended
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
    numbers, asked = open_jobs(grid), options(grid)
    if not numbers:
        return print("nothing to submit: every run is done or being trained")
    copy = frozen(grid)
    folder = copy.parent
    executor = submitit.AutoExecutor(folder, cluster="slurm", slurm_max_num_timeout=10**6)
    executor.update_parameters(
        name=grid.file.stem,
        timeout_min=asked["time"],
        mem_gb=asked["memory"],
        gpus_per_node=asked["gpus"],
        cpus_per_task=1,
        slurm_signal_delay_s=min(MARGIN, asked["time"] * 30),
        slurm_additional_parameters={"requeue": True},
        **({"slurm_partition": asked["partition"]} if "partition" in asked else {}),
    )
    try:
        with executor.batch():
            jobs = [executor.submit(Task(task(grid, copy, number, retries))) for number in numbers]
    except subprocess.CalledProcessError as error:
        raise GridError(f"{error.stderr or error}") from None
    except submitit.core.utils.FailedJobError as error:
        raise GridError(str(error)) from None
    print(f"submitted {len(jobs)} jobs, {jobs[0].job_id} to {jobs[-1].job_id}; their logs are in {folder}")
    print(f"pmoe status {grid.file} says how they stand")


SCRIPT = """\
#!/bin/bash
# {count} jobs of {file}; submit with: sbatch THIS_FILE
#SBATCH --job-name={name}
#SBATCH --array={array}
#SBATCH --cpus-per-task=1
#SBATCH --mem={memory}G
#SBATCH --time={time}
{more}#SBATCH --output={log}
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=B:USR1@{margin}
cd {cwd}
{command} &
child=$! again=
trap 'again=yes; kill $child' USR1  # the time limit is near
trap : TERM CONT                    # Slurm ends the job, and the child has its own signal
while kill -0 $child 2>/dev/null; do wait $child; done
wait $child; status=$?              # the child's: a signal ends a wait, too
[ $again ] && exec scontrol requeue "${{SLURM_ARRAY_JOB_ID}}_$SLURM_ARRAY_TASK_ID"
[ $status = {stopped} ] && sleep infinity  # a pre-empted job that ended by itself would count as failed
[ $status = {taken} ] && exit 0  # another task has the run
exit $status
"""


def print_script(grid: Grid, retries: int) -> None:
    """Prints a job array that does what is left of a grid, for sbatch."""
    numbers, asked = open_jobs(grid), options(grid)
    if not numbers:
        return print("nothing to submit: every run is done or being trained", file=sys.stderr)
    copy = frozen(grid)  # which makes the folder of the logs, as Slurm does not
    more = [f"#SBATCH --partition={asked['partition']}\n"] if "partition" in asked else []
    more += [f"#SBATCH --gpus-per-node={asked['gpus']}\n"] if asked["gpus"] else []
    fields = asked | {"count": len(numbers), "file": grid.file, "more": "".join(more)}
    fields |= {"name": shlex.quote(grid.file.stem), "log": shlex.quote(f"{copy.parent}/%A_%a.log")}
    fields |= {"array": spans(numbers).replace(" ", ""), "cwd": shlex.quote(os.getcwd())}
    fields |= {"margin": min(MARGIN, asked["time"] * 30), "stopped": STOPPED, "taken": TAKEN}
    command = shlex.join(task(grid, copy, "N", retries)).replace("--job=N", '--job="$SLURM_ARRAY_TASK_ID"')
    print(SCRIPT.format(**fields, command=command), end="")
