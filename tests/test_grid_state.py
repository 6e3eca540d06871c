"""What of a grid is on the disk: what is left of a job, `pmoe status`."""

import dataclasses
import json
import os
import re
import shutil
from pathlib import Path

import pytest
import torch
from common import MODULES, checkpoint
from grid_tools import SAC, STEPS, put, read, text_of, write_done

from pmoe import cli
from pmoe.files import last_step, read_speed
from pmoe.grid.claims import beside
from pmoe.grid.read import as_it_stands, command, finished, going_on, progress, reached, unfinished


@pytest.fixture
def job(tmp_path):
    """Of four seeds, none of which has begun"""
    shared = {"seed": [1, 2, 3, 4], "seeds_per_process": 4, "run_dir": str(tmp_path)}
    (job,) = read(tmp_path, text_of(shared, [{"algo": "sac", "gamma": 0.9}])).jobs
    return job


@pytest.mark.parametrize(
    "steps, parts",
    [
        ([None] * 4, ["1-4"]),
        (["done"] * 4, []),
        (["shorter"] * 4, ["1-4 --resume"]),  # finished, when fewer steps were asked for
        (["done", "shorter", [300], None], ["2-3 --resume", "4-4"]),
        (["shorter", [100], "done", "shorter"], ["1-1 --resume", "2-2 --resume", "4-4 --resume"]),
        ([[100]] * 4, ["1-4 --resume"]),
        (["done", [100], [100], "done"], ["2-3 --resume"]),
        ([[100], "done", [100], [100]], ["1-1 --resume", "3-4 --resume"]),
        ([[100], [200], [200], [300]], ["1-1 --resume", "2-3 --resume", "4-4 --resume"]),
        ([[100, 200], [100], [100], [100, 200]], ["1-4 --resume"]),  # killed between two seeds' checkpoints
        ([[100, 200], [200], [100], [200]], ["1-2 --resume", "3-3 --resume", "4-4 --resume"]),
        ([[], [], None, None], ["1-4 --overwrite"]),  # killed before the first checkpoint
        ([[], [0], [0], None], ["1-1 --overwrite", "2-3 --resume", "4-4"]),
        ([[100], None, "done", []], ["1-1 --resume", "2-2", "4-4 --overwrite"]),
    ],
    ids=str,
)
def test_what_is_left(job, steps, parts):
    module = MODULES["sac"]
    for path, stands in zip(job.paths, steps):
        if stands == "done":
            put(path, STEPS, done=STEPS)
        elif stands == "shorter":
            put(path, 300, done=300)
        elif stands is not None:
            put(path, *stands)
    found = []
    for part in unfinished(job):
        words = command(part)
        args = cli.parse(module.Args, words[2:], "sac")
        mode = going_on(part.paths)
        assert args == dataclasses.replace(job.args, seed=args.seed, num_seeds=len(part.paths))
        assert module.run_paths(args) == part.paths
        assert as_it_stands(module, args) == dataclasses.replace(args, **mode)
        last = args.seed + args.num_seeds - 1
        found.append(" ".join([f"{args.seed}-{last}", *(f"--{name}" for name in mode)]))
    assert found == parts


def test_what_has_changed_since_the_worker_looked(job):
    """Is another's, whose process has ended before this one's claim"""
    put(job.paths[1], done=STEPS)
    with pytest.raises(SystemExit) as stop:
        as_it_stands(MODULES["sac"], job.args)
    assert stop.value.code == 75


# What stands on the disk


def write_config(path: Path, total: int = STEPS) -> None:
    args = {"env_id": "Hopper-v4", "k": 4, "seed": 1, "total_timesteps": total}
    (path / "config.json").write_text(json.dumps({"algo": "sac", "args": args}))


def states(folder: Path) -> dict[Path, str]:
    """A directory for each state"""
    place = folder / "runs/Hopper-v4/sac-k4"
    put(place / "seed1", STEPS, done=STEPS)
    put(place / "seed2", 100)
    put(place / "seed3", 100)
    put(place / "seed4", 100)
    beside(place / "seed2", "claim").write_text(json.dumps({"machine": "another", "pid": 1, "token": ""}))
    beside(place / "seed3", "claim").write_text(json.dumps({"machine": "another", "pid": 1, "token": ""}))
    os.utime(beside(place / "seed3", "claim"), (0, 0))
    beside(place / "seed4", "failed").touch()
    beside(place / "seed4", "log").touch()
    put(place / "seed5", 100)
    put(place / "seed6", 100, done=100)  # fewer steps than a grid asks for
    for path in place.glob("seed?"):
        write_config(path)
    (place / "seed9/checkpoint").mkdir(parents=True)  # finished, as its done.json has it
    write_done(place / "seed9")
    (place / "seed9/config.json").write_text("{")
    beside(place / "seed7", "claim").write_text("")
    wanted = ["done", "running", "stale", "failed", "stopped", "stopped", "running", "missing"]
    wanted.append("damaged")
    return {place / f"seed{i}": state for i, state in enumerate(wanted, 1)}


def test_status(pmoe_here, tmp_path):
    wanted = {str(path.relative_to(tmp_path)): state for path, state in states(tmp_path).items()}
    (tmp_path / "grid.toml").write_text("seed = [1, 2, 3, 4, 5, 6, 7, 8, 9]\n" + SAC)
    result = pmoe_here("status", "grid.toml", "--json")
    assert result.returncode == 1
    assert json.loads(result.stdout) == wanted
    result = pmoe_here("status", "grid.toml")
    assert result.returncode == 1
    assert "1 done, 2 running, 1 failed, 1 stale, 2 stopped, 1 damaged, 1 missing\n" in result.stdout
    assert re.search(r"Hopper-v4 +sac-k4 +1 +2, 7 +4 +3 +5-6 +9 +8 *\n", result.stdout)
    # Not that of seed 7, which has no config.json yet
    assert re.search(r"Hopper-v4 +sac-k4 +2 +running +100 of 1,000,000 \(0%\) +- *\n", result.stdout)


def test_status_shows_step_and_time_left(pmoe_here, tmp_path, quick_run):
    """Of what runs by its newest line, of what would go on by its checkpoint; at the speed until there"""
    (tmp_path / "runs/Pendulum-v1/sac-k2").mkdir(parents=True)
    for seed in (1, 2, 3):
        path = tmp_path / f"runs/Pendulum-v1/sac-k2/seed{seed}"
        shutil.copytree(quick_run("sac"), path)
        (path / "done.json").unlink()
        write_config(path, 1000)
    taken = checkpoint(path)["wall_time"]
    beside(path, "claim").write_text(json.dumps({"machine": "another", "pid": 1, "token": ""}))
    with open(path / "episodes.csv", "a") as file:
        file.write("600,-1,200\n8")  # half a line
    assert reached(path, "running", 1000) == (600, pytest.approx(400 / 400 * taken))
    assert reached(path, "stopped", 1000) == (400, pytest.approx(600 / 400 * taken))
    result = pmoe_here("status")
    assert result.returncode == 1
    assert "1 running, 2 stopped\n" in result.stdout
    left = r"\d+:\d\d:\d\d"
    assert re.search(rf"1-2 +stopped +400 of 1,000 \(40%\) +{left} *\n", result.stdout)
    assert re.search(rf"3 +running +600 of 1,000 \(60%\) +{left} *\n", result.stdout)
    (newest,) = path.glob("checkpoint/[0-9]*.pt")
    whole = newest.read_bytes()
    torch.save({"step": 1, "wall_time": 9e11}, newest)
    assert "days" in pmoe_here("status").stdout
    # A checkpoint that is damaged, or the first, says nothing of the speed.
    newest.write_bytes(whole[:1000])
    assert reached(path, "stopped", 1000) == (400, None)
    newest.rename(newest.with_name("0000000000.pt"))
    assert reached(path, "stopped", 1000) == (0, None)
    assert reached(tmp_path / "none", "running", 1000) == (0, None)


class Evil:
    def __reduce__(self):
        return os.mkdir, ("called",)


def test_nothing_of_a_checkpoint_is_called(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "0000000100.pt"
    torch.save({"step": 100, "wall_time": 2.0, "more": Evil()}, file)
    assert read_speed(file) == (100, 2.0)
    assert [each.name for each in tmp_path.iterdir()] == [file.name]


def test_status_of_a_folder(pmoe_here, tmp_path):
    """Which does not know of the grid: what is finished is done, what is missing is not known."""
    wanted = {str(path.relative_to(tmp_path)): state for path, state in states(tmp_path).items()}
    wanted["runs/Hopper-v4/sac-k4/seed6"] = "done"
    del wanted["runs/Hopper-v4/sac-k4/seed8"]
    result = pmoe_here("status", "--json")
    assert result.returncode == 1
    assert json.loads(result.stdout) == wanted


@pytest.mark.parametrize("path", ["grid.toml", "runs", "runs/Hopper-v4", "runs/Hopper-v4/sac-k4"])
@pytest.mark.parametrize("missing", [True, False])
def test_status_is_0_if_all_is_done(pmoe_here, tmp_path, path, missing):
    for seed in (1, 2):
        put(tmp_path / f"runs/Hopper-v4/sac-k4/seed{seed}", STEPS, done=STEPS)
        write_config(tmp_path / f"runs/Hopper-v4/sac-k4/seed{seed}")
    (tmp_path / "grid.toml").write_text(f"seed = [1, 2{', 3' * missing}]\n" + SAC)
    result = pmoe_here("status", path)
    assert result.returncode == int(missing and path == "grid.toml")
    assert "2 done" in result.stdout


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"step": "many"}'], ids=repr)
def test_a_damaged_done_json_is_not_done(tmp_path, text):
    put(tmp_path, 100)
    (tmp_path / "done.json").write_text(text)
    assert not finished(tmp_path, 100)


def test_the_last_step_of_a_long_file(tmp_path):
    """Of which the end is read: it begins amid a line, and at another digit for each length"""
    file = tmp_path / "episodes.csv"
    for more in range(40):
        lines = [f"{step},0.0011053439283,1\n" for step in range(1, 300)]
        file.write_text("".join(lines) + f"300,0.{'1' * more}2,1\n301,0.00")
        assert last_step(file) == 300


# What a log says


@pytest.mark.parametrize(
    "line, shown",
    [
        (
            "step 1,000 of 1,000,000 (0%)  return -  evaluation -  52 steps/s  5:20:18 left",
            ("1,000", "-", "52", "5:20:18"),
        ),
        (
            "step 20,000 of 1,000,000 (2%)  return -12  evaluation -34  178 steps/s  1:32:10 left",
            ("20,000", "-34", "178", "1:32:10"),
        ),
        (
            "step 3,000 of 9,000 (33%)  return 3 (1 to 7)  evaluation 300 (250 to 350)  9 steps/s  0:11 left",
            ("3,000", "300 (250 to 350)", "9", "0:11"),
        ),
        (
            "step 1,000 of 9,999,999 (0%)  return 1  evaluation 2  9 steps/s  12 days, 20:35:22 left",
            ("1,000", "2", "9", "12 days, 20:35:22"),
        ),
    ],
)
def test_the_last_line_of_progress(job, line, shown):
    assert progress(job) is None
    job.log.parent.mkdir(parents=True)
    job.log.write_text("compiling\n")
    assert progress(job) is None
    earlier = "step 10 of 1,000 (1%)  return 1  evaluation 1  1 steps/s  0:00:01 left\n"
    job.log.write_text(f"{earlier}{line}\nstopped at step 20,001; the same command with --resume goes on\n")
    assert tuple(progress(job).values()) == shown
