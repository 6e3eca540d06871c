"""Resume goes on exactly, or says that it does not; a damaged run ends in one line and changes nothing."""

import os
import random
import signal
import zipfile

import numpy as np
import odd_envs  # noqa: F401  registers them
import pytest
import torch
from common import (
    MODULES,
    Killed,
    at_move,
    checkpoint,
    failed,
    files_below,
    flags,
    json_of,
    make_args,
    rows_of,
    same_run,
    train,
)

HIDDEN = {"total_timesteps": 300, "eval_every": 10**6, "checkpoint_every": 10**6}


def stopped(monkeypatch, run_dir, algo="sac", at=230, **fields):
    """A run that SIGTERM has ended; its directory"""
    with monkeypatch.context() as patch:
        at_move(patch, algo, at, lambda: signal.raise_signal(signal.SIGTERM))
        with pytest.raises(SystemExit):
            train(algo, run_dir, **fields)
    (path,) = run_dir.glob("*/*/seed1")
    return path


# What is not in np_random


@pytest.mark.parametrize("where", ["own", "episodes", "reward"])
def test_a_hidden_state_is_told(tmp_path, monkeypatch, capsys, where):
    fields = {"env_id": f"Hidden-v0,where='{where}'", **HIDDEN}
    path = stopped(monkeypatch, tmp_path, **fields)
    step = checkpoint(path)["step"]
    capsys.readouterr()
    train("sac", tmp_path, resume=True, **fields)
    out = capsys.readouterr().out
    assert "note: seed 1 cannot be resumed exactly and begins a new episode: " in out
    assert json_of(path / "config.json")["inexact_resumes"] == [step]
    # The unfinished episode is gone, and a new one of 50 steps began.
    steps = [int(row["step"]) for row in rows_of(path / "episodes.csv")]
    assert steps == [50, 100, 150, 200, step + 50]


def test_a_replay_that_raises_is_no_end(tmp_path, monkeypatch, capsys):
    """Where a hidden state makes a step fail that did not fail before"""
    fields = {"env_id": "Hidden-v0,where='raises'", **HIDDEN}
    stopped(monkeypatch, tmp_path, at=130, **fields)
    capsys.readouterr()
    (path,) = train("sac", tmp_path, resume=True, **fields)
    assert "cannot be resumed exactly" in capsys.readouterr().out
    assert json_of(path / "done.json")["step"] == 300


def test_an_exact_resume_says_nothing(tmp_path, monkeypatch, capsys):
    path = stopped(monkeypatch, tmp_path)
    capsys.readouterr()
    train("sac", tmp_path, resume=True)
    assert "exactly" not in capsys.readouterr().out
    assert "inexact_resumes" not in json_of(path / "config.json")


@pytest.mark.parametrize("algo", ["sac", "ppo"])
def test_generators_that_all_share_begin_with_the_seed(tmp_path, algo):
    """They have a say in what some environments do; whatever drew from them before has none."""
    fields = {"env_id": "Hidden-v0,where='shared'", **HIDDEN}
    (first,) = train(algo, tmp_path / "first", **fields)
    random.random()
    np.random.normal()
    (second,) = train(algo, tmp_path / "second", **fields)
    same_run(first, second)
    assert (first / "episodes.csv").read_bytes() == (second / "episodes.csv").read_bytes()
    (other,) = train(algo, tmp_path / "other", seed=2, **fields)
    assert (first / "episodes.csv").read_bytes() != (other / "episodes.csv").read_bytes()


@pytest.mark.parametrize("algo", ["sac", "ppo"])
def test_an_evaluation_leaves_the_generators_that_all_share(tmp_path, algo):
    """Else how often a run is evaluated, which has no say in its name, would change what it learns."""
    fields = {"env_id": "Hidden-v0,where='shared'", **HIDDEN}
    (often,) = train(algo, tmp_path / "often", **fields | {"eval_every": 50})
    (once,) = train(algo, tmp_path / "once", **fields | {"eval_every": 10_000})
    assert (often / "episodes.csv").read_bytes() == (once / "episodes.csv").read_bytes()


def test_a_checkpoint_brings_shared_generators_back(tmp_path, monkeypatch):
    path = stopped(monkeypatch, tmp_path)
    random.random()
    np.random.normal()
    expected = checkpoint(path)["global_random_state"]
    states = []
    module = MODULES["sac"]
    monkeypatch.setattr(module.Runs, "__enter__", lambda runs: states.append(module.global_state()) or runs)
    monkeypatch.setattr(module.Runs, "__exit__", lambda *_: None)
    monkeypatch.setattr(module.Runs, "compiled", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        train("sac", tmp_path, resume=True)
    assert states == [expected]


def test_seeds_that_stand_at_different_steps_are_not_damaged(tmp_path, monkeypatch, capsys):
    """What they are told must not lead them to delete good runs."""
    train("sac", tmp_path, total_timesteps=200)
    train("sac", tmp_path, total_timesteps=100, seed=2)
    with pytest.raises(SystemExit) as stop:
        train("sac", tmp_path, num_seeds=2, total_timesteps=300, resume=True)
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert "seed1 has no checkpoint of step 100, as another seed has" in error
    assert "one by one" in error


# Killed while it finishes


@pytest.mark.parametrize(
    "algo, options", [("sac", {}), ("sac", {"keep_replay": False}), ("ppo", {})], ids=str
)
def test_killed_between_the_seeds_ends(tmp_path, monkeypatch, algo, options):
    fields = {"num_seeds": 2, "total_timesteps": 250, **options}
    straight = train(algo, tmp_path / "straight", **fields)
    replace = os.replace
    done = []

    def replace_or_stop(temporary, file):
        if "done.json" in str(file):
            done.append(file)
        if len(done) == 2:
            raise Killed
        replace(temporary, file)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", replace_or_stop)
        with pytest.raises(Killed):
            train(algo, tmp_path / "killed", **fields)
    paths = sorted(tmp_path.glob("killed/*/*/*"))
    assert [(path / "done.json").exists() for path in paths] == [True, False]
    assert train(algo, tmp_path / "killed", resume=True, **fields) == paths
    for path, twin in zip(straight, paths, strict=True):
        same_run(path, twin)
        assert json_of(twin / "done.json")["step"] == 250


@pytest.mark.parametrize("text", ["", "[]", "null", '{"step": "many"}', '{"step": 1e999}', "[" * 100_000])
def test_a_damaged_done_json_is_none(tmp_path, quick_run, text):
    (path,) = train("sac", tmp_path)
    (path / "done.json").write_text(text)
    (again,) = train("sac", tmp_path, resume=True)
    assert again == path
    assert json_of(path / "done.json")["step"] == 400
    same_run(path, quick_run("sac"))


# Damage


def without(name):
    def damage(state):
        del state[name]

    return damage


def with_value(name, value):
    def damage(state):
        state[name] = value

    return damage


def in_learnt(change):
    def damage(state):
        learnt = state["learnt"]
        learnt["actor.fc1.weight"] = change(learnt["actor.fc1.weight"])

    return damage


TEXTS = {name: f"{header}\n" for name, header in MODULES["sac"].HEADERS.items()}
STATE = [
    "step",
    "wall_time",
    "csv",
    "learnt",
    "random_state",
    "actions",
    "obs",
    "returns",
    "best",
    "evaluating",
]
DAMAGES = {f"no {name}": without(name) for name in [*STATE, "replay", "global_random_state"]}
DAMAGES |= {f"{name} is text": with_value(name, "text") for name in [*STATE[:-1], "replay"]}
DAMAGES |= {
    "csv lacks a file": with_value("csv", {"episodes": "step,episodic_return,episodic_length\n"}),
    "csv is of something else": with_value("csv", {"episodes": "a,b\n", "eval": "a,b\n"}),
    "a reshaped weight": in_learnt(lambda x: x.flatten()),
    "a smaller weight": in_learnt(lambda x: x[:, :1]),
    "a weight that is a list": in_learnt(torch.Tensor.tolist),
    "a huge step": with_value("step", 10**30),
    "a negative replay": with_value("replay", -36),
    "a negative step": lambda state: state.update(step=-5, replay=-5 * 36),
    "an endless time": with_value("wall_time", float("inf")),
    "shared generators are text": with_value("global_random_state", {"random": "text", "numpy": "text"}),
    "a weight that is no number": in_learnt(lambda x: x * float("nan")),
    "a complex weight": in_learnt(lambda x: x.to(torch.complex64)),
    "a row of text": with_value("csv", {**TEXTS, "eval": TEXTS["eval"] + "x,y,z,w\n"}),
    "a short row": with_value("csv", {**TEXTS, "episodes": TEXTS["episodes"] + "1,2\n"}),
    "half a character": with_value("csv", {**TEXTS, "eval": TEXTS["eval"] + "\ud800\n"}),
    "another generator's state": with_value("random_state", [{"bit_generator": "MT19937"}]),
    "actions of another size": with_value("actions", [torch.zeros(3, 7)]),
    "no list": lambda state: state.clear(),
}


@pytest.fixture(scope="module")
def half_done(tmp_path_factory):
    """A run's directory, ended by a signal"""
    folder = tmp_path_factory.mktemp("half")
    with pytest.MonkeyPatch.context() as patch:
        return stopped(patch, folder)


@pytest.fixture
def copied(half_done, tmp_path):
    """A copy of it, below tmp_path / "runs" """
    import shutil

    path = tmp_path / "runs" / half_done.relative_to(half_done.parents[2])
    shutil.copytree(half_done, path)
    return path


def refuses_to_resume(tmp_path, capsys) -> str:
    """Asserts that a run ends in one line and changes nothing."""
    before = files_below(tmp_path)
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        MODULES["sac"].train(make_args("sac", tmp_path / "runs", resume=True))
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert files_below(tmp_path) == before
    return error


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_checkpoint_is_one_line_and_changes_nothing(tmp_path, capsys, copied, damage):
    (file,) = copied.glob("checkpoint/[0-9]*.pt")
    state = torch.load(file, weights_only=True)
    damage(state)
    torch.save(state, file)
    error = refuses_to_resume(tmp_path, capsys)
    assert "damaged" in error or "is already at step" in error


def test_a_checkpoint_writes_no_file_of_its_own_naming(tmp_path, copied):
    (file,) = copied.glob("checkpoint/[0-9]*.pt")
    state = torch.load(file, weights_only=True)
    state["csv"] |= {"../../../../escaped": "x", "/escaped": "x", "other": "x"}
    torch.save(state, file)
    names = {path.name for path in copied.iterdir()} | {"done.json"}
    train("sac", tmp_path / "runs", resume=True)
    assert {path.name for path in copied.iterdir() if "tfevents" not in path.name} == {
        name for name in names if "tfevents" not in name
    }
    assert list(tmp_path.rglob("*escaped*")) == []


def test_every_flipped_bit_is_found(tmp_path, capsys, copied):
    """In the stored numbers, which torch itself reads as they are"""
    (file,) = copied.glob("checkpoint/[0-9]*.pt")
    whole = file.read_bytes()
    with zipfile.ZipFile(file) as archive:
        largest = max(archive.infolist(), key=lambda info: info.file_size)
    assert largest.file_size > 100_000
    for place in (largest.header_offset + 200, largest.header_offset + largest.file_size // 2):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << 6
        file.write_bytes(damaged)
        assert "is missing or damaged" in refuses_to_resume(tmp_path, capsys)


CONFIGS = {
    "empty": "",
    "a list": "[]",
    "deep": "[" * 100_000,
    "args are a list": '{"args": []}',
    "args are text": '{"args": "text"}',
    "no args": "{}",
}


@pytest.mark.parametrize("text", CONFIGS.values(), ids=CONFIGS)
def test_a_damaged_config_is_one_line_and_changes_nothing(tmp_path, capsys, copied, text):
    (copied / "config.json").write_text(text)
    refuses_to_resume(tmp_path, capsys)


def test_a_damaged_config_beside_is_no_hindrance(tmp_path, copied):
    other = copied.with_name("seed7")
    other.mkdir()
    (other / "config.json").write_text("[" * 100_000)
    train("sac", tmp_path / "runs", resume=True)


def test_a_damaged_checkpoint_by_the_command(pmoe_here, tmp_path, copied):
    (file,) = copied.glob("checkpoint/[0-9]*.pt")
    file.write_bytes(b"PK\x03\x04 and no more")
    result = pmoe_here("run", "sac", *flags("sac", env="Pendulum-v1"), "--resume")
    failed(result, "is missing or damaged", "start again")
