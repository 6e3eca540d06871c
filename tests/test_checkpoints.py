"""What a run keeps beside its results: the last checkpoints, the best policy, the text of its algorithm."""

from pathlib import Path

import pytest
import torch
from common import LOOPS, MODULES, checkpoint, json_of, rows_of, same, same_run, train

from pmoe import pmoe_sac


def kept(path: Path) -> list[str]:
    return sorted(file.name for file in path.glob("checkpoint/*.pt"))


def actor_in(state: dict) -> dict:
    return {name: x for name, x in state["learnt"].items() if name.startswith("actor.")}


@pytest.fixture(scope="module")
def keeping(tmp_path_factory) -> Path:
    [path] = train("sac", tmp_path_factory.mktemp("keeping"), keep_checkpoints=3, eval_every=100)
    return path


def test_the_last_checkpoints_stay(keeping):
    assert kept(keeping) == ["0000000200.pt", "0000000300.pt", "0000000400.pt", "best.pt"]


def test_the_best_policy_is_that_of_the_best_evaluation(keeping):
    best = torch.load(keeping / "checkpoint/best.pt", weights_only=True)
    rows = rows_of(keeping / "eval.csv")
    row = max(rows, key=lambda row: float(row["return_mean"]))
    assert best["step"] == int(row["step"])
    assert best["return_mean"] == float(row["return_mean"])
    assert not any(name.startswith("qf") for name in best["learnt"])


@pytest.mark.parametrize("algo", LOOPS)
def test_a_policy_of_before_is_loaded(tmp_path, algo):
    """That of a step, the best and the last one, each with the parameters that it had then"""
    [path] = train(algo, tmp_path, keep_checkpoints=9, eval_every=100)
    load_actor = MODULES[algo].load_actor
    obs = torch.randn(1, 5, 3)
    acts = {name: load_actor(path, name).act(obs) for name in ("best", "last", "200", "400")}
    assert torch.equal(acts["last"], acts["400"])
    assert torch.equal(acts["last"], load_actor(path).act(obs))
    assert not torch.equal(acts["last"], acts["200"])
    best = torch.load(path / "checkpoint/best.pt", weights_only=True)
    then = torch.load(path / f"checkpoint/{best['step']:010}.pt", weights_only=True)
    assert same(best["learnt"], actor_in(then))
    assert torch.equal(acts["best"], load_actor(path, str(best["step"])).act(obs))


def test_a_step_without_a_checkpoint_is_refused(keeping, capsys):
    with pytest.raises(SystemExit):
        pmoe_sac.load_actor(keeping, "100")
    assert "0000000100.pt is missing" in capsys.readouterr().err


def test_the_best_policy_is_resumed(tmp_path, monkeypatch):
    """A run that is stopped after its best evaluation, and one whose best is yet to come"""
    options = {"eval_every": 50, "checkpoint_every": 50, "num_seeds": 2}
    straight = train("sac", tmp_path / "straight", **options)
    train("sac", tmp_path / "stopped", **{**options, "total_timesteps": 200})
    resumed = train("sac", tmp_path / "stopped", **options, resume=True)
    for path, other in zip(straight, resumed):
        same_run(path, other)
        best = (path / "checkpoint/best.pt").read_bytes()
        assert best == (other / "checkpoint/best.pt").read_bytes()


def test_an_evaluation_that_a_longer_run_does_not_make_is_not_its_best(tmp_path):
    """At the end of a run whose length is no multiple of --eval-every"""
    options = {"eval_every": 150, "checkpoint_every": 50}
    [straight] = train("sac", tmp_path / "straight", **options)
    train("sac", tmp_path / "longer", **{**options, "total_timesteps": 200})
    [longer] = train("sac", tmp_path / "longer", **options, resume=True)
    assert (straight / "checkpoint/best.pt").read_bytes() == (longer / "checkpoint/best.pt").read_bytes()


def test_without_an_evaluation_there_is_no_best_policy(tmp_path, monkeypatch, capsys):
    """A run that is stopped early has checkpoints, and none of a best policy"""
    [path] = train("sac", tmp_path, total_timesteps=100, eval_every=10**6)
    assert kept(path) == ["0000000100.pt", "best.pt"]
    [path] = train("sac", tmp_path, total_timesteps=200, eval_every=10**6, resume=True)
    assert checkpoint(path)["best"] == {}
    assert checkpoint(path)["step"] == 200


# The text of the algorithm


def test_a_run_keeps_the_text_of_its_algorithm(keeping):
    assert (keeping / "source.py").read_text() == Path(pmoe_sac.__file__).read_text()


def test_another_text_does_not_resume_it(tmp_path, monkeypatch, capsys):
    """Nothing is changed; with the text that it had the run goes on."""
    [path] = train("sac", tmp_path, total_timesteps=200)
    before = {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}
    with monkeypatch.context() as patch:
        patch.setattr(pmoe_sac, "source_hash", lambda: "another")
        with pytest.raises(SystemExit) as end:
            train("sac", tmp_path, resume=True)
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert "was started with another pmoe_sac.py" in error
    assert "source.py" in error
    assert before == {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}
    train("sac", tmp_path, resume=True)


def test_the_version_of_an_environment_is_recorded(tmp_path):
    [path] = train("sac", tmp_path, env_id="Pendulum", total_timesteps=100)
    assert json_of(path / "config.json")["env"] == "Pendulum-v1"


def test_a_colon_stands_in_no_folder(tmp_path):
    args = pmoe_sac.Args(env_id="my_envs:F64-v0", run_dir=str(tmp_path))
    [path] = pmoe_sac.run_paths(args)
    assert path.relative_to(tmp_path).parts[0] == "my_envs-F64-v0"
