"""`pmoe eval`: several runs and several sigmas, the table, and what it refuses."""

import json
import shutil
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from common import ROOT, files_below, refused, rows_of, train
from common_figures import close, column, names_of, stdout_of, words

from pmoe.grid.read import read_grid
from pmoe.plots import evaluate, policies
from pmoe.plots.runs import PlotError, Run
from pmoe.plots.tables import latex, markdown

QUICK = {"total_timesteps": 120, "env_id": "Pendulum-v1"}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Two seeds of PMOE-SAC, gating, and PMOE-PPO on another environment; not to be changed"""
    root = tmp_path_factory.mktemp("trained")
    train("sac", root, num_seeds=2, **QUICK)
    train("gating-sac", root, **QUICK)
    train("ppo", root, total_timesteps=100, env_id="InvertedPendulum-v4")
    return root


@pytest.fixture
def copy(trained, tmp_path):
    """The same, to be changed"""
    return shutil.copytree(trained, tmp_path / "copy")


def seeds(root: Path, algo: str) -> list[Path]:
    return sorted(root.glob(f"*/{algo}-k2-*/seed*"))


@pytest.fixture
def run(copy):
    """A run of the copy"""
    return seeds(copy, "sac")[0]


# One run, or several


@pytest.mark.parametrize(
    "options",
    [
        "--obs-noise 0 0.05 0.1 {}",
        "{} --obs-noise 0 0.05 0.1",
        "--obs-noise=0 0.05 0.1 {}",
        "--obs-noise 0 .05 1e-1 {}",
        "--obs-noise 0 --obs-noise 0.05 --obs-noise 0.1 {}",
        "--obs-noise 0 {} --obs-noise 0.05 0.1",
        "--obs-noise 0 0.05 0.1 0.05 0 {}",
        "--obs-noise 0 0.05 0.1 -- {}",
        "{} --obs-noise 0 0.05 0.1 --primitive 1 --out figures",
    ],
)
def test_sigmas_stand_anywhere(pmoe_here, trained, tmp_path, options):
    run = seeds(trained, "sac")[0]
    stdout_of(pmoe_here("eval", "--episodes", 1, *options.format(run).split()))
    rows = rows_of(tmp_path / "figures/eval.csv")
    assert column(rows, "noise").tolist() == [0, 0.05, 0.1]
    assert {row["episodes"] for row in rows} == {"1"}


def test_numbers_of_other_options_are_no_sigmas(pmoe_here, trained, tmp_path):
    run = seeds(trained, "sac")[0]
    assert " 3 " in stdout_of(
        pmoe_here("eval", run, "--obs-noise", "0.1", "--episodes", "3")
    )  # one: no table
    assert not list(tmp_path.iterdir())


def test_a_run_that_is_called_like_a_number(pmoe_here, trained, tmp_path):
    shutil.copytree(seeds(trained, "sac")[0], tmp_path / "7")
    assert "Return of 7" in stdout_of(pmoe_here("eval", "7", "--episodes", 1, "--obs-noise", 0.1))


def test_each_value_is_that_of_the_run_alone(pmoe_here, trained, tmp_path):
    paths = [*seeds(trained, "sac"), *seeds(trained, "gating-sac")]
    stdout_of(pmoe_here("eval", *paths, "--episodes", 2, "--obs-noise", 0, 0.5))
    rows = rows_of(tmp_path / "figures/eval.csv")
    assert words(rows, "method", "seed", "noise") == [
        ("PMOE-SAC K=2", "1", "0.0"),
        ("PMOE-SAC K=2", "1", "0.5"),
        ("PMOE-SAC K=2", "2", "0.0"),
        ("PMOE-SAC K=2", "2", "0.5"),
        ("Gating K=2", "1", "0.0"),
        ("Gating K=2", "1", "0.5"),
    ]
    assert set(words(rows, "environment", "step", "episodes")) == {("Pendulum-v1", "120", "2")}
    assert len({row["return_mean"] for row in rows}) == len(rows)
    for row, (path, noise) in zip(rows, product(paths, (0, 0.5)), strict=True):
        (run,), _ = evaluate.find([path])
        x = evaluate.evaluate(run, 2, noise)
        expected = [x.mean(), x.std(), x.min(), x.max()]
        close([float(row[f"return_{name}"]) for name in ("mean", "std", "min", "max")], expected)
        out = stdout_of(pmoe_here("eval", path, "--episodes", 2, "--obs-noise", noise))
        for value in expected:
            assert f" {value:.1f} " in out


def test_the_mean_is_over_all_episodes_of_all_seeds(trained):
    (one, two), _ = evaluate.find(seeds(trained, "sac"))
    returns = {}
    returns[one.path, 0.0] = np.array([1.0, 2.0])
    returns[two.path, 0.0] = np.array([5.0, 8.0])
    _, _, rows = evaluate.layout("Pendulum-v1", {"M": [one, two]}, [0.0], returns, 2)
    assert rows == [["M", "2", "4.00 ± 2.74"]]  # variance (9 + 4 + 1 + 16) / 4


def test_folders_of_runs_and_a_table_for_each_environment(pmoe_here, trained, tmp_path):
    before = files_below(trained)
    run = seeds(trained, "sac")[0]
    out = stdout_of(pmoe_here("eval", trained, run, "--episodes", 1, "--out", "here"))
    rows = rows_of(tmp_path / "here/eval.csv")
    assert len(rows) == 4
    assert "left out" not in out  # a run that is named twice is there once
    assert {row["environment"] for row in rows} == {"Pendulum-v1", "InvertedPendulum-v4"}
    text = (tmp_path / "here/eval.md").read_text()
    for env in ("Pendulum-v1", "InvertedPendulum-v4"):
        assert f"Return on {env} in 1 episodes" in text
    assert "wrote here/eval.csv, here/eval.md, here/eval.tex" in out
    assert files_below(trained) == before
    assert names_of(tmp_path.iterdir()) == {"here"}


# Table 5


def fake(algo: str, k: int, seed: int = 1, env: str = "Hopper-v4") -> Run:
    args = {"env_id": env, "k": k, "seed": seed, "total_timesteps": 9}
    path = Path(f"{env}/{algo}-k{k}/seed{seed}")
    return Run(path, algo, args, np.array([9]), np.array([np.nan]), 0.0, None, [])


def table(env: str, noises, *groups) -> tuple:
    """The layout of groups of runs, all of whose returns are 1200 and 1300"""
    methods = {group[0].base: list(group) for group in groups}
    returns = {}
    for group in groups:
        for run, noise in product(group, noises):
            returns[run.path, noise] = np.array([1200.0, 1300.0])
    return evaluate.layout(env, methods, noises, returns, 2)


def test_table_5():
    title, head, rows = table(
        "Hopper-v4",
        [0.0, 0.05, 0.1],
        [fake("sac", 1), fake("sac", 1, 2)],
        [fake("sac", 4)],
        [fake("gating-sac", 4)],
        [fake("mcp-sac", 4)],
        [fake("gumbel-sac", 4)],
    )
    ours = ["1250 ± 50.0"] * 3
    assert rows == [
        ["SAC", "2", *ours],
        ["  printed", "", "3387 ± 2.0", "1995 ± 718.6", "1006 ± 389.6"],
        ["PMOE-SAC K=4", "1", *ours],
        ["  printed", "", "3632 ± 4.0", "3460 ± 456.7", "1730 ± 703.1"],
        ["Gating K=4", "1", *ours],
        ["  printed", "", "3445 ± 3.1", "2607 ± 864.4", "1626 ± 771.9"],
        ["MCP-SAC K=4", "1", *ours],
        ["  printed", "", "3525 ± 114.6", "1610 ± 357.0", "1008 ± 333.4"],
        ["Gumbel K=4", "1", *ours],
    ]
    assert head == ["", "n", "sigma 0", "sigma 0.05", "sigma 0.1"]
    assert title == "Return on Hopper-v4 in 2 episodes, Gaussian noise on the observation"


def test_the_grid_of_table_5_has_all_that_is_printed():
    groups = {}
    for job in read_grid(ROOT / "grids/table5.toml").jobs:
        run = fake(job.algo, job.args.k, job.args.seed, job.args.env_id)
        groups.setdefault(run.base, []).append(run)
    _, _, rows = table("Hopper-v4", [0.0, 0.05, 0.1], *groups.values())
    methods = {row[0]: row[1] for row in rows[::2]}
    assert methods == dict.fromkeys(["SAC", "PMOE-SAC K=4", "Gating K=4", "MCP-SAC K=4"], "5")
    numbers = {cell for row in rows[1::2] for cell in row[2:]}
    assert len(numbers - {""}) == 12


def test_what_is_not_printed_stays_empty():
    _, head, rows = table("Hopper-v4", [0.2, 0.05], [fake("sac", 1)])
    assert head[2:] == ["sigma 0.2", "sigma 0.05"]
    assert rows[1] == ["  printed", "", "", "1995 ± 718.6"]
    _, _, rows = table("Hopper-v4", [0.2], [fake("sac", 1)])
    assert len(rows) == 1


@pytest.mark.parametrize("env", ["Walker2d-v4", "Hopper-v5", "Hopper-v4,reset_noise_scale=0.0"])
def test_an_environment_that_is_not_printed(env):
    _, _, rows = table(env, [0.0], [fake("sac", 1, env=env)])
    assert len(rows) == 1


def test_the_files_hold_the_layout(pmoe_here, trained, tmp_path, monkeypatch):
    monkeypatch.setattr(evaluate, "evaluate", lambda *_: np.array([1200.0, 1300.0]))
    out = stdout_of(pmoe_here("eval", *seeds(trained, "sac"), "--episodes", 2, "--obs-noise", 0, 0.05))
    title = "Return on Pendulum-v1 in 2 episodes, Gaussian noise on the observation"
    head = ["", "n", "sigma 0", "sigma 0.05"]
    rows = [["PMOE-SAC K=2", "2", "1250 ± 50.0", "1250 ± 50.0"]]
    foot = "Mean ± standard deviation over all episodes of n seeds."
    assert (tmp_path / "figures/eval.md").read_text() == markdown(title, head, rows) + f"\n{foot}\n"
    tex = (tmp_path / "figures/eval.tex").read_text()
    assert tex.startswith(latex(title, head, rows))
    assert tex.endswith("of n seeds.\n")
    assert (tmp_path / "figures/eval.csv").read_text().splitlines() == [
        "environment,method,seed,step,noise,episodes,return_mean,return_std,return_min,return_max",
        "Pendulum-v1,PMOE-SAC K=2,1,120,0.0,2,1250.0,50.0,1200.0,1300.0",
        "Pendulum-v1,PMOE-SAC K=2,1,120,0.05,2,1250.0,50.0,1200.0,1300.0",
        "Pendulum-v1,PMOE-SAC K=2,2,120,0.0,2,1250.0,50.0,1200.0,1300.0",
        "Pendulum-v1,PMOE-SAC K=2,2,120,0.05,2,1250.0,50.0,1200.0,1300.0",
    ]
    assert title in out
    assert "1250 ± 50.0" in out


# What it refuses, and what it says

DAMAGES = ["{", "[]", "{}", '{"algo": "sac"}', '{"algo": "sac", "args": {"k": 2}}', "\xff"]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_config(pmoe_here, copy, run, tmp_path, damage):
    (run / "config.json").write_bytes(damage.encode("latin1"))
    refused(pmoe_here("eval", run, "--episodes", 1), "its config.json is damaged")
    out = stdout_of(pmoe_here("eval", copy, "--episodes", 1))
    assert f"note {run}: no run, its config.json is damaged" in out
    assert len(rows_of(tmp_path / "figures/eval.csv")) == 3


def test_a_damaged_checkpoint_is_left_out(pmoe_here, copy, run, tmp_path):
    (file,) = run.glob("checkpoint/[0-9]*.pt")
    file.write_bytes(file.read_bytes()[:100])
    refused(pmoe_here("eval", run, "--episodes", 1), f"{file} is damaged")
    assert f"note {file} is damaged" in stdout_of(pmoe_here("eval", copy, "--episodes", 1))
    assert len(rows_of(tmp_path / "figures/eval.csv")) == 3
    file.rename(file.with_name("best.pt"))
    refused(pmoe_here("eval", run, "--episodes", 1), "has no checkpoint")


def test_folders_are_found_through_links(pmoe_here, trained, tmp_path):
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked/runs").symlink_to(trained)
    stdout_of(pmoe_here("eval", "linked", "--episodes", 1))
    assert len(rows_of(tmp_path / "figures/eval.csv")) == 4


def test_unfinished_runs_are_named(pmoe_here, copy):
    budget = QUICK["total_timesteps"]
    for path in seeds(copy, "sac"):
        file = path / "config.json"
        config = json.loads(file.read_text())
        config["args"]["total_timesteps"] = 10 * budget
        file.write_text(json.dumps(config))
    out = stdout_of(pmoe_here("eval", copy, "--episodes", 1))
    assert f"unfinished: seed 1 at {budget}" in out
    assert f"of {10 * budget:,} steps" in out


def test_a_run_that_goes_on_is_evaluated_at_one_checkpoint(run, tmp_path, monkeypatch):
    real = evaluate.evaluate
    steps = []

    def and_train_on(*args):
        returns = real(*args)
        (file,) = run.glob("checkpoint/[0-9]*.pt")
        later = int(file.stem) + 1
        file.rename(file.with_name(f"{later:010}.pt"))
        step, _ = policies.trained(args[0])
        steps.append(step)
        return returns

    monkeypatch.setattr(evaluate, "evaluate", and_train_on)
    evaluate.report([run], tmp_path, 1, [0.0, 0.1])
    assert steps == [120, 120]
    rows = rows_of(tmp_path / "eval.csv")
    assert {row["step"] for row in rows} == {"120"}


def test_without_a_checkpoint(pmoe_here, copy, run):
    for file in run.glob("checkpoint/[0-9]*.pt"):
        file.unlink()
    refused(pmoe_here("eval", run), str(run), "no checkpoint")
    assert f"note {run} has no checkpoint" in stdout_of(pmoe_here("eval", copy, "--episodes", 1))


def test_the_same_seed_twice_is_noted(pmoe_here, run, tmp_path):
    again = tmp_path / "again" / run.parent.name / "seed1"
    shutil.copytree(run, again)
    out = stdout_of(pmoe_here("eval", run, again, "--episodes", 1, "--obs-noise", 0, 0.1))
    assert "the same seed of the same method" in out
    assert len(rows_of(tmp_path / "figures/eval.csv")) == 2


@pytest.mark.parametrize(
    "options, word",
    [
        (["--primitive", 2], "primitives 0 to 1"),
        (["--routing", "sample", "--primitive", 0], "give one of them"),
        (["--obs-noise", 0, -1], "greater than or equal to 0"),
        (["--obs-noise", "x"], "--obs-noise"),
        (["--video", "film.mp4"], "--video films one run"),
    ],
)
def test_nothing_is_evaluated_where_one_is_refused(pmoe_here, trained, tmp_path, options, word):
    before = files_below(trained)
    refused(pmoe_here("eval", trained, "--episodes", 1, *options), word)
    assert not list(tmp_path.iterdir())
    assert files_below(trained) == before


def test_what_does_not_fit_is_left_out_and_named(pmoe_here, trained, tmp_path):
    out = stdout_of(pmoe_here("eval", trained, "more", "--episodes", 1, "--routing", "sample"))
    for part in ("gating-sac", "composes its primitives", "note more: no such folder"):
        assert part in out
    rows = rows_of(tmp_path / "figures/eval.csv")
    assert len(rows) == 3
    assert {row["method"] for row in rows} == {"PMOE-SAC K=2", "PMOE-PPO K=2"}
    assert "primitives drawn from the router" in (tmp_path / "figures/eval.md").read_text()
    gating = seeds(trained, "gating-sac")[0]
    refused(pmoe_here("eval", gating, "--routing", "sample"), "composes its primitives")


def test_a_film_is_of_one_sigma(pmoe_here, trained, tmp_path):
    run = seeds(trained, "sac")[0]
    refused(pmoe_here("eval", run, "--obs-noise", 0, 0.1, "--video", "film.mp4"), "--video films one run")
    assert not list(tmp_path.iterdir())


def test_sampled_routing_of_several(trained):
    (run, _), _ = evaluate.find(seeds(trained, "sac"))
    likeliest = evaluate.evaluate(run, 3)
    drawn = evaluate.evaluate(run, 3, routing="sample")
    assert (likeliest != drawn).all()
    assert (drawn == evaluate.evaluate(run, 3, routing="sample")).all()


@pytest.mark.parametrize("algo", ["sac", "ppo"])
def test_the_mean_of_all_primitives(trained, algo):
    """Of a router that gives one primitive all the weight, that of this primitive; of two equal weights, the
    mean of both actions"""
    (run, *_), _ = evaluate.find(seeds(trained, algo))
    _, actor = policies.trained(run)
    obs = torch.randn(1, 5, actor.fc1.weight.shape[1])
    first = torch.zeros(1, 5, 1, dtype=torch.long)
    actions = [actor.act(obs, lambda log_w: first), actor.act(obs, lambda log_w: first + 1)]
    squashed = algo == "sac"
    with torch.no_grad():
        actor.router.weight.zero_()
        actor.router.bias.zero_()
        torch.testing.assert_close(evaluate.mean_action(actor, obs, squashed), sum(actions) / 2)
        actor.router.bias[..., 1] = 50.0
        torch.testing.assert_close(evaluate.mean_action(actor, obs, squashed), actions[1])


def test_an_option_that_is_kept_has_no_mean(tmp_path):
    (run,) = train("dac", tmp_path, total_timesteps=100, env_id="InvertedPendulum-v4")
    with pytest.raises(PlotError, match="keeps to the option"):
        evaluate.report([run], tmp_path / "out", 1, [0.0], routing="mean")


def test_no_run_in_a_folder(tmp_path):
    with pytest.raises(PlotError, match="no runs there; a run is a directory like"):
        evaluate.find([tmp_path])
