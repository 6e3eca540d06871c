"""What a grid's TOML file asks for, what is wrong with one, and the project's own."""

import dataclasses
import itertools
import json
import re
import typing
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from common import ALGORITHMS, MODULES, ROOT, Toy, needs, refused
from grid_tools import SAC, read, text_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pmoe import cli
from pmoe.grid.read import GridError, Job, command, read_grid
from pmoe.plots.auc import named, reference_name
from pmoe.plots.runs import Run, name_methods

gym.register("deep/Toy-v0", Toy)
GRIDS = sorted(path.name for path in ROOT.glob("grids/*.toml"))


def each(job: Job) -> list[tuple]:
    """Algorithm and options of each of a job's runs"""
    runs = []
    for seed in range(job.args.seed, job.args.seed + job.args.num_seeds):
        args = dataclasses.replace(job.args, seed=seed, num_seeds=1)
        runs.append((job.algo, *vars(args).values()))
    return runs


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


def asked_for(shared: dict, methods: list[tuple]) -> tuple[dict, bool]:
    """What stands in each directory, None where it would be two; whether anything is asked for twice"""
    asked = {}
    twice = False
    for algo, method in methods:
        module = MODULES[algo]
        table = {"seed": 1} | shared | method
        axes = [x if isinstance(x, list) else [x] for x in table.values()]
        runs = set()
        for values in itertools.product(*axes):
            fields = dict(zip(table, values))
            if "gamma" in fields:
                fields["gamma"] = float(fields["gamma"])  # 1 is 1.0
            if "env" in fields:
                fields["env_id"] = fields.pop("env")
            args = module.Args(**fields)
            (path,) = module.run_paths(args)
            runs.add((path, (algo, *vars(args).values())))
        twice = twice or bool(runs & set(asked.items()))
        for path, run in runs:
            if asked.setdefault(path, run) != run:
                asked[path] = None
    return asked, twice


def test_a_million_may_be_written_with_an_exponent(tmp_path):
    """Also in a list; where a number is asked for, it is one"""
    text = SAC + "total_timesteps = 1e6\nbatch_size = [1.28E2, 256]\ngamma = 1e0\nlearning_rate = 3e-4\n"
    jobs = read(tmp_path, text).jobs
    assert [job.args.batch_size for job in jobs] == [128, 256]
    for job in jobs:
        values = (job.args.total_timesteps, job.args.batch_size, job.args.gamma, job.args.learning_rate)
        assert [type(value) for value in values] == [int, int, float, float]
        assert job.args.total_timesteps == 10**6
        assert (job.args.gamma, job.args.learning_rate) == (1, 3e-4)


@settings(deadline=None, max_examples=150)
@given(shared=TABLES, methods=METHODS, together=st.integers(1, 3))
def test_every_combination_is_there_once_in_a_directory_of_its_own(
    tmp_path_factory, shared, methods, together
):
    asked, twice = asked_for(shared, methods)
    tables = [{"algo": algo} | method for algo, method in methods]
    text = text_of({"seeds_per_process": together} | shared, tables)
    try:
        wanted = read(tmp_path_factory.getbasetemp(), text)
    except GridError as error:
        if "--k must be at least 2" in str(error):
            assert "amortized-sac" in [algo for algo, _ in methods]
            return
        two = re.search(
            r"grid.toml:\d+: runs/\S+ would be of two methods.*; give one of them a tag$", str(error)
        )
        assert two or re.search(
            r"grid.toml:\d+: runs/\S+ is asked for twice, beside other seeds$", str(error)
        )
        if two:
            assert None in asked.values()
        else:
            assert twice and together > 1
        return
    assert None not in asked.values()
    found = {}
    for job in wanted.jobs:
        found |= dict(zip(job.paths, each(job), strict=True))
    assert len(set(wanted.paths)) == len(wanted.paths)
    assert found == asked
    for job in wanted.jobs:
        assert len(job.paths) <= together
        assert [path.name for path in job.paths] == [
            f"seed{job.args.seed + i}" for i in range(len(job.paths))
        ]


def test_environments_with_options(tmp_path):
    envs = [
        "TargetReaching-v0",
        "TargetReaching-v0,fixed_layout=2",
        "TargetReaching-v0,fixed_layout=2,obstacles=0",
    ]
    wanted = read(tmp_path, text_of({"env": [*envs, "common:ToyTerminates-v0,length=3"]}, [{"algo": "sac"}]))
    folders = [path.parent.parent.name for path in wanted.paths]
    assert folders == [*envs, "common-ToyTerminates-v0,length=3"] and len(set(wanted.paths)) == 4
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
        int: st.integers(1, 1000),
        float: st.floats(0, 1) | st.integers(0, 1),
        bool: st.booleans(),
        str: st.sampled_from(["", "x", "a/b", "-v", "--k=3", "two words", "ü = 'q'"]),
    }
    return st.one_of(*(each.get(kind, st.sampled_from(typing.get_args(kind) or [None])) for kind in kinds))


@pytest.mark.parametrize("algo", ALGORITHMS)
def test_the_command_of_a_job_gives_its_options(tmp_path_factory, algo):
    """The command line reads the Args that the grid has read, and its directories are the algorithm's."""
    module = MODULES[algo]
    fixed = {"env_id", "seed", "num_seeds", "run_dir", "resume", "overwrite", "track"}
    hints = typing.get_type_hints(module.Args)
    if "num_envs" in hints:
        # The sizes of PPO's rollouts and minibatches depend on each other.
        fixed |= {"num_envs", "num_steps", "minibatch_size", "total_timesteps"}
    options = {}
    for name, hint in hints.items():
        if name not in fixed:
            options[name] = values(hint).filter(lambda x: x is not None)
    # An implicit policy needs at least two samples, and a distance that its actions can have.
    options["k"] = st.integers(2, 1000)
    if "beta" in options:
        options["beta"] = st.floats(0.01, 1.0)
    envs = st.sampled_from(["Pendulum-v1", "deep/Toy-v0"])

    @settings(deadline=None, max_examples=20, suppress_health_check=[HealthCheck.too_slow])
    @given(table=st.fixed_dictionaries({}, optional=options), env=envs, n=st.integers(1, 2))
    def check(table, env, n):
        folder = tmp_path_factory.getbasetemp()
        shared = {"env": env, "seed": [*range(3, 3 + n)], "seeds_per_process": 2, "run_dir": "a=b c"}
        (job,) = read(folder, text_of(shared, [{"algo": algo} | table])).jobs
        words = command(job)
        assert words[:2] == ["run", algo]
        assert cli.parse(module.Args, words[2:], algo) == job.args
        assert job.paths == module.run_paths(job.args)
        assert len(job.paths) == n

    check()


def test_another_run_dir(tmp_path):
    text = 'env = "Pendulum-v1"\nrun_dir = "here"\n' + SAC
    assert read(tmp_path, text).paths == [Path("here/Pendulum-v1/sac-k4/seed1")]
    other = read_grid(tmp_path / "grid.toml", "other")
    assert other.paths == [Path("other/Pendulum-v1/sac-k4/seed1")]


# What is wrong with a file

# Three options of a thousand values each
MANY = ""
for option in ("gamma", "learning_rate", "tau"):
    MANY += f"{option} = {[i / 1000 for i in range(1000)]}\n"

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
    (SAC + "k = 1.5e0\n", 3, ["1.5", "a whole number"]),
    (SAC + "k = 1e999\n", 3, ["Infinity", "a whole number"]),
    (SAC + "total_timesteps = 1e13\n", 3, ["--total-timesteps", "10000000000000"]),
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
    ("[plot]\nfrom = -1\n" + SAC, 2, ["from", "a whole number from 0"]),
    ("[plot]\nmoments = [1, -1]\n" + SAC, 2, ["moments", "a list of whole numbers from 0"]),
    ("[plot]\nmoments = 3\n" + SAC, 2, ["moments", "a list of whole numbers from 0"]),
    ("[plot]\nmetric = 'sucess'\n" + SAC, 2, ["metric", "'sucess'", "'eval' or 'train' or 'success'"]),
    ("[plot]\nmetric = true\n" + SAC, 2, ["metric", "True", "'eval' or 'train' or 'success'"]),
    ("plot = 3\n" + SAC, 1, ["plot"]),
    ("[slurm]\nmemry = 3\n" + SAC, 2, ["[slurm]", "nearest: memory"]),
    ("[slurm]\ntime = 0\n" + SAC, 2, ["time", "a whole number from 1"]),
    ("[slurm]\ngpus = -1\n" + SAC, 2, ["gpus", "a whole number from 0"]),
    ("seeds_per_process = 0\n" + SAC, 1, ["seeds_per_process", "a whole number from 1"]),
    ("seeds_per_process = [1, 2]\n" + SAC, 1, ["seeds_per_process"]),
    (SAC + "seeds_per_process = 2\n", 3, ["seeds_per_process is for all methods: write it above the first"]),
    (f"seed = [1, {10**15}]\n" + SAC, 1, ["--seed", str(10**15)]),
    (SAC + MANY, 2, ["1,000,000,000 runs", "at most 20,000"]),
    (f"seed = {[*range(20_001)]}\n" + SAC, 3, ["20,001 runs", "at most 20,000"]),
    (
        SAC + SAC + "checkpoint_every = 7\n",
        4,
        ["Hopper-v4/sac-k4/seed1", "two methods", "checkpoint_every", "tag"],
    ),
    (SAC + "total_timesteps = [2000, 3000]\n", 2, ["sac-k4/seed1", "two methods", "total_timesteps", "tag"]),
    ('tag = "x"\n' + SAC + "gamma = [0.9, 0.99]\n", 3, ["sac-k4-x/seed1", "two methods", "gamma", "tag"]),
]


def test_a_range_that_one_method_has(tmp_path):
    """By the command line an accepted grid would train."""
    with pytest.raises(GridError, match="grid.toml:1: --k must be at least 2"):
        read(tmp_path, "k = 1\n[[method]]\nalgo = ['sac', 'amortized-sac']\n")


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
        ("status empty", ["empty: no runs there"]),
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
        assert result.stdout == "good.toml: 0 of 1 runs have begun\n"
        result.stdout = ""
    refused(result, *words)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "good.toml", "latin.toml"]


def test_many_seeds_in_a_process(tmp_path):
    """However many are allowed"""
    seeds = [*range(1, 21)]
    (job,) = read(tmp_path, text_of({"seed": seeds, "seeds_per_process": 10**30}, [{"algo": "ppo"}])).jobs
    assert job.args.num_seeds == 20


def test_a_bad_file_in_a_process_of_its_own(pmoe, tmp_path):
    (tmp_path / "grid.toml").write_text(SAC + "lerning_rate = 1\n")
    refused(pmoe("grid", "grid.toml"), "grid.toml:3: ", "nearest: learning_rate")
    assert [path.name for path in tmp_path.iterdir()] == ["grid.toml"]


# The project's own grids

MUJOCO = ["Ant-v4", "Hopper-v4", "Walker2d-v4", "Humanoid-v4", "HumanoidStandup-v4", "HalfCheetah-v4"]
PAPER_SAC = dict.fromkeys(MUJOCO, 4) | {"HumanoidStandup-v4": 10, "HalfCheetah-v4": 2}
PAPER_PPO = dict.fromkeys(MUJOCO, 4) | {"HumanoidStandup-v4": 8, "Humanoid-v4": 8}


def methods_of(envs: dict[str, int], *methods: tuple[str, int | None]) -> dict[str, set]:
    """Methods and their K, by environment; where a method has no K, it is the environment's"""
    content = {}
    for env, k in envs.items():
        content[env] = {(algo, k if fixed is None else fixed) for algo, fixed in methods}
    return content


TABLE_2 = methods_of(PAPER_SAC, ("sac", 1), ("sac", None), ("gating-sac", None), ("mcp-sac", None))
PPO = (("dac", 4), ("mcp-ppo", None), ("ppo", None))
MRP = (("sac", 1), ("sac", None), ("mrp-sac", None), ("reinforce-sac", None), ("gumbel-sac", None))
SUITES = {"mrp_dmc.toml": "dmc", "mrp_metaworld.toml": "envpool"}
DMC = [
    "dm_control/walker-walk-v0",
    "dm_control/cheetah-run-v0",
    "dm_control/hopper-hop-v0",
    "dm_control/quadruped-run-v0",
    "dm_control/finger-turn_hard-v0",
    "dm_control/cartpole-swingup_sparse-v0",
    "dm_control/acrobot-swingup_sparse-v0",
    "dm_control/ball_in_cup-catch-v0",
]
METAWORLD = [
    "EnvPool/MetaWorld-Reach-v3",
    "EnvPool/MetaWorld-Push-v3",
    "EnvPool/MetaWorld-PickPlace-v3",
    "EnvPool/MetaWorld-DoorOpen-v3",
    "EnvPool/MetaWorld-DrawerOpen-v3",
    "EnvPool/MetaWorld-DrawerClose-v3",
    "EnvPool/MetaWorld-ButtonPressTopdown-v3",
    "EnvPool/MetaWorld-PegInsertSide-v3",
    "EnvPool/MetaWorld-WindowOpen-v3",
    "EnvPool/MetaWorld-WindowClose-v3",
]
MODES = (("gating-sac", None), ("mcp-sac", None), ("ppo", None), ("dac", None), ("amortized-sac", None), *MRP)
UNSHAPED = ("UnshapedAcrobot-v0", "UnshapedMountainCar-v0", "CosinePendulum-v0", "SparsePendulum-v0")
UNSHAPED += ("Bimodal-v0", "Bimodal-v0,left=0.75")
SEEDS = {
    "bumps.toml": [range(11, 21)],
    "modes.toml": [range(11, 21), range(11, 16)],
    "modes_control.toml": [range(11, 16)],
}  # else from 1 on
CONTENT = {  # methods and K, by environment; seeds; options that are not the defaults
    "table2.toml": (TABLE_2, 5, {}),
    "released_code.toml": (
        TABLE_2,
        5,
        {"learning_rate": {3e-4}, "batch_size": {256}, "alpha": {"auto"}},
    ),
    "table3.toml": (methods_of(PAPER_PPO, *PPO), 5, {}),
    "ppo_frequency.toml": (
        {
            env: {("ppo", 4), ("ppo", 1), ("mcp-ppo", 4), ("dac", 4)}
            for env in ("Pendulum-v1", "InvertedPendulum-v4", "Hopper-v4")
        },
        5,
        {"freq_coef": {1.0, 0.1, 0.0}, "total_timesteps": {60_000}},
    ),
    "ppo_networks.toml": (
        {env: {("ppo", 4), ("ppo", 1)} for env in ("HalfCheetah-v4", "Hopper-v4")},
        5,
        {
            "networks": {"printed", "separate"},
            "total_timesteps": {300_000},
            "eval_every": {20_000},
            "checkpoint_every": {100_000},
        },
    ),
    "released_ppo.toml": (
        {env: {("ppo", 5), ("ppo", 1)} for env in ("HalfCheetah-v4", "Ant-v4", "Hopper-v4")},
        5,
        {
            "networks": {"released"},
            "joint_step": {True},
            "bootstrap": {False},
            "num_steps": {2048},
            "update_epochs": {10},
            "freq_coef": {0.2, 1.0},
        },
    ),
    "table4.toml": ({"HumanoidStandup-v4": {("sac", k) for k in (2, 4, 8, 10, 14, 16)}}, 5, {}),
    "table5.toml": ({"Hopper-v4": {("sac", 1), ("sac", 4), ("gating-sac", 4), ("mcp-sac", 4)}}, 5, {}),
    "figure3.toml": (
        {"TargetReaching-v0,fixed_layout=2": {("sac", 1), ("gating-sac", 4), ("sac", 4)}},
        3,
        {
            "total_timesteps": {25_000},
            "random_steps": {1000},
            "eval_every": {2000},
            "learning_rate": {3e-4},
            "backprop": {"max", "all"},
        },
    ),
    "figure4.toml": ({"HalfCheetah-v4": {("gating-sac", 2), ("sac", 2)}}, 1, {}),
    "figure5.toml": (
        {
            "TargetReaching-v0": {("sac", 1), ("sac", 4)},
            "TargetReaching-v0,fixed_layout=2": {("sac", 1), ("sac", 4)},
        },
        5,
        {
            "total_timesteps": {25_000, 50_000},
            "random_steps": {1000},
            "eval_every": {2000},
            "learning_rate": {3e-4},
        },
    ),
    "figure8.toml": ({"HalfCheetah-v4": {("sac", 2), ("sac", 4)}}, 1, {}),
    "figure11.toml": (
        {
            "Hopper-v4": {("sac", 4), ("gumbel-sac", 4), ("reinforce-sac", 4)},
            "HumanoidStandup-v4": {("sac", 10), ("gumbel-sac", 10), ("reinforce-sac", 10)},
        },
        5,
        {},
    ),
    "figure12.toml": ({"HalfCheetah-v4": {("ppo", 1), ("ppo", 4)}}, 5, {}),
    "figure13.toml": (
        {"HumanoidStandup-v4": {("sac", 1), ("sac", 4), ("sac", 10)}},
        5,
        {"alpha": {0.2, 1.0, 10.0}},
    ),
    "modes.toml": (
        methods_of(dict.fromkeys(("Bumps-v0", "MultiGoal-v0"), 4), *MODES),
        10,
        {
            "total_timesteps": {2500, 6000, 40_000, 40_960},
            "eval_every": {500, 1000, 4000, 4096},
            "alpha": {0.2, "auto"},
            "learning_rate": {1e-3, 3e-4},
            "batch_size": {100, 256},
            "random_steps": {1000},
            "learning_starts": {500},
            "backprop": {"max", "all"},
            "entropy": {"primitive", "mixture"},
            "estimator": {"marginal", "half"},
            "surrogate": {"mixture", "primitive"},
            "networks": {"printed", "separate"},
        },
    ),
    "bumps.toml": (
        {"Bumps-v0": {("sac", 1), ("sac", 4), ("gumbel-sac", 4), ("mrp-sac", 4)}},
        10,
        {
            "total_timesteps": {2500},
            "eval_every": {500},
            "alpha": {0.2},
            "random_steps": {1000},
            "learning_starts": {500},
            "backprop": {"max", "all"},
            "entropy": {"primitive", "mixture"},
        },
    ),
    "modes_control.toml": (
        methods_of(dict.fromkeys(("Hopper-v4", "MultiDirection-v0"), 4), ("sac", None), ("mrp-sac", None)),
        5,
        {
            "total_timesteps": {20_000},
            "alpha": {0.2},
            "backprop": {"max", "all"},
            "entropy": {"primitive", "mixture"},
        },
    ),
    "mrp.toml": (methods_of(dict.fromkeys(MUJOCO, 5), *MRP), 5, {"alpha": {"auto"}}),
    "mrp_dmc.toml": (methods_of(dict.fromkeys(DMC, 5), *MRP), 5, {"alpha": {"auto"}}),
    "mrp_metaworld.toml": (methods_of(dict.fromkeys(METAWORLD, 5), *MRP), 5, {"alpha": {"auto"}}),
    "mrp_unshaped.toml": (
        methods_of(dict.fromkeys(UNSHAPED, 5), *MRP),
        10,
        {
            "total_timesteps": {100_000, 30_000, 10_000},
            "eval_every": {5000, 1500, 500},
            "eval_episodes": {5},
            "alpha": {0.001, 0.01, 0.1, 1.0},
            "hidden": {64},
            "batch_size": {32},
            "buffer_size": {100_000},
            "tau": {0.01},
            "random_steps": {0},
            "baseline_samples": {5, 0},
        },
    ),
    "soundness.toml": (
        {env: {("sac", 1), ("ppo", 1)} for env in ("Hopper-v4", "Walker2d-v4", "HalfCheetah-v4")},
        5,
        {
            "total_timesteps": {200_000},
            "alpha": {"auto"},
            "learning_rate": {3e-4},
            "batch_size": {256},
            "random_steps": {100},
            "learning_starts": {100},
            "networks": {"separate"},
            "num_steps": {2048},
            "update_epochs": {10},
            "vf_coef": {1.0},
        },
    ),
    "quick.toml": (
        methods_of({"HalfCheetah-v4": 4, "Hopper-v4": 4}, *PPO),
        3,
        {"total_timesteps": {300_000}},
    ),
}


def test_the_grids_are_those_of_the_table():
    assert GRIDS == sorted(CONTENT)


def of_suite(name: str):
    """A grid's name, marked where its environments are of a suite, which may not be installed"""
    marks = needs(SUITES[name]) if name in SUITES else []
    return pytest.param(name, marks=marks)


@pytest.fixture(params=map(of_suite, GRIDS))
def own_grid(request):
    ours = (
        "bumps.toml",
        "figure3.toml",
        "figure5.toml",
        "modes.toml",
        "modes_control.toml",
        "mrp_unshaped.toml",
    )
    if request.param in ours and "TargetReaching-v0" not in gym.registry:
        pytest.skip("Gymnasium does not know the project's environments here")
    return read_grid(ROOT / "grids" / request.param)


def test_a_grid_opens_with_what_it_costs(own_grid):
    """So many runs and steps, and the hours of so many steps a second: of PPO alone a thousand"""
    first, *more = own_grid.file.read_text().splitlines()[:4]
    second = next(line for line in more if " runs, " in line)
    pattern = (
        r"# ([\d,]+) runs, ([\d,]+) steps: about ([\d,]+) (hours?|minutes) of one core "
        r"at ([\d,]+) steps a second; .+"
    )
    *numbers, unit, speed = re.fullmatch(pattern, second).groups()
    runs, steps, duration, speed = (int(x.replace(",", "")) for x in (*numbers, speed))
    seconds = 60 if unit == "minutes" else 3600
    assert re.match(r"# .*(Table|Figure|MRP|Modes)", first, re.IGNORECASE) and "arXiv" in first
    assert runs == len(own_grid.paths) == len(set(own_grid.paths))
    assert steps == sum(job.args.total_timesteps * len(job.paths) for job in own_grid.jobs)
    assert duration == round(steps / speed / seconds)
    assert (speed == 1000) == all(hasattr(job.args, "num_steps") for job in own_grid.jobs)


def test_a_grid_has_what_it_reproduces(own_grid):
    methods, seeds, others = CONTENT[own_grid.file.name]
    found = {}
    for job in own_grid.jobs:
        found.setdefault(job.args.env_id, set()).add((job.algo, job.args.k))
    assert found == methods
    by_method = {}
    for path in own_grid.paths:
        by_method.setdefault(path.parent, []).append(path.name)
    allowed = SEEDS.get(own_grid.file.name, [range(1, seeds + 1)])
    names_of_seeds = [[f"seed{seed}" for seed in seeds] for seeds in allowed]
    for names in by_method.values():
        assert names in names_of_seeds
    free = ("env_id", "k", "seed", "num_seeds")
    for job in own_grid.jobs:
        changed = {
            n: x for n, x in vars(job.args).items() if n not in free and x != getattr(type(job.args), n)
        }
        assert all(x in others[name] for name, x in changed.items())
    for name, wanted in others.items():
        assert {getattr(job.args, name, None) for job in own_grid.jobs} - {None} == wanted


def test_the_reference_of_a_grid_is_one_method_of_each_environment(own_grid):
    """Where it is ambiguous there are no percents."""
    reference = own_grid.plot.get("reference")
    if reference is None:
        pytest.skip("percents are of the default")
    runs = []
    for job in own_grid.jobs:
        curve = np.zeros(1), np.zeros(1)
        runs += [Run(path, job.algo, vars(job.args), *curve, 0.0, None, [], "") for path in job.paths]
    runs = name_methods(runs, [])
    name = reference_name(runs, reference)
    for env in {run.env for run in runs}:
        methods = {run.method: [run] for run in runs if run.env == env}
        assert len(named(methods, name)) == 1


def test_a_tag_that_another_configuration_has(tmp_path):
    """On the disk, from before the file was changed"""
    text = text_of({"run_dir": str(tmp_path), "tag": "x"}, [{"algo": "sac", "gamma": 0.9}])
    (path,) = read(tmp_path, text).paths
    path.mkdir(parents=True)
    config = {"algo": "sac", "args": vars(read(tmp_path, text).jobs[0].args)}
    (path / "config.json").write_text(json.dumps(config))
    assert read(tmp_path, text).paths == [path]
    with pytest.raises(
        GridError, match="grid.toml:2: .*seed1 was run with another gamma; give it another tag"
    ):
        read(tmp_path, text.replace("0.9", "0.8"))
