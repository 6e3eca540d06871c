"""What `check` refuses before anything is made, the memory that a run would take, and names on the disk."""

import dataclasses
import os
import shutil
import subprocess
import sys
import typing

import pytest
from common import MODULES, failed, flags, json_of, make_args, refused, train

ABSURD = {
    "k": 2**31,
    "num_seeds": 10**12,
    "eval_episodes": 2**31,
    "seed": -1,
}
TOGETHER = [("sac", "eval_episodes"), ("ppo", "num_envs")]
ABSURD_PPO = {"num_envs": 2**31, "update_epochs": 10**12}


@pytest.mark.parametrize("name, value", [*ABSURD.items(), ("num_seeds", 0), ("eval_episodes", 0)])
def test_absurd_sizes_are_one_line(pmoe_here, tmp_path, name, value):
    option = f"--{name.replace('_', '-')}"
    refused(pmoe_here("run", "sac", *flags("sac", **{name: value})), option, str(value))
    refused(pmoe_here("run", "sac", *flags("sac", **{name: value}), "--overwrite"), option)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name, value", ABSURD_PPO.items())
def test_absurd_sizes_of_rollouts_are_one_line(pmoe_here, tmp_path, name, value):
    refused(
        pmoe_here("run", "ppo", *flags("ppo", **{name: value})), f"--{name.replace('_', '-')}", str(value)
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("algo, name", TOGETHER)
def test_too_many_environments_are_one_line(pmoe_here, tmp_path, algo, name):
    words = flags(algo, num_seeds=1000, **{name: 1000}, total_timesteps=1000)
    option = f"--{name.replace('_', '-')}"
    refused(pmoe_here("run", algo, *words), f"--num-seeds times {option} must be at most 10,000")
    assert list(tmp_path.iterdir()) == []


TOO_LARGE = [
    ("sac", {"batch_size": 10**12}),
    ("sac", {"buffer_size": 10**12, "total_timesteps": 10**12}),
    ("mrp-sac", {"batch_size": 2**31}),
    ("ppo", {"num_steps": 10**12}),
    ("ppo", {"num_steps": 10**10, "minibatch_size": 10**10}),
    ("dac", {"num_steps": 10**12}),
]


@pytest.mark.parametrize("algo, fields", TOO_LARGE, ids=str)
def test_what_does_not_fit_into_memory_is_refused_with_an_estimate(pmoe_here, tmp_path, algo, fields):
    result = pmoe_here("run", algo, *flags(algo, env="Pendulum-v1", **fields))
    failed(result, "this would take ", " GB of memory at least, and there are ", "fewer seeds, or a smaller")
    assert list(tmp_path.iterdir()) == []


def test_the_estimate_of_the_replay(tmp_path, monkeypatch):
    """A million transitions of Humanoid: 2 * 376 + 17 + 2 numbers of four bytes, 3.1 GB for each seed"""
    module = MODULES["sac"]
    envs = module.Envs("Humanoid-v4", 1)
    one = module.memory_needed(make_args("sac", tmp_path, total_timesteps=10**6, batch_size=1), envs)
    assert one == pytest.approx(3.084e9, rel=1e-3)
    many = module.memory_needed(
        make_args("sac", tmp_path, total_timesteps=10**6, batch_size=1, num_seeds=5), envs
    )
    assert many == pytest.approx(5 * one)
    # A shorter run has fewer transitions.
    short = module.memory_needed(make_args("sac", tmp_path, total_timesteps=1000, batch_size=1), envs)
    assert short < 0.01 * one


MEASURE = """
import contextlib
import re
from pathlib import Path
import torch
from pmoe import pmoe_sac as module

def memory(name):
    status = Path("/proc/self/status").read_text()
    return 1024 * int(re.search(name + r":\\s+(\\d+) kB", status)[1])

envs = module.Envs("Pendulum-v1", 1)
args = module.Args(k=4, batch_size=20_000, total_timesteps=1)
rng = module.Philox([0])
agent = module.Agent(args, envs.obs_size, envs.action_size, rng)
noise = rng.noise(2 * args.batch_size, agent.draws, envs.action_size)
shapes = [envs.obs_size, envs.action_size, envs.obs_size, 1, 1]
batch = module.Batch(*[torch.zeros(1, args.batch_size, size) for size in shapes])
with contextlib.suppress(OSError):
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
before = memory("VmRSS")
agent.update(batch, *noise)
print(module.memory_needed(args, envs), memory("VmHWM") - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_the_estimate_is_below_what_an_update_takes():
    """Else a run that fits would be refused."""
    command = [sys.executable, "-c", MEASURE]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    needed, taken = map(float, result.stdout.split())
    assert 0.1 * taken < needed < taken


@pytest.mark.parametrize("text", ["a\nb", "a\x1b[31m", "a\udc80"])
def test_control_characters_are_refused(capsys, text):
    module = MODULES["sac"]
    for name in ("tag", "run_dir", "env_id"):
        with pytest.raises(SystemExit) as stop:
            module.check(module.Args(**{name: text}))
        assert stop.value.code == 2
        option = "--" + name.replace("_", "-")
        assert capsys.readouterr().err == f"error: {option} must be printable text, not {text!r}\n"


@pytest.mark.parametrize("algo", MODULES)
def test_words_are_those_of_the_command_line(algo, capsys):
    """From Python: else `backprop="Max"` would train what `all` does."""
    module = MODULES[algo]
    hints = typing.get_type_hints(module.Args)
    chosen = [name for name, hint in hints.items() if typing.get_origin(hint) is typing.Literal]
    assert {"device", "compile"} <= set(chosen)
    for name in chosen:
        words = typing.get_args(hints[name])
        with pytest.raises(SystemExit):
            module.check(module.Args(**{name: words[0].title()}))
        expected = f"error: --{name} must be {' or '.join(words)}, not {words[0].title()}\n"
        assert capsys.readouterr().err == expected


@pytest.mark.parametrize("algo, name", [("ppo", "freq_coef"), ("mrp-sac", "alpha"), ("sac", "tau")])
def test_a_whole_nought_is_as_good_as_a_real_one(algo, name):
    module = MODULES[algo]
    module.check(module.Args(**{name: 0}))


def test_a_forks_option_has_the_range_that_its_default_shows(monkeypatch, capsys):
    """0 for a whole number, or something below 0, is none of ours to refuse."""
    module = MODULES["sac"]

    @dataclasses.dataclass
    class Args(module.Args):
        warmup: int = 0
        shift: float = -1.0
        width: float = 1.0

    monkeypatch.setattr(module, "Args", Args)
    module.check(Args())
    module.check(Args(warmup=5, shift=-3.0))
    with pytest.raises(SystemExit):
        module.check(Args(width=-1.0))
    assert "--width must be from 0" in capsys.readouterr().err


# Names on the disk


def test_the_hash_of_a_configuration_has_40_bits(tmp_path):
    args = make_args("sac", tmp_path, gamma=0.5)
    (path,) = MODULES["sac"].run_paths(args)
    *_, digest = path.parent.name.split("-")
    assert len(digest) == 10
    assert int(digest, 16) < 2**40


def test_two_configurations_of_one_name_are_told(tmp_path, capsys):
    """Whether --resume is given or not; their names may agree by a tag or, rarely, by the hash."""
    train("sac", tmp_path, tag="same", total_timesteps=120)
    for resume in (True, False):
        with pytest.raises(SystemExit) as stop:
            train("sac", tmp_path, tag="same", gamma=0.5, total_timesteps=200, resume=resume)
        assert stop.value.code == 2
        assert "was started with --gamma 0.99, not 0.5; " in capsys.readouterr().err


def git(folder, *words) -> None:
    who = ["-c", "user.name=A", "-c", "user.email=a@b"]
    subprocess.run(["git", "-C", str(folder), *who, *words], check=True, capture_output=True)


@pytest.mark.parametrize("name", ["plain", "with 'quotes\" and $(touch escaped)"])
def test_the_commit_is_that_of_the_files_own_repository(tmp_path, name):
    """Not of one that merely surrounds an installation"""
    folder = tmp_path / name / "venv" / "site-packages"
    folder.mkdir(parents=True)
    module = MODULES["sac"]
    file = folder / "my_idea.py"
    shutil.copy(module.__file__, file)
    assert module.commit_of(file) == ""

    git(tmp_path / name, "init", "-q")
    (tmp_path / name / "readme").write_text("")
    git(tmp_path / name, "add", "readme")
    git(tmp_path / name, "commit", "-qm", "one")
    assert module.commit_of(file) == ""

    git(tmp_path / name, "add", "-f", file)
    git(tmp_path / name, "commit", "-qm", "two")
    commit = module.commit_of(file)
    assert 7 <= len(commit) <= 40
    file.write_text(file.read_text() + "\n")
    assert module.commit_of(file) == f"{commit}-dirty"
    assert not list(tmp_path.rglob("escaped"))
    assert not os.path.exists("escaped")


def test_a_run_has_its_commit(quick_run):
    config = json_of(quick_run("sac") / "config.json")
    assert config["commit"] or not shutil.which("git")
