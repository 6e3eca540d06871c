"""`pmoe grid`, `pmoe status` and `pmoe plot FILE.toml`: what a file asks for, what is left of it, and the runner."""

import dataclasses
import fcntl
import io
import itertools
import json
import os
import pty
import random
import re
import shlex
import signal
import subprocess
import sys
import termios
import threading
import time
import typing
from pathlib import Path

import gymnasium as gym
import pytest
import torch
from common import ALGORITHMS, MODULES, PMOE, ROOT, SHORT, Toy, checkpoint, refused, same_run, train
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console

from pmoe import cli, grid, workers
from pmoe.claims import beside
from pmoe.grid import GridError, Job, as_it_stands, command, going_on, run_paths, unfinished
from pmoe.workers import places

gym.register("deep/Toy-v0", Toy)
GRIDS = sorted(path.name for path in ROOT.glob("grids/*.toml"))


def toml(table: dict) -> str:
    return "".join(f"{name} = {json.dumps(value)}\n" for name, value in table.items())


def text_of(shared: dict, methods: list[dict], more: str = "") -> str:
    return toml(shared) + more + "".join("[[method]]\n" + toml(method) for method in methods)


def read(folder: Path, text: str):
    file = folder / "grid.toml"
    file.write_text(text)
    return grid.read(file, cli.ALGORITHMS)


def each(job: Job) -> list[tuple]:
    """Algorithm and options of each of a job's runs"""
    seeds = range(job.args.seed, job.args.seed + job.args.num_seeds)
    return [(job.algo, *vars(dataclasses.replace(job.args, seed=seed, num_seeds=1)).values()) for seed in seeds]


def wait(what, seconds=120) -> None:
    """Until something is so; fails if it does not become so"""
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.02)


# What a file asks for

VALUES = {
    "k": st.integers(1, 3),
    "seed": st.integers(0, 6),
    "env": st.sampled_from(["Pendulum-v1", "Hopper-v4", "Hopper-v5", "deep/Toy-v0"]),
    "gamma": st.sampled_from([0.9, 1, 1.0, 0.99]),
    "total_timesteps": st.sampled_from([1000, 2000]),
    "tag": st.sampled_from(["", "", "", "mine"]),
}
TABLES = st.fixed_dictionaries(
    {}, optional={name: value | st.lists(value, min_size=1, max_size=3) for name, value in VALUES.items()}
)


METHODS = st.lists(st.tuples(st.sampled_from([*ALGORITHMS]), TABLES), min_size=1, max_size=3)


@settings(deadline=None, max_examples=150)
@given(shared=TABLES, methods=METHODS, together=st.integers(1, 3))
def test_every_combination_is_there_once_in_a_directory_of_its_own(tmp_path_factory, shared, methods, together):
    asked, twice = {}, False  # what is asked for, and where it goes
    for algo, method in methods:
        axes = {name: x if isinstance(x, list) else [x] for name, x in ({"seed": 1} | shared | method).items()}
        mine = set()
        for values in itertools.product(*axes.values()):
            fields = dict(zip(axes, values))
            fields |= {"gamma": float(fields["gamma"])} if "gamma" in fields else {}  # 1 is 1.0
            args = MODULES[algo].Args(**({"env_id": fields.pop("env")} if "env" in fields else {}), **fields)
            mine.add((run_paths(algo, args)[0], (algo, *vars(args).values())))
        twice |= bool(mine & set(asked.items()))
        for path, what in mine:
            asked.setdefault(path, what)
            asked[path] = asked[path] if asked[path] == what else None  # two in one place
    tables = [{"algo": algo} | method for algo, method in methods]
    text = text_of({"seeds_per_process": together} | shared, tables)
    try:
        wanted = read(tmp_path_factory.getbasetemp(), text)
    except GridError as error:
        two = re.search(r"grid.toml:\d+: runs/\S+ would be of two methods; give one of them a tag$", str(error))
        assert two or re.search(r"grid.toml:\d+: runs/\S+ is asked for twice, beside other seeds$", str(error))
        assert None in asked.values() if two else twice and together > 1
        return
    assert None not in asked.values()
    found = [(path, run) for job in wanted.jobs for path, run in zip(job.paths, each(job), strict=True)]
    assert len(set(wanted.paths)) == len(wanted.paths) and dict(found) == asked
    for job in wanted.jobs:
        assert len(job.paths) <= together
        assert [path.name for path in job.paths] == [f"seed{job.args.seed + i}" for i in range(len(job.paths))]


def test_environments_with_options(tmp_path):
    envs = ["TargetReaching-v0", "TargetReaching-v0,fixed_layout=2", "TargetReaching-v0,fixed_layout=2,obstacles=0"]
    wanted = read(tmp_path, text_of({"env": [*envs, "common:ToyTerminates-v0,length=3"]}, [{"algo": "sac"}]))
    folders = [path.parent.parent.name for path in wanted.paths]
    assert folders == [*envs, "common:ToyTerminates-v0,length=3"] and len(set(wanted.paths)) == 4
    assert [f"--env={env}" for env in envs] == [command(job)[2] for job in wanted.jobs[:3]]
    with pytest.raises(GridError, match="grid.toml:1: TargetReaching-v7,fixed_layout=2: .*v7"):
        read(tmp_path, text_of({"env": "TargetReaching-v7,fixed_layout=2"}, [{"algo": "sac"}]))


def test_order_and_seeds_that_follow_each_other(tmp_path):
    text = 'seed = [8, 2, 1, 3, 7, 2]\nseeds_per_process = 2\nk = [2, 1]\n[[method]]\nalgo = "sac"\n'
    names = [job.name for job in read(tmp_path, text + '[[method]]\nalgo = "ppo"\nk = 3\n').jobs]
    ends = ["seed1-2", "seed3", "seed7-8"]
    places = ["Hopper-v4/sac-k2", "Hopper-v4/sac-k1", "HalfCheetah-v4/ppo-k3"]
    assert names == [f"{place}/{end}" for place in places for end in ends]


def values(hint) -> st.SearchStrategy:
    """Of an option, as TOML has them; whole numbers for some that need not be"""
    kinds = typing.get_args(hint) if typing.get_origin(hint) not in (None, typing.Literal) else (hint,)
    each = {
        int: st.integers(1, 10**6),
        float: st.floats(0, 1) | st.integers(0, 1),
        bool: st.booleans(),
        str: st.sampled_from(["", "x", "a/b", "-v", "--k=3", "two words", "ü = 'q'"]),
    }
    return st.one_of(*(each.get(kind, st.sampled_from(typing.get_args(kind) or [None])) for kind in kinds))


@pytest.mark.parametrize("algo", ALGORITHMS)
def test_directories_and_commands_are_those_of_the_algorithms(tmp_path_factory, monkeypatch, algo):
    """`Runs` makes the directories that the grid has foreseen, and the command line gives the Args that it has read."""
    module = MODULES[algo]
    hints = typing.get_type_hints(module.Args)
    own = ("env_id", "seed", "num_seeds", "run_dir", "resume", "overwrite", "track")
    options = {name: values(hint).filter(lambda x: x is not None) for name, hint in hints.items() if name not in own}
    envs = st.sampled_from(["Pendulum-v1", "deep/Toy-v0"])
    handlers = [(number, signal.getsignal(number)) for number in (signal.SIGINT, signal.SIGTERM)]
    monkeypatch.setattr(os, "popen", lambda _: io.StringIO())  # git, of which config.json tells

    @settings(deadline=None, max_examples=8, suppress_health_check=[HealthCheck.too_slow])
    @given(table=st.fixed_dictionaries({}, optional=options), env=envs, n=st.integers(1, 2))
    def check(table, env, n):
        folder = tmp_path_factory.mktemp("runs")
        shared = {"env": env, "seed": [*range(3, 3 + n)], "seeds_per_process": 2, "run_dir": str(folder / "a=b c")}
        (job,) = read(folder, text_of(shared, [{"algo": algo} | table])).jobs
        words = command(job)
        assert words[:2] == ["run", algo] and cli.parse(module.Args, words[2:], algo) == job.args
        made = module.Runs(job.args, torch.device("cpu"))
        for writer in made.writers:
            writer.close()
        for number, handler in handlers:
            signal.signal(number, handler)
        assert made.paths == job.paths and len(made.paths) == n and all(path.is_dir() for path in job.paths)

    check()


def test_another_run_dir(tmp_path):
    text = 'env = "Pendulum-v1"\nrun_dir = "mine"\n[[method]]\nalgo = "sac"\n'
    assert read(tmp_path, text).paths == [Path("mine/Pendulum-v1/sac-k4/seed1")]
    other = grid.read(tmp_path / "grid.toml", cli.ALGORITHMS, "other")
    assert other.paths == [Path("other/Pendulum-v1/sac-k4/seed1")]


# What is wrong with a file

SAC = '[[method]]\nalgo = "sac"\n'
BAD = [
    ("k = 3\nk = ", 2, ["Invalid value"]),
    ("k = 3\n[[method]\n", 2, ["Expected"]),
    (SAC + "k = 1\nk = 2\n", 4, ["overwrite"]),
    ("", 1, ["[[method]]"]),
    ("k = 3\n", 1, ["[[method]]"]),
    ('\n[method]\nalgo = "sac"\n', 2, ["[[method]]"]),
    ("method = 3\n", 1, ["[[method]]"]),
    ('k = 3\n[[method]]\nalgo = "sca"\n', 3, ["'sca'", "nearest: sac"]),
    ("k = 3\n[[method]]\nk = 3\n", 2, ["needs an algo"]),
    ('[[method]]\nalgo = ["sac", "sca"]\n', 2, ["'sca'"]),
    ("[[method]]\nalgo = [[]]\n", 2, ["[]"]),
    ('k = 3\nmethod = [{algo = "sca"}]\n', 2, ["'sca'"]),
    (SAC + "lerning_rate = 1e-3\n", 3, ["'lerning_rate'", "nearest: learning_rate"]),
    (SAC + "lerning-rate = 1e-3\n", 3, ["'lerning-rate'", "nearest: learning_rate"]),
    (SAC + '"lerning-rate" = 1e-3\n', 3, ["'lerning-rate'"]),
    ("alpha = 0.1\n" + SAC + '[[method]]\nalgo = "ppo"\n', 1, ["no option 'alpha'"]),
    ("k = 3\n" + SAC + "[[method]]  # K\nalgo = 'ppo'\n  alpha = 0.1\n", 6, ["no option 'alpha'"]),
    (SAC + "num_seeds = 2\n", 3, ["num_seeds"]),
    (SAC + "resume = true\n", 3, ["resume"]),
    (SAC + 'k = "4"\n', 3, ['k cannot be "4"', "a whole number"]),
    (SAC + "k = 4.0\n", 3, ["4.0", "a whole number"]),
    (SAC + "k = [1, 2.5]\n", 3, ["2.5", "a whole number"]),
    (SAC + "k = true\n", 3, ["true", "a whole number"]),
    (SAC + "k = {a = 1}\n", 3, ["a whole number"]),
    (SAC + "k = [[1]]\n", 3, ["a whole number"]),
    (SAC + 'alpha = "warm"\n', 3, ['"warm"', "a number", "'auto'"]),
    (SAC + "detach_router = 1\n", 3, ["true or false"]),
    (SAC + 'backprop = ["max", "some"]\n', 3, ["'max' or 'all'"]),
    (SAC + "k = []\n", 3, ["[]"]),
    ("seed = []\n" + SAC, 1, ["seed", "[]"]),
    (SAC + "batch_size = 16\nbatch-size = 32\n", 3, ["batch_size", "twice"]),
    (SAC + 'env = "Hopper-v4"\nenv_id = "Hopper-v5"\n', 3, ["env_id", "twice"]),
    (SAC + "k = [4, 0]\n", 3, ["--k", "from 1", "not 0"]),
    (SAC + "seed = -1\n", 3, ["--seed", "not -1"]),
    ("seed = [1, -1]\n" + SAC, 1, ["--seed", "not -1"]),
    (SAC + "gamma = nan\n", 3, ["--gamma", "nan"]),
    ("gamma = 2\n" + SAC + "gamma = 0.9\n" + SAC, 1, ["--gamma", "2.0"]),
    ("gamma = 0.9\n" + SAC + SAC + "gamma = 2\n", 6, ["--gamma", "2.0"]),
    (SAC + "[[method]]\nalgo = 'sac'\nlearning-rate = 3\n", 5, ["--learning-rate", "3.0"]),
    (SAC + "'learning-rate' = 3\n", 3, ["--learning-rate", "3.0"]),
    (SAC + "learning_rate = 3\n", 3, ["--learning-rate", "3.0"]),
    ('env = "Hoper-v4"\n' + SAC, 1, ["Hoper", "Did you mean: `Hopper`"]),
    (SAC + 'env-id = ["Hopper-v4", "Hopper-v99"]\n', 3, ["Hopper-v99", "`v4`"]),
    (SAC + 'env = "nothing:Hopper-v4"\n', 3, ["nothing:Hopper-v4"]),
    ("[plot]\nauc = true\nreferense = 'SAC'\n" + SAC, 3, ["[plot]", "'referense'", "nearest: reference"]),
    ("[plot]\nauc = 1\n" + SAC, 2, ["auc", "true or false"]),
    ("plot = 3\n" + SAC, 1, ["plot"]),
    ("[slurm]\nmemry = 3\n" + SAC, 2, ["[slurm]", "nearest: memory"]),
    ("[slurm]\ntime = 0\n" + SAC, 2, ["time", "a whole number from 1"]),
    ("[slurm]\ngpus = -1\n" + SAC, 2, ["gpus", "a whole number from 0"]),
    ("seeds_per_process = 0\n" + SAC, 1, ["seeds_per_process", "a whole number from 1"]),
    ("seeds_per_process = [1, 2]\n" + SAC, 1, ["seeds_per_process"]),
    (SAC + SAC + "checkpoint_every = 7\n", 4, ["Hopper-v4/sac-k4/seed1", "two methods", "tag"]),
    ('tag = "x"\n' + SAC + "gamma = [0.9, 0.99]\n", 3, ["sac-k4-x/seed1", "two methods", "tag"]),
]


@pytest.mark.parametrize("text, line, words", BAD, ids=[repr(text) for text, _, _ in BAD])
def test_a_bad_file(pmoe_here, tmp_path, text, line, words):
    (tmp_path / "grid.toml").write_text(text)
    for name in ("grid", "status", "plot"):
        refused(pmoe_here(name, "grid.toml"), f"error: grid.toml:{line}: ", *words)
    assert [path.name for path in tmp_path.iterdir()] == ["grid.toml"]


@pytest.mark.parametrize(
    "command, words",
    [
        ("grid nothing.toml", ["nothing.toml cannot be read (No such file"]),
        ("grid .", [". cannot be read (Is a directory)"]),
        ("grid latin.toml", ["latin.toml cannot be read (not UTF-8)"]),
        ("grid latin.toml --slurm", ["not UTF-8"]),
        ("grid", ["FILE.toml"]),
        ("grid good.toml --workers 0", ["--workers"]),
        ("grid good.toml --retries -1", ["--retries"]),
        ("grid good.toml --time 0 --slurm", ["--time"]),
        ("grid good.toml --time 5", ["--time is for --slurm"]),
        ("grid good.toml --job 1", ["good.toml has jobs 0 to 0"]),
        ("grid good.toml --wrokers 2", ["--wrokers", "--workers"]),
        ("status nothing.toml", ["nothing.toml: no such file"]),
        ("status", ["runs: no such file"]),
        ("status empty", ["empty: no run there"]),
        ("plot good.toml", ["nothing to draw yet"]),
        ("plot nothing.toml", ["nothing.toml"]),
    ],
)
def test_bad_input(pmoe_here, tmp_path, command, words):
    (tmp_path / "latin.toml").write_bytes(b'tag = "\xfc"\n' + SAC.encode())
    (tmp_path / "good.toml").write_text(SAC)
    (tmp_path / "empty").mkdir()
    result = pmoe_here(*command.split())
    if command == "plot good.toml":
        result.stdout = ""  # it says how many runs have begun
    refused(result, *words)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "good.toml", "latin.toml"]


def test_a_bad_file_in_a_process_of_its_own(pmoe, tmp_path):
    (tmp_path / "grid.toml").write_text(SAC + "lerning_rate = 1\n")
    refused(pmoe("grid", "grid.toml"), "grid.toml:3: ", "nearest: learning_rate")
    assert [path.name for path in tmp_path.iterdir()] == ["grid.toml"]


# The project's own grids

MUJOCO = ["Ant-v4", "Hopper-v4", "Walker2d-v4", "Humanoid-v4", "HumanoidStandup-v4", "HalfCheetah-v4"]
PAPER_SAC = {env: {"HumanoidStandup-v4": 10, "HalfCheetah-v4": 2}.get(env, 4) for env in MUJOCO}
PAPER_PPO = {env: 8 if "Humanoid" in env else 4 for env in MUJOCO}
TABLE_2 = {env: {("sac", 1), *((x, k) for x in ("sac", "mcp-sac", "gating-sac"))} for env, k in PAPER_SAC.items()}
CONTENT = {  # methods and K, by environment; seeds; options that are not the defaults
    "table2.toml": (TABLE_2, 5, {}),
    "released_code.toml": (
        TABLE_2,
        5,
        {"learning_rate": {3e-4}, "batch_size": {256}, "alpha": {"auto"}},
    ),
    "table3.toml": ({env: {("dac", 4), ("mcp-ppo", k), ("ppo", k)} for env, k in PAPER_PPO.items()}, 5, {}),
    "table4.toml": ({"HumanoidStandup-v4": {("sac", k) for k in (2, 4, 8, 10, 14, 16)}}, 5, {}),
    "table5.toml": ({"Hopper-v4": {("sac", 1), ("sac", 4), ("gating-sac", 4), ("mcp-sac", 4)}}, 5, {}),
    "figure3.toml": (
        {"TargetReaching-v0,fixed_layout=2": {("sac", 1), ("gating-sac", 4), ("sac", 4)}},
        3,
        {"total_timesteps": {25_000}, "random_steps": {1000}, "eval_every": {2000}, "learning_rate": {3e-4}}
        | {"keep_replay": {True}, "backprop": {"max", "all"}},
    ),
    "figure11.toml": (
        {env: {(x, PAPER_SAC[env]) for x in ("sac", "gumbel-sac", "reinforce-sac")} for env in MUJOCO[1::3]},
        5,
        {},
    ),
    "figure12.toml": ({"HalfCheetah-v4": {("ppo", 1), ("ppo", 4)}}, 5, {}),
    "figure13.toml": (
        {"HumanoidStandup-v4": {("sac", 1), ("sac", 4), ("sac", 10)}},
        5,
        {"alpha": {0.2, 1.0, 10.0}},
    ),
    "mrp.toml": (
        {env: {("sac", 1), *((x, 5) for x in ("sac", "mrp-sac", "reinforce-sac", "gumbel-sac"))} for env in MUJOCO},
        5,
        {"alpha": {"auto"}},
    ),
    "quick.toml": (
        {env: {("dac", 4), ("mcp-ppo", 4), ("ppo", 4)} for env in ("HalfCheetah-v4", "Hopper-v4")},
        3,
        {"total_timesteps": {300_000}},
    ),
}


def test_the_grids_are_those_of_the_table():
    assert GRIDS == sorted(CONTENT)


@pytest.fixture(params=GRIDS)
def own_grid(request):
    if request.param == "figure3.toml" and "TargetReaching-v0" not in gym.registry:
        pytest.skip("Gymnasium does not know TargetReaching-v0 here")
    return grid.read(ROOT / "grids" / request.param, cli.ALGORITHMS)


def test_a_grid_opens_with_what_it_costs(own_grid):
    """So many runs and steps, and the hours of so many steps a second: of PPO a thousand"""
    first, *more = own_grid.file.read_text().splitlines()[:4]
    second = next(line for line in more if " runs, " in line)
    pattern = (
        r"# ([\d,]+) runs, ([\d,]+) steps: about ([\d,]+) hours? of one core at ([\d,]+) steps a second; --dry-run .+"
    )
    runs, steps, hours, speed = (int(x.replace(",", "")) for x in re.fullmatch(pattern, second).groups())
    assert re.match(r"# .*(Table|Figure|MRP)", first, re.IGNORECASE) and "arXiv" in first
    assert runs == len(own_grid.paths) == len(set(own_grid.paths))
    assert steps == sum(job.args.total_timesteps * len(job.paths) for job in own_grid.jobs)
    assert hours == round(steps / speed / 3600)
    assert {speed == 1000 for _ in own_grid.jobs} == {hasattr(job.args, "num_steps") for job in own_grid.jobs}


def test_a_grid_has_what_it_reproduces(own_grid):
    methods, seeds, others = CONTENT[own_grid.file.name]
    found = {}
    for job in own_grid.jobs:
        found.setdefault(job.args.env_id, set()).add((job.algo, job.args.k))
    assert found == methods
    by_method = {}
    for path in own_grid.paths:
        by_method.setdefault(path.parent, []).append(path.name)
    assert all(names == [f"seed{i + 1}" for i in range(seeds)] for names in by_method.values())
    free = ("env_id", "k", "seed", "num_seeds")
    for job in own_grid.jobs:
        changed = {n: x for n, x in vars(job.args).items() if n not in free and x != getattr(type(job.args), n)}
        assert all(x in others[name] for name, x in changed.items())
    for name, wanted in others.items():
        assert {getattr(job.args, name, None) for job in own_grid.jobs} - {None} == wanted


def test_a_tag_that_another_configuration_has(tmp_path):
    """On the disk, from before the file was changed"""
    text = text_of({"run_dir": str(tmp_path), "tag": "x"}, [{"algo": "sac", "gamma": 0.9}])
    (path,) = read(tmp_path, text).paths
    path.mkdir(parents=True)
    (path / "config.json").write_text(json.dumps({"args": vars(read(tmp_path, text).jobs[0].args)}))
    assert read(tmp_path, text).paths == [path]
    with pytest.raises(GridError, match="grid.toml:2: .*seed1 was run with another gamma; give it another tag"):
        read(tmp_path, text.replace("0.9", "0.8"))


# What is left of a job


@pytest.fixture
def job(tmp_path):
    """Of four seeds, none of which has begun"""
    shared = {"seed": [1, 2, 3, 4], "seeds_per_process": 4, "run_dir": str(tmp_path)}
    (job,) = read(tmp_path, text_of(shared, [{"algo": "sac", "gamma": 0.9}])).jobs
    return job


def put(path: Path, *steps: int, done=False) -> None:
    """A run directory with checkpoints"""
    (path / "checkpoint").mkdir(parents=True)
    for step in steps:
        (path / f"checkpoint/{step:010}.pt").touch()
    if done:
        (path / "done.json").touch()


@pytest.mark.parametrize(
    "steps, parts",
    [
        ([None] * 4, ["1-4"]),
        (["done"] * 4, []),
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
    for path, mine in zip(job.paths, steps):
        if mine is not None:
            put(path, *([] if mine == "done" else mine), done=mine == "done")
    found = []
    for part in unfinished(job):
        args, mode = cli.parse(MODULES["sac"].Args, command(part)[2:], "sac"), going_on(part.paths)
        assert args == dataclasses.replace(job.args, seed=args.seed, num_seeds=len(part.paths))
        assert run_paths("sac", args) == part.paths and as_it_stands("sac", args) == dataclasses.replace(args, **mode)
        found.append(f"{args.seed}-{args.seed + args.num_seeds - 1}" + "".join(f" --{x}" for x in mode if mode[x]))
    assert found == parts


def test_what_has_changed_since_the_worker_looked(job):
    """Is another's, whose process has ended before this one's claim"""
    put(job.paths[1], done=True)
    with pytest.raises(SystemExit) as stop:
        as_it_stands("sac", job.args)
    assert stop.value.code == 75


# What stands on the disk


def states(folder: Path) -> dict[Path, str]:
    """A directory for each state"""
    place = folder / "runs/Hopper-v4/sac-k4"
    put(place / "seed1", 100, done=True)
    put(place / "seed2", 100)
    put(place / "seed3", 100)
    put(place / "seed4", 100)
    beside(place / "seed2", "claim").write_text(json.dumps({"machine": "another", "pid": 1, "token": ""}))
    beside(place / "seed3", "claim").write_text(json.dumps({"machine": "another", "pid": 1, "token": ""}))
    os.utime(beside(place / "seed3", "claim"), (0, 0))
    beside(place / "seed4", "failed").touch()
    beside(place / "seed4", "log").touch()
    put(place / "seed5", 100)
    for path in place.glob("seed?"):
        (path / "config.json").touch()
    beside(place / "seed7", "claim").write_text("")
    wanted = ["done", "running", "stale", "failed", "stopped", "missing", "running"]
    return {place / f"seed{i + 1}": state for i, state in enumerate(wanted)}


def test_status(pmoe_here, tmp_path):
    wanted = {str(path.relative_to(tmp_path)): state for path, state in states(tmp_path).items()}
    (tmp_path / "grid.toml").write_text("seed = [1, 2, 3, 4, 5, 6, 7]\n" + SAC)
    result = pmoe_here("status", "grid.toml", "--json")
    assert result.returncode == 1 and json.loads(result.stdout) == wanted
    result = pmoe_here("status", "--json")
    assert result.returncode == 1
    assert json.loads(result.stdout) == {path: state for path, state in wanted.items() if state != "missing"}
    result = pmoe_here("status", "grid.toml")
    assert result.returncode == 1 and "1 done, 2 running, 1 failed, 1 stale, 1 stopped, 1 missing\n" in result.stdout
    assert re.search(r"Hopper-v4 +sac-k4 +1 +2, 7 +4 +3 +5 +6 *\n", result.stdout)


@pytest.mark.parametrize("path", ["grid.toml", "runs", "runs/Hopper-v4", "runs/Hopper-v4/sac-k4"])
@pytest.mark.parametrize("missing", [True, False])
def test_status_is_0_if_all_is_done(pmoe_here, tmp_path, path, missing):
    for seed in (1, 2):
        put(tmp_path / f"runs/Hopper-v4/sac-k4/seed{seed}", 100, done=True)
        (tmp_path / f"runs/Hopper-v4/sac-k4/seed{seed}/config.json").touch()
    (tmp_path / "grid.toml").write_text(f"seed = [1, 2{', 3' * missing}]\n" + SAC)
    result = pmoe_here("status", path)
    assert result.returncode == int(missing and path == "grid.toml") and "2 done" in result.stdout


# The runner, with children that only pretend

PRETEND = 'for run; do mkdir -p "$run"; echo {} >"$run/done.json"; done'


@pytest.fixture
def pretend(pmoe_here, tmp_path, monkeypatch):
    """Runs a grid of n seeds whose jobs are a script's, with their run directories as arguments."""

    def run(script: str, *words, seeds=4, more=""):
        (tmp_path / "grid.toml").write_text(f"seed = {[*range(1, seeds + 1)]}\n{more}" + SAC)
        (tmp_path / "python").write_text(f"#!/bin/bash\nshift 2\n{script}\n")
        (tmp_path / "python").chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
        monkeypatch.setattr(workers, "PAUSE", 0.1)
        monkeypatch.setattr(workers, "command", lambda job: [*map(str, job.paths)])
        return pmoe_here("grid", "grid.toml", *words)

    return run


def journal(folder: Path) -> list[str]:
    return (folder / "journal").read_text().splitlines()


@pytest.mark.parametrize("n", [1, 3])
def test_as_many_at_a_time_as_there_are_workers(pretend, tmp_path, n):
    result = pretend(f"echo 1 >>journal; sleep 0.3; {PRETEND}; echo -1 >>journal", "--workers", n, seeds=6)
    assert result.returncode == 0 and "6 done\n" in result.stdout
    assert max(itertools.accumulate(map(int, journal(tmp_path)))) == n


def test_the_children_have_a_thread_each_and_know_their_parent(pretend, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert pretend(f"echo $OMP_NUM_THREADS $PMOE_PARENT >>journal; {PRETEND}", seeds=2).returncode == 0
    assert journal(tmp_path) == [f"1 {os.getpid()}"] * 2


@pytest.mark.parametrize(
    "gpus, visible, algo, workers, per_gpu, expected",
    [
        (0, None, "sac", None, 1, [None] * 3),
        (0, "", "sac", 4, 1, [None] * 4),
        (0, "0,1", "sac", 4, 1, [None] * 4),
        (2, None, "sac", None, 1, ["0", "1"]),
        (2, None, "sac", None, 2, ["0", "1", "0"]),  # no more than there are cores
        (2, None, "sac", 4, 2, ["0", "1", "0", "1"]),
        (2, None, "sac", 3, 1, ["0", "1", "0"]),
        (2, "5,GPU-7", "sac", None, 2, ["5", "GPU-7", "5"]),
        (2, None, "ppo", None, 1, [None] * 3),  # whose device is the CPU unless it is told otherwise
    ],
)
def test_places(monkeypatch, tmp_path, gpus, visible, algo, workers, per_gpu, expected):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(3))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert places(read(tmp_path, text_of({}, [{"algo": algo}])), workers, per_gpu) == expected


def test_gpus_are_shared_out(pretend, tmp_path, monkeypatch):
    """Never more than --per-gpu on one"""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(8))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    script = f"echo $CUDA_VISIBLE_DEVICES 1 >>journal; sleep 0.3; {PRETEND}; echo $CUDA_VISIBLE_DEVICES -1 >>journal"
    assert pretend(script, "--per-gpu", 2, seeds=8).returncode == 0
    for gpu in "01":
        changes = [int(line.split()[1]) for line in journal(tmp_path) if line.split()[0] == gpu]
        assert max(itertools.accumulate(changes)) == 2


@pytest.mark.parametrize("status, retries, starts", [(1, 0, 1), (1, 2, 3), (139, 1, 2), (143, 1, 2), (2, 5, 1)])
def test_what_fails_is_tried_again(pretend, tmp_path, status, retries, starts):
    """But bad input; its last words are shown, and the others go on."""
    script = f"case $1 in */seed2) echo $1 >>journal; seq 20; echo alas; exit {status};; *) {PRETEND};; esac"
    result = pretend(script, "--retries", retries, "--workers", 1)
    assert result.returncode == 1 and len(journal(tmp_path)) == starts
    assert (
        result.stdout.count(f"failed with status {status}: Hopper-v4/sac-k4/seed2; its log ends:\n    14\n") == starts
    )
    assert result.stdout.count("    alas\n") == starts
    assert "failed: Hopper-v4/sac-k4/seed2; its log is runs/Hopper-v4/sac-k4/seed2.log; without" in result.stdout


def test_what_fails_once_is_done_in_the_end(pretend):
    assert pretend(f"mkdir $1.tried || {{ {PRETEND}; exit; }}; kill -9 $$").returncode == 0


def test_what_another_worker_has_is_waited_for(pretend, tmp_path):
    """Both what it has taken at the last moment, exit status 75, and what it has had for long"""
    place = tmp_path / "runs/Hopper-v4/sac-k4"
    place.mkdir(parents=True)
    claim = beside(place / "seed2", "claim")
    claim.write_text(json.dumps({"machine": "another", "pid": 1, "token": "its"}))
    threading.Timer(1.5, claim.unlink).start()
    script = f"[ ! -e $1.claim ] || echo twice >>journal; mkdir $1.tried || {{ {PRETEND}; exit; }}; exit 75"
    result = pretend(script, "--retries", 0)
    assert result.returncode == 0 and "failed" not in result.stdout and not (tmp_path / "journal").exists()


def test_what_another_worker_has_done_is_not_started(pretend, tmp_path):
    path = tmp_path / "runs/Hopper-v4/sac-k4/seed1"
    path.parent.mkdir(parents=True)
    claim = beside(path, "claim")
    claim.write_text(json.dumps({"machine": "another", "pid": 1, "token": "its"}))

    def finish():
        put(path, done=True)
        claim.unlink()

    threading.Timer(1, finish).start()
    result = pretend("exit 1", seeds=1)
    assert result.returncode == 0 and "started" not in result.stdout


def test_a_dead_claim_holds_nobody_up(pretend, tmp_path):
    claim = beside(tmp_path / "runs/Hopper-v4/sac-k4/seed1", "claim")
    claim.parent.mkdir(parents=True)
    claim.write_text("")
    os.utime(claim, (0, 0))
    assert pretend(f"{PRETEND}; rm -f $1.claim").returncode == 0


@pytest.mark.parametrize(
    "numbers, status",
    [
        (["SIGINT"], 130),
        (["SIGTERM"], 143),
        (["SIGHUP"], 129),
        (["SIGTERM", "SIGTERM", "SIGHUP"], 143),
        (["SIGINT", "SIGINT"], 130),
    ],
    ids=str,
)
def test_a_signal_stops_the_children(pretend, tmp_path, numbers, status):
    """They end in their own time; at a second Ctrl-C they are killed. Nothing more is started."""
    script = 'echo $$ >>journal; trap "sleep 1.5; echo saved >>journal; exit 143" TERM; while :; do sleep 0.1; done'
    kill = numbers == ["SIGINT", "SIGINT"]
    if kill:
        script = 'echo $$ >>journal; trap "" TERM; exec sleep 60'

    def stop():
        wait(lambda: (tmp_path / "journal").exists() and len(journal(tmp_path)) == 2)
        for number in numbers:
            os.kill(os.getpid(), signal.Signals[number])
            time.sleep(0.5)

    thread = threading.Thread(target=stop)
    thread.start()
    begun = time.monotonic()
    result = pretend(script, "--workers", 2)
    thread.join()
    assert result.returncode == status and time.monotonic() - begun < 20
    assert result.stdout.endswith("4 missing\nstopped; the same command goes on: pmoe grid grid.toml --workers 2\n")
    lines = journal(tmp_path)
    assert lines.count("saved") == (0 if kill else 2) and result.stdout.count("started") == 2
    for pid in lines[:2]:
        with pytest.raises(ProcessLookupError):
            os.kill(int(pid), 0)


def test_the_table(job, tmp_path):
    wanted = grid.Grid(tmp_path / "grid.toml", [job], {}, {}, None)
    lines = ["step 1000  return 3  evaluation 4  100 steps/s", "step 2000  return -12  evaluation -34  50 steps/s", "?"]
    job.log.parent.mkdir(parents=True)
    job.log.write_text("\n".join(lines))
    console, runner = Console(record=True, width=120), workers.Workers(wanted, [None], 0)
    runner.active = [workers.Work(job, None, None)]
    console.print(runner.table())
    shown = console.export_text()
    assert re.search(
        rf"Hopper-v4/{job.paths[0].parent.name}/seed1-4 +running +2,000 of 1,000,000 +-34 +50 +5:32:40 *\n", shown
    )
    assert "4 missing" in shown


# The runner, with real runs


def tiny(run_dir: Path, *algos, more="", **shared) -> str:
    """A grid of quick runs on Pendulum"""
    common = {"env": "Pendulum-v1", "run_dir": str(run_dir)} | shared
    return text_of(common, [{"algo": algo} | SHORT[algo] | {"seed": [1, 2]} | shared for algo in algos], more)


def start(folder: Path, *words, **kwargs) -> subprocess.Popen:
    """`pmoe grid grid.toml --workers 2` in a process of its own, its output in a file, `out`"""
    with open(folder / "out", "a") as out:
        command = [PMOE, "grid", "grid.toml", "--workers", "2", *words]
        return subprocess.Popen(command, cwd=folder, stdout=out, stderr=out, **kwargs)


def children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def below(folder: Path) -> dict[Path, bytes]:
    return {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """The file of a grid that has been run, of two methods and two seeds side by side, its output beside it"""
    folder = tmp_path_factory.mktemp("finished")
    more = '[plot]\nauc = true\nreference = "sac-k2"\n'
    file = folder / "grid.toml"
    file.write_text(tiny(folder / "runs", "sac", "ppo", more=more).replace("[plot]", "seeds_per_process = 2\n[plot]"))
    assert start(folder).wait(300) == 0, (folder / "out").read_text()
    return file


def test_a_grid_from_start_to_finish(finished, tmp_path):
    """Runs as `pmoe run` makes them, two to a process"""
    out, folder = (finished.parent / "out").read_text(), finished.parent
    assert out.count("started") == out.count("done Pendulum-v1/") == 2 and out.endswith("\n4 done\n")
    assert len(list(folder.glob("runs/*/*/seed1.log"))) == 2 and not list(folder.glob("runs/*/*/seed2.log"))
    for algo in ("sac", "ppo"):
        for path in train(algo, tmp_path / "runs", num_seeds=2):
            same_run(path, folder / path.relative_to(tmp_path))


@pytest.mark.parametrize("words", [[], ["--dry-run"], ["--print-sbatch"]])
def test_a_finished_grid_is_left_alone(finished, pmoe_here, words):
    before = below(finished.parent)
    result = pmoe_here("grid", finished, *words)
    assert result.returncode == 0 and below(finished.parent) == before
    assert result.stdout == {(): "4 done\n", ("--dry-run",): "0 runs in 0 processes, 0 steps\n"}.get((*words,), "")


def test_a_finished_grid_is_done(finished, pmoe_here):
    for path in (finished, finished.parent / "runs"):
        assert pmoe_here("status", path).returncode == 0
        states = json.loads(pmoe_here("status", path, "--json").stdout)
        assert [*states.values()] == ["done"] * 4 and all(Path(run).is_dir() for run in states)


def test_plot_draws_what_there_is(finished, pmoe_here, tmp_path, monkeypatch):
    """With the options of [plot]"""
    monkeypatch.setenv("COLUMNS", "200")
    result = pmoe_here("plot", finished, "--out", "figures")
    assert result.returncode == 0 and f"{finished}: 4 of its 4 runs have begun" in result.stdout
    drawn = {path.relative_to(tmp_path / "figures") for path in tmp_path.glob("figures/**/*.*")}
    assert {"png", "pdf", "csv", "md", "tex"} <= {path.suffix[1:] for path in drawn}
    assert "P(better than PMOE-SAC K=2)" in result.stdout
    more = tmp_path / "more.toml"
    more.write_text(re.sub(r"\[plot\][^[]*", "", finished.read_text().replace("seed = [1, 2]", "seed = [2, 3]")))
    result = pmoe_here("plot", more, "--out", "others")
    assert result.returncode == 0 and f"{more}: 2 of its 4 runs have begun" in result.stdout
    others = {path.relative_to(tmp_path / "others") for path in tmp_path.glob("others/**/*.*")}
    assert others and others < drawn


def test_plot_draws_before_the_reference_has_begun(finished, pmoe_here, tmp_path):
    more = tmp_path / "more.toml"
    more.write_text(finished.read_text().replace("sac-k2", "sac-k1") + SAC + "k = 1\nseed = 1\n")
    assert pmoe_here("plot", more).returncode == 0


def test_a_run_that_fails(pmoe_here, tmp_path, monkeypatch):
    """It is tried again from its checkpoint, its last words are shown, the others go on, and a later start takes it up
    again."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "tests"))
    fields = {"eval_every": 1000, "total_timesteps": 300}
    envs = ["common:ToyBreaks-v0", "Pendulum-v1"]  # the first after 130 steps of each process
    (tmp_path / "grid.toml").write_text(tiny(tmp_path / "runs", "sac", env=envs, seed=1, **fields))
    result = pmoe_here("grid", "grid.toml", "--workers", 2)
    assert result.returncode == 1 and "1 done, 1 failed" in result.stdout
    (log,) = tmp_path.glob("runs/common*/*/seed1.log")
    assert re.findall(r"is not finite at step (\d)\d\d;", log.read_text()) == ["1", "2"]
    assert len(re.findall(r"failed with status 1: .*\n(?:    .*\n)*    error: .* is not finite at", result.stdout)) == 2
    assert "seed1 from step 100\n" in result.stdout
    states = json.loads(pmoe_here("status", "grid.toml", "--json").stdout)
    assert list(states.values()) == ["failed", "done"]
    result = pmoe_here("grid", "grid.toml")
    assert result.returncode == 0 and "seed1 from step 200\n" in result.stdout and "2 done\n" in result.stdout
    assert pmoe_here("status", "grid.toml").returncode == 0 and not list(tmp_path.rglob("*.failed"))


def test_ctrl_c_in_a_terminal(tmp_path):
    """The children end with checkpoints, although the terminal does not tell them; the table is live."""
    (tmp_path / "grid.toml").write_text(tiny(tmp_path / "runs", "ppo", total_timesteps=10**6, checkpoint_every=10**6))
    terminal, end = pty.openpty()

    def control():
        os.setsid()
        fcntl.ioctl(end, termios.TIOCSCTTY, 0)

    env = os.environ | {"COLUMNS": "120", "LINES": "40", "TERM": "xterm"}
    kwargs = {"stdin": end, "stdout": end, "stderr": end, "preexec_fn": control, "cwd": tmp_path, "env": env}
    process = subprocess.Popen([PMOE, "grid", "grid.toml", "--workers", "2"], **kwargs)
    os.close(end)
    shown, workers = bytearray(), set()

    def listen():
        try:
            while data := os.read(terminal, 4096):
                shown.extend(data)
        except OSError:  # the other end is closed
            pass

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    wait(
        lambda: (
            re.search(rb"seed1 +running +\d\S* of 1,000,000 .*\n.*seed2 +running +\d\S* of 1,000,000", shown)
            or process.poll()
        )
    )
    wait(lambda: len(list(tmp_path.glob("runs/*/*/*/checkpoint/*0.pt"))) == 2)
    workers = children(process.pid)
    os.write(terminal, b"\x03")
    assert process.wait(60) == 130 and len(workers) == 2 and not any(map(alive, workers))
    thread.join(10)
    text = shown.decode()
    assert "steps/s" in text and "waiting for checkpoints" in text
    end = "2 stopped\r\nstopped; the same command goes on: pmoe grid grid.toml --workers 2\r\n"
    assert text.endswith(end)
    for path in tmp_path.glob("runs/*/*/seed[12]"):
        assert checkpoint(path)["step"] > 0
    assert len(list(tmp_path.glob("runs/*/*/seed[12]"))) == 2 and not list(tmp_path.rglob("*.claim"))


LONG = {"total_timesteps": 600, "checkpoint_every": 50, "eval_every": 300}


def same_runs(run_dir: Path, other: Path) -> None:
    """`same_run` of each of the four below two run_dirs"""
    paths = sorted(run_dir.glob("*/*/seed?"))
    assert len(paths) == 4
    for path in paths:
        same_run(path, other / path.relative_to(run_dir))


def at_work(folder: Path) -> bool:
    """Whether a run is past the checkpoint of its beginning"""
    return any(int(file.stem) > 0 for file in folder.glob("runs/*/*/*/checkpoint/*.pt"))


@pytest.fixture(scope="module")
def straight_seconds(tmp_path_factory) -> tuple[Path, float]:
    """The runs of a grid that nothing has interrupted, and the seconds it took"""
    folder, began = tmp_path_factory.mktemp("straight"), time.monotonic()
    (folder / "grid.toml").write_text(tiny(folder / "runs", "sac", "ppo", **LONG))
    assert start(folder).wait(600) == 0, (folder / "out").read_text()
    return folder / "runs", time.monotonic() - began


@pytest.fixture(scope="module")
def straight(straight_seconds) -> Path:
    return straight_seconds[0]


@pytest.mark.slow
@pytest.mark.parametrize("begun", [True, False])
@pytest.mark.parametrize("how", ["SIGINT", "SIGTERM", "SIGINT twice", "SIGKILL", "SIGKILL of a child"])
def test_stopped_at_any_moment_and_started_again_is_as_never_stopped(tmp_path, straight_seconds, how, begun):
    straight, seconds = straight_seconds
    (tmp_path / "grid.toml").write_text(tiny(tmp_path / "runs", "sac", "ppo", **LONG))
    rng = random.Random(f"{how} {begun}")
    status = {"SIGINT": 130, "SIGTERM": 143, "SIGINT twice": 130, "SIGKILL": -9}
    process = start(tmp_path, "--retries", "3")
    wait(lambda: at_work(tmp_path) if begun else children(process.pid))
    time.sleep(rng.uniform(0, seconds / 2))  # where the machine is fast, the last have ended by then
    workers = children(process.pid)
    if how == "SIGKILL of a child":
        for pid in workers[:1]:
            os.kill(pid, signal.SIGKILL)
        early = workers and not list(tmp_path.rglob("done.json"))  # what was killed had not done its work
        assert process.wait(600) == 0 and (not early or "killed by SIGKILL" in (tmp_path / "out").read_text())
    else:
        process.send_signal(signal.Signals[how.split()[0]])
        if how == "SIGINT twice":
            time.sleep(rng.uniform(0.3, 1))
            process.send_signal(signal.SIGINT)
        assert process.wait(60) in (status[how], 0)
        wait(lambda: not any(map(alive, workers)), 60)  # without a runner they notice by themselves
        assert start(tmp_path).wait(600) == 0
    same_runs(tmp_path / "runs", straight)
    assert not [path for path in tmp_path.rglob("*") if path.suffix in (".claim", ".failed", ".burial")]


@pytest.mark.slow
def test_two_runners_at_once(tmp_path, straight):
    """Every job is run once, and both end when all are done."""
    (tmp_path / "grid.toml").write_text(tiny(tmp_path / "runs", "sac", "ppo", **LONG))
    processes = [start(tmp_path), start(tmp_path)]
    assert [process.wait(600) for process in processes] == [0, 0]
    logs = [path.read_text() for path in tmp_path.glob("runs/*/*/*.log")]
    assert len(logs) == 4 and all(len(re.findall("^step 600 ", log, re.MULTILINE)) == 1 for log in logs)
    same_runs(tmp_path / "runs", straight)


@pytest.mark.slow
@pytest.mark.parametrize("done", [False, True])
def test_a_dry_run(pmoe_here, tmp_path, done):
    """Prints commands that can be given as they are, for what is left, and measures how long they take."""
    fields = {"total_timesteps": 4000, "seed": [1, 2, 3], "tag": "a b"}
    (tmp_path / "grid.toml").write_text(tiny(tmp_path / "runs", "sac", "ppo", **fields))
    jobs = grid.read(tmp_path / "grid.toml", cli.ALGORITHMS).jobs
    for path in jobs[0].paths if done else ():
        put(path, done=True)
    before = sorted(tmp_path.rglob("*"))
    result = pmoe_here("grid", "grid.toml", "--dry-run", "--workers", 2)
    assert result.returncode == 0 and sorted(tmp_path.rglob("*")) == before
    commands = [line for line in result.stdout.splitlines() if line.startswith("pmoe run ")]
    left = jobs[1:] if done else jobs
    for line, job in zip(commands, left, strict=True):
        words = shlex.split(line)
        assert words[:3] == ["pmoe", "run", job.algo]
        assert cli.parse(MODULES[job.algo].Args, words[3:], job.algo) == job.args
    n = len(left)
    assert f"\n{n} runs in {n} processes, {4000 * n:,} steps\n" in result.stdout
    times = re.search(r"about (\S+) of one process, (\S+) of 2 at a time, ", result.stdout).groups()
    seconds, shared = (sum(60**i * int(x) for i, x in enumerate(reversed(time.split(":")))) for time in times)
    assert 0 <= shared <= seconds < 3 * 3600
