"""Hands a grid to Slurm as a job array, through submitit or as a script to submit by hand.

Each task of the array is `pmoe grid FILE --job N`, which starts, resumes or skips, whatever its run needs. Before its
time limit a signal makes it write a checkpoint, and the task is queued again; a pre-empted one is so by Slurm itself.
"""

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from .claims import holder
from .grid import Grid, GridError, unfinished
from .plots.runs import spans

DEFAULTS = {"time": 1440, "memory": 8, "gpus": 0}  # minutes, GB
MARGIN = 120  # seconds before the time limit
STOPPED = 128 + signal.SIGTERM  # exit status of a grid that was told to stop and has written its checkpoint


def task(grid: Grid, job: int, run_dir: str | None) -> list[str]:
    words = [
        sys.executable,
        "-m",
        f"{__package__}.cli",
        "grid",
        str(grid.file.absolute()),
        f"--job={job}",
        "--workers=1",
    ]
    return words + ([f"--run-dir={run_dir}"] if run_dir else [])


def to_do(grid: Grid) -> list[int]:
    """The numbers of the jobs that are neither finished nor being trained"""
    alive = [any((holder(path) or {}).get("alive") for path in job.paths) for job in grid.jobs]
    return [i for i, job in enumerate(grid.jobs) if unfinished(job) and not alive[i]]


class Task:
    def __init__(self, words: list[str]):
        """What submitit runs on the node, and takes up again after `checkpoint`: a command."""
        self.words, self.child = words, None

    def __getstate__(self) -> dict:
        return {"words": self.words, "child": None}

    def __call__(self) -> None:
        ignored = signal.signal(signal.SIGUSR2, signal.SIG_IGN)  # srun sends it to all processes; it is for submitit
        self.child = subprocess.Popen(self.words)
        signal.signal(signal.SIGUSR2, ignored)
        code = self.child.wait()
        while code == STOPPED:
            time.sleep(1)  # Slurm stopped the command itself, and ends this, too; to return would be to have finished
        if code:
            raise RuntimeError(f"exit status {code}: {shlex.join(self.words)}")

    def checkpoint(self):
        """On submitit's signal: ends the command in order and asks for the same again. `wait`, which is interrupted by
        it, holds a lock, so that the end is awaited without Popen."""
        import submitit

        if self.child and self.child.returncode is None:
            self.child.send_signal(signal.SIGTERM)
            os.waitid(os.P_PID, self.child.pid, os.WEXITED | os.WNOWAIT)
        return submitit.helpers.DelayedSubmission(self)


def submit(grid: Grid, run_dir: str | None) -> None:
    """Submits what is left of a grid as one job array. GridError: submitit or Slurm is not there."""
    try:
        import submitit
    except ModuleNotFoundError:
        raise GridError("--slurm needs submitit: pip install 'pmoe[slurm]'") from None
    if not shutil.which("sbatch"):
        raise GridError("--slurm: there is no sbatch on this machine; --print-sbatch writes a script for another one")
    numbers, options = to_do(grid), DEFAULTS | grid.slurm
    if not numbers:
        return print("nothing to submit: every run is done or being trained")
    folder = Path(grid.jobs[0].args.run_dir, "slurm")
    executor = submitit.AutoExecutor(folder, cluster="slurm", slurm_max_num_timeout=10**6)
    executor.update_parameters(
        name=grid.file.stem,
        timeout_min=options["time"],
        mem_gb=options["memory"],
        gpus_per_node=options["gpus"],
        cpus_per_task=1,
        slurm_signal_delay_s=min(MARGIN, options["time"] * 30),
        slurm_additional_parameters={"requeue": True},
        **({"slurm_partition": options["partition"]} if "partition" in options else {}),
    )
    try:
        with executor.batch():
            jobs = [executor.submit(Task(task(grid, number, run_dir))) for number in numbers]
    except subprocess.CalledProcessError as error:
        raise GridError(f"sbatch: {error.stderr or error}") from None
    except submitit.core.utils.FailedJobError as error:
        raise GridError(f"sbatch: {error}") from None
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
{more}#SBATCH --output={folder}/%A_%a.log
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=B:USR1@{margin}
cd {cwd}
{command} &
child=$! again=
trap 'again=yes; kill $child' USR1  # the time limit is near
trap : TERM CONT                    # Slurm ends the job, and the child has its own signal
while kill -0 $child 2>/dev/null; do wait $child; status=$?; done
[ $again ] && exec scontrol requeue "${{SLURM_ARRAY_JOB_ID}}_$SLURM_ARRAY_TASK_ID"
[ $status = {stopped} ] && sleep infinity  # a pre-empted job that ended by itself would count as failed
exit $status
"""


def print_script(grid: Grid, run_dir: str | None) -> None:
    """Prints a job array that does what is left of a grid, for sbatch."""
    numbers, options = to_do(grid), DEFAULTS | grid.slurm
    more = [f"#SBATCH --partition={options['partition']}\n"] if "partition" in options else []
    more += [f"#SBATCH --gpus-per-node={options['gpus']}\n"] if options["gpus"] else []
    folder = Path(grid.jobs[0].args.run_dir, "slurm").absolute()
    folder.mkdir(parents=True, exist_ok=True)  # Slurm does not make it
    fields = options | {"count": len(numbers), "file": grid.file, "name": grid.file.stem, "more": "".join(more)}
    fields |= {"array": spans(numbers).replace(" ", ""), "folder": folder, "cwd": shlex.quote(os.getcwd())}
    fields |= {"margin": min(MARGIN, options["time"] * 30), "stopped": STOPPED}
    command = shlex.join(task(grid, 0, run_dir)).replace("--job=0", '--job="$SLURM_ARRAY_TASK_ID"')
    print(SCRIPT.format(**fields, command=command), end="")
