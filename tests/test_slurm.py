"""`pmoe grid --slurm` and `--print-sbatch`: a pretended Slurm, submitit's local executor, a real Slurm."""

import fcntl
import json
import os
import pickle
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest
from common import ROOT, SHORT, checkpoint, refused, same_run, train
from grid_tools import SAC, STEPS, put, toml, wait

from pmoe import cli
from pmoe.grid import slurm
from pmoe.grid.claims import beside
from pmoe.grid.read import read_grid, status

submitit = pytest.importorskip("submitit")
LONG = SHORT["sac"] | {"total_timesteps": 800, "eval_every": 400}
SCRIPTS = ["--slurm", "--print-sbatch"]


def write(folder: Path, more="", **fields) -> Path:
    """A grid of SAC on Pendulum, a job for each seed"""
    table = {"env": "Pendulum-v1", "run_dir": str(folder / "runs"), "seed": [1, 2]} | fields
    file = folder / "grid.toml"
    file.write_text(toml(table) + more + SAC)
    return file


@pytest.fixture
def sbatch(tmp_path, monkeypatch):
    """What runs in place of `sbatch`; the script that it was given goes to `submitted`."""

    def pretend(script: str) -> Path:
        folder = tmp_path / "bin"
        folder.mkdir(exist_ok=True)
        # submitit takes it that Slurm is where srun is.
        (folder / "srun").write_text("#!/bin/bash\n")
        (folder / "sbatch").write_text(f'#!/bin/bash\ncp "${{@: -1}}" {tmp_path}/submitted\n{script}\n')
        for file in folder.iterdir():
            file.chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
        return tmp_path / "submitted"

    return pretend


def test_without_slurm(pmoe_here, tmp_path, monkeypatch):
    """One line, and nothing on the disk"""
    monkeypatch.setenv("PATH", "")
    write(tmp_path)
    refused(pmoe_here("grid", "grid.toml", "--slurm"), "no sbatch")
    monkeypatch.setitem(sys.modules, "submitit", None)
    refused(pmoe_here("grid", "grid.toml", "--slurm"), "pip install submitit")
    assert [path.name for path in tmp_path.iterdir()] == ["grid.toml"]


def test_what_slurm_refuses(pmoe_here, tmp_path, sbatch):
    sbatch("echo 'sbatch: error: invalid partition specified: nowhere' >&2; exit 1")
    write(tmp_path)
    result = pmoe_here("grid", "grid.toml", "--slurm", "--partition", "nowhere")
    assert result.returncode == 2 and "Traceback" not in result.stderr
    assert re.fullmatch("error: .*invalid partition specified: nowhere", result.stderr.splitlines()[-1])


def options(script: str) -> set[str]:
    return {line.removeprefix("#SBATCH ") for line in script.splitlines() if line.startswith("#SBATCH ")}


@pytest.mark.parametrize("how", SCRIPTS)
def test_options_of_the_file_and_of_the_command_line(pmoe_here, tmp_path, sbatch, how):
    submitted = sbatch("echo Submitted batch job 7")
    write(tmp_path, '[slurm]\npartition = "short"\ntime = 5\nmemory = 3\ngpus = 2\n')
    result = pmoe_here("grid", "grid.toml", how, "--time", 3, "--memory", 4)
    assert result.returncode == 0, result.stderr
    found = options(submitted.read_text() if how == "--slurm" else result.stdout)
    alike = {
        "--partition=short",
        "--time=3",
        "--gpus-per-node=2",
        "--requeue",
        "--open-mode=append",
        "--job-name=grid",
    }
    assert alike <= found and "--cpus-per-task=1" in found
    if how == "--slurm":
        assert {"--array=0-1%2", "--mem=4GB", "--signal=USR2@90"} <= found
        assert "submitted 2 jobs, 7_0 to 7_1" in result.stdout and "pmoe status grid.toml" in result.stdout
    else:
        assert {"--array=0-1", "--mem=4G", "--signal=B:USR1@90"} <= found


@pytest.mark.parametrize("how", SCRIPTS)
def test_defaults(pmoe_here, tmp_path, sbatch, how):
    submitted = sbatch("echo Submitted batch job 7")
    write(tmp_path)
    result = pmoe_here("grid", "grid.toml", how)
    found = options(submitted.read_text() if how == "--slurm" else result.stdout)
    assert {"--time=1440"} <= found and not [x for x in found if x.startswith("--partition")]
    assert any(re.fullmatch("--mem=8GB?", x) for x in found) and any(x.endswith("@120") for x in found)


def leave(file: Path, *left: int) -> None:
    """Jobs that are not in `left` are done, or being trained."""
    for i, job in enumerate(read_grid(file).jobs):
        (path,) = job.paths
        if i in left:
            path.mkdir(parents=True)
        elif i % 2:
            put(path, done=STEPS)
        else:
            path.mkdir(parents=True)
            beside(path, "claim").write_text(json.dumps({"machine": "another", "pid": 1, "token": ""}))


@pytest.mark.parametrize(
    "left, array", [([0, 1, 2, 5, 7, 8], "0-2,5,7-8"), ([4], "4"), (range(9), "0-8")], ids=str
)
def test_the_array_has_what_is_left(pmoe_here, tmp_path, sbatch, left, array):
    submitted = sbatch("echo Submitted batch job 7")
    file = write(tmp_path, seed=[*range(9)])
    leave(file, *left)
    script = pmoe_here("grid", file, "--print-sbatch").stdout
    assert f"--array={array}" in options(script) and f"\n# {len(left)} jobs of " in script
    assert subprocess.run(["bash", "-n"], input=script, text=True, check=False).returncode == 0
    assert pmoe_here("grid", file, "--slurm").returncode == 0
    n = len(left)
    assert (f"--array=0-{n - 1}%{n}" in options(submitted.read_text())) == (n > 1)
    tasks = [pickle.loads(path.read_bytes()).function for path in (tmp_path / "runs/slurm").glob("*.pkl")]
    words = [word for task in tasks for word in task.words]
    assert sorted(word for word in words if word.startswith("--job=")) == [f"--job={i}" for i in left]
    (copy,) = {word for word in words if word.endswith(".toml")}
    assert Path(copy).read_text() == file.read_text()


@pytest.mark.parametrize("how", SCRIPTS)
def test_nothing_is_left(pmoe_here, tmp_path, sbatch, how):
    submitted = sbatch("echo Submitted batch job 7")
    leave(write(tmp_path))
    before = sorted(tmp_path.rglob("*"))
    result = pmoe_here("grid", "grid.toml", how)
    assert result.returncode == 0 and "nothing to submit" in result.stdout + result.stderr
    assert "#SBATCH" not in result.stdout and not submitted.exists() and sorted(tmp_path.rglob("*")) == before


def test_the_same_run_dir_on_the_node(pmoe_here, tmp_path):
    write(tmp_path)
    script = pmoe_here("grid", "grid.toml", "--print-sbatch", "--run-dir", "other runs").stdout
    assert (
        "'--run-dir=other runs'" in script and f"--output='{tmp_path}/other runs/slurm/%A_%a.log'" in script
    )
    assert f"\ncd {tmp_path}\n" in script and len(list(tmp_path.glob("other runs/slurm/grid-*.toml"))) == 1


BAD = 'a\'b "c" $(touch ran) `touch ran` %j {x} --job=N; touch ran #'


def test_names_put_no_commands_into_the_script(pmoe_here, tmp_path):
    """Whatever is in them, bash gives the command its words."""
    folder = tmp_path / BAD
    folder.mkdir()
    file = folder / f"{BAD}.toml"
    write(folder).rename(file)
    result = pmoe_here("grid", file, "--print-sbatch", "--partition", BAD, "--run-dir", BAD)
    assert result.returncode == 0, result.stderr
    assert f"\n#SBATCH --partition={shlex.quote(BAD)}\n" in result.stdout
    assert "%%j" in result.stdout
    show = "#!/bin/bash\n" + 'printf "%s\\n" "$@" >words\n'
    script = result.stdout.replace(shlex.quote(sys.executable), "./show")
    (tmp_path / "show").write_text(show)
    (tmp_path / "show").chmod(0o755)
    env = os.environ | {"SLURM_ARRAY_TASK_ID": "3"}
    subprocess.run(["bash"], input=script, text=True, cwd=tmp_path, env=env, check=True, timeout=60)
    words = (tmp_path / "words").read_text().splitlines()
    (copy,) = (tmp_path / BAD / "slurm").iterdir()
    assert words[2:] == ["grid", str(copy), "--job=3", "--workers=1", "--retries=1", f"--run-dir={BAD}"]
    assert not [*tmp_path.rglob("ran")]


@pytest.mark.parametrize("how", SCRIPTS)
def test_lines_in_names_are_refused(pmoe_here, tmp_path, sbatch, how):
    submitted = sbatch("echo Submitted batch job 7")
    write(tmp_path)
    for partition in ("a\ntouch ran", "a\rb", "\33[2J"):
        refused(pmoe_here("grid", "grid.toml", how, "--partition", partition), "control character")
    write(tmp_path, '[slurm]\npartition = "a\\ntouch ran"\n')
    refused(pmoe_here("grid", "grid.toml", how), "control character")
    write(tmp_path, run_dir="a\nb")
    refused(pmoe_here("grid", "grid.toml", how), "control character")
    refused(pmoe_here("grid", "grid.toml", how, "--run-dir", "a\33b"), "control character")
    file = write(tmp_path).rename(tmp_path / "a\nb.toml")
    refused(pmoe_here("grid", file.name, how), "control character")
    assert not submitted.exists() and sorted(path.name for path in tmp_path.iterdir()) == ["a\nb.toml", "bin"]


@pytest.mark.parametrize("how", SCRIPTS)
def test_lines_in_the_current_folder_are_refused(tmp_path, monkeypatch, capsys, sbatch, how):
    sbatch("echo Submitted batch job 7")
    folder = tmp_path / "a\nb"
    folder.mkdir()
    write(folder, run_dir="runs")
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["pmoe", "grid", "grid.toml", how])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 2
    assert "the current folder" in capsys.readouterr().err


def test_submitit_starts_where_there_are_none_of_the_users_modules(pmoe_here, tmp_path, sbatch):
    """Its `python -m` looks into the current folder first. The command itself starts in the user's."""
    submitted = sbatch("echo Submitted batch job 7")
    write(tmp_path, seed=1)
    assert pmoe_here("grid", "grid.toml", "--slurm").returncode == 0
    assert f"--chdir={tmp_path}/runs/slurm" in options(submitted.read_text())
    (pickled,) = (tmp_path / "runs/slurm").glob("*.pkl")
    task = pickle.loads(pickled.read_bytes()).function
    task.words = ["bash", "-c", "pwd >where"]
    task()
    assert (tmp_path / "where").read_text() == f"{tmp_path}\n"


# The script of --print-sbatch, its command a pretended one


@pytest.fixture
def script(pmoe_here, tmp_path, monkeypatch):
    """Starts the script with a command in place of `pmoe grid`; `scontrol` writes down its words."""
    started = []

    def start(command: str) -> subprocess.Popen:
        monkeypatch.setattr(slurm, "task", lambda *_: ["bash", "-c", command, "bash", "--job=N"])
        (tmp_path / "bin").mkdir()
        (tmp_path / "bin/scontrol").write_text(f'#!/bin/bash\necho "$@" >{tmp_path}/told\n')
        (tmp_path / "bin/scontrol").chmod(0o755)
        write(tmp_path)
        (tmp_path / "script").write_text(pmoe_here("grid", "grid.toml", "--print-sbatch").stdout)
        env = {
            "SLURM_ARRAY_JOB_ID": "7",
            "SLURM_ARRAY_TASK_ID": "3",
            "PATH": f"{tmp_path}/bin:{os.environ['PATH']}",
        }
        started.append(
            subprocess.Popen(["bash", "script"], cwd=tmp_path, env=os.environ | env, start_new_session=True)
        )
        return started[0]

    yield start
    for process in started:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass


WAITS = 'trap "echo saved >saved; exit 143" TERM; echo $1 >begun; while :; do sleep 0.1; done'


@pytest.mark.parametrize("status, ends", [(0, 0), (1, 1), (2, 2), (75, 0)])  # 75: another has the run
def test_the_script_ends_as_its_command(script, tmp_path, status, ends):
    assert script(f"echo $1 >begun; exit {status}").wait(30) == ends
    assert (tmp_path / "begun").read_text() == "--job=3\n" and not (tmp_path / "told").exists()


def test_near_the_time_limit_the_script_saves_and_requeues(script, tmp_path):
    process = script(WAITS)
    wait((tmp_path / "begun").exists)
    process.send_signal(signal.SIGUSR1)
    assert process.wait(30) == 0 and (tmp_path / "saved").exists()
    assert (tmp_path / "told").read_text() == "requeue 7_3\n"


def test_a_script_that_slurm_ends_waits_to_be_killed(script, tmp_path, monkeypatch):
    """As Slurm does it: to every process, first SIGCONT; to end by itself would be to have failed. However
    busy the machine is: here the script pauses once its command has begun."""
    pause = """trap 'case $BASH_COMMAND in child=*) sleep 1;; esac' DEBUG"""
    (tmp_path / "pause").write_text(pause)
    monkeypatch.setenv("BASH_ENV", str(tmp_path / "pause"))
    process = script(WAITS)
    wait((tmp_path / "begun").exists)
    for number in (signal.SIGCONT, signal.SIGTERM):
        os.killpg(process.pid, number)
    wait((tmp_path / "saved").exists)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(2)
    assert not (tmp_path / "told").exists()


# What submitit runs


def test_a_task_ends_as_its_command():
    assert slurm.Task(["true"])() is None and slurm.Task(["bash", "-c", "exit 75"])() is None
    with pytest.raises(RuntimeError, match="exit status 3: bash -c 'exit 3'"):
        slurm.Task(["bash", "-c", "exit 3"])()


@pytest.mark.parametrize("end", ["exit 143", "kill -TERM $$"])
def test_a_task_that_slurm_ends_waits_to_be_killed(end):
    """To return would be to have finished."""

    def alarm(*_):
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, alarm)
    signal.alarm(2)
    try:
        with pytest.raises(TimeoutError):
            slurm.Task(["bash", "-c", end])()
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def test_a_task_saves_at_submitits_signal(tmp_path):
    """Which every process gets, the command too; the handler runs on top of the wait for it."""
    again = []

    class Requeued(Exception):
        pass

    def handler(*_):
        again.append(task.checkpoint())
        raise Requeued

    def tell():
        # While the command starts, a task ignores the signal.
        wait(lambda: (tmp_path / "begun").exists() and signal.getsignal(signal.SIGUSR2) is handler)
        os.kill(task.child.pid, signal.SIGUSR2)
        time.sleep(0.3)
        os.kill(os.getpid(), signal.SIGUSR2)

    task = slurm.Task(["bash", "-c", f"cd {tmp_path}; {WAITS}", "bash", "x"])
    before, thread = signal.signal(signal.SIGUSR2, handler), threading.Thread(target=tell)
    thread.start()
    try:
        with pytest.raises(Requeued):
            task()
    finally:
        signal.signal(signal.SIGUSR2, before)
        thread.join()
    assert (tmp_path / "saved").exists() and task.child.wait(10) == 143
    assert pickle.loads(pickle.dumps(again[0].function)).words == task.words


def steps_from(path: Path) -> list[int]:
    """Where a run's processes began"""
    log = beside(path, "log").read_text()
    return [int(step.replace(",", "")) for step in re.findall(r"from step ([\d,]+)$", log, re.MULTILINE)]


def at_work(path: Path) -> bool:
    """Whether a run is past the checkpoint of its beginning"""
    return any(int(file.stem) > 0 for file in path.glob("checkpoint/[0-9]*.pt"))


def check_resumed(paths: list[Path], folder: Path) -> None:
    """Asserts that each run went on from a checkpoint after it was told to stop, the first as if it had never
    been."""
    for path in paths:
        starts = steps_from(path)
        assert starts[0] == 0
        assert starts[-1] > 0
        assert "stopped at step" in beside(path, "log").read_text()
        assert checkpoint(path)["step"] == LONG["total_timesteps"]
    same_run(paths[0], train("sac", folder / "straight", **LONG)[0])


@pytest.mark.slow
def test_the_local_executor(tmp_path):
    """Saves before the time limit, is submitted again, and finishes."""
    file = write(tmp_path, seed=1, **LONG)
    (path,) = read_grid(file).paths
    executor = submitit.LocalExecutor(tmp_path / "logs", max_num_timeout=20)
    executor.update_parameters(timeout_min=5)
    job = executor.submit(slurm.Task(slurm.task(read_grid(file), slurm.frozen(read_grid(file)), 0, 1)))
    wait(lambda: at_work(path))
    for task in Path(f"/proc/{job.job_id}/task/{job.job_id}/children").read_text().split():
        os.kill(int(task), signal.SIGUSR2)
    assert job.result() is None
    check_resumed([path], tmp_path)


# A real Slurm


@pytest.fixture(scope="module")
def cluster():
    """Of one node, this machine; PMOE_REQUIRE_SLURM in the environment says that it must be possible here."""
    script = ["bash", str(ROOT / "tests/slurm.sh")]
    with open(Path(tempfile.gettempdir()) / "pmoe-tests-slurm.lock", "w") as lock:
        # One machine has one cluster: where tests run side by side, none stops it while another uses it.
        fcntl.flock(lock, fcntl.LOCK_EX)
        started = subprocess.run([*script, "start"], capture_output=True, text=True, check=False)
        if started.returncode:
            why = f"no Slurm here: {started.stderr.strip()}"
            if "PMOE_REQUIRE_SLURM" in os.environ:
                pytest.fail(why)
            pytest.skip(why)
        yield
        subprocess.run([*script, "stop"], check=True)


@pytest.mark.slow
@pytest.mark.parametrize("how", SCRIPTS)
def test_an_array_that_slurm_interrupts(cluster, pmoe, tmp_path, how):
    """One job is requeued while it runs, the other gets the signal of a time limit; both go on and finish."""
    file = write(tmp_path, "[slurm]\nmemory = 1\ntime = 10\n", **LONG)
    steps = read_grid(file).steps
    paths = list(steps)
    result = pmoe("grid", "grid.toml", how)
    assert result.returncode == 0, result.stderr
    if how == "--print-sbatch":
        (tmp_path / "script").write_text(result.stdout)
        result = subprocess.run(["sbatch", tmp_path / "script"], capture_output=True, text=True, check=True)
        number, near = re.search(r"job (\d+)", result.stdout)[1], ["--batch", "--signal=USR1"]
    else:
        number, near = re.search(r"submitted 2 jobs, (\d+)_0 to \1_1;", result.stdout)[1], ["--signal=USR2"]
    left = {paths[0]: ["scontrol", "requeue", f"{number}_0"], paths[1]: ["scancel", *near, f"{number}_1"]}
    while left:  # a busy node runs one after the other
        wait(lambda: any(map(at_work, left)))
        path = next(filter(at_work, left))
        subprocess.run(left.pop(path), check=True)
    assert pmoe("status", "grid.toml").returncode == 1
    wait(lambda: set(status(steps).values()) == {"done"}, 240)
    assert pmoe("status", "grid.toml").returncode == 0
    check_resumed(paths, tmp_path)
    wait(lambda: not subprocess.run(["squeue", "-h"], capture_output=True, check=True).stdout, 60)
