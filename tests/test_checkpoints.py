"""What a run keeps beside its results: the last checkpoints, the best policy, the text of its algorithm."""

import shutil
from pathlib import Path

import pytest
import torch
from common import LOOPS, MODULES, checkpoint, json_of, refused, rows_of, same, same_run, train

import pmoe
from pmoe import pmoe_sac


def kept(path: Path) -> list[str]:
    names = [file.name for file in path.glob("checkpoint/*.pt")]
    return sorted(names)


def load(file: Path) -> dict:
    return torch.load(file, weights_only=True)


def actor_in(state: dict) -> dict:
    actor = {}
    for name, x in state["learnt"].items():
        if name.startswith("actor."):
            actor[name] = x
    return actor


def contents(path: Path) -> dict[Path, bytes]:
    files = [file for file in path.rglob("*") if file.is_file()]
    return {file: file.read_bytes() for file in files}


@pytest.fixture(scope="module")
def keeping(tmp_path_factory) -> Path:
    [path] = train("sac", tmp_path_factory.mktemp("keeping"), keep_checkpoints=3, eval_every=100)
    return path


def test_the_last_checkpoints_stay(keeping):
    assert kept(keeping) == ["0000000200.pt", "0000000300.pt", "0000000400.pt", "best.pt"]


def test_the_best_policy_is_that_of_the_best_evaluation(keeping):
    best = load(keeping / "checkpoint/best.pt")
    means = {}
    for row in rows_of(keeping / "eval.csv"):
        means[int(row["step"])] = float(row["return_mean"])
    assert len(means) == 4
    assert best["return_mean"] == max(means.values())
    assert best["return_mean"] == means[best["step"]]
    assert best["learnt"].keys() == actor_in(checkpoint(keeping)).keys()


@pytest.mark.parametrize("algo", LOOPS)
def test_a_policy_of_before_is_loaded(tmp_path, algo):
    """That of a step, the best and the last one, each with the parameters that it had then"""
    [path] = train(algo, tmp_path, keep_checkpoints=9, eval_every=100)
    load_actor = MODULES[algo].load_actor
    obs = torch.randn(1, 5, 3)
    last = load_actor(path).act(obs)
    assert torch.equal(last, load_actor(path, "last").act(obs))
    assert torch.equal(last, load_actor(path, "400").act(obs))
    assert not torch.equal(last, load_actor(path, "200").act(obs))

    best = load(path / "checkpoint/best.pt")
    step = best["step"]
    then = load(path / f"checkpoint/{step:010}.pt")
    assert same(best["learnt"], actor_in(then))
    best_act = load_actor(path, "best").act(obs)
    assert torch.equal(best_act, load_actor(path, str(step)).act(obs))


def test_a_step_without_a_checkpoint_is_refused(keeping, capsys):
    with pytest.raises(SystemExit):
        pmoe_sac.load_actor(keeping, "100")
    assert "0000000100.pt is missing" in capsys.readouterr().err


def test_the_best_policy_is_resumed(tmp_path):
    """Two seeds that are made longer, and two that were as long from the start"""
    options = {"eval_every": 50, "checkpoint_every": 50, "num_seeds": 2}
    straight = train("sac", tmp_path / "straight", **options)
    train("sac", tmp_path / "stopped", **{**options, "total_timesteps": 200})
    resumed = train("sac", tmp_path / "stopped", **options, resume=True)
    for path, other in zip(straight, resumed, strict=True):
        same_run(path, other)
        assert same(load(path / "checkpoint/best.pt"), load(other / "checkpoint/best.pt"))


def test_an_evaluation_that_a_longer_run_does_not_make_is_not_its_best(tmp_path):
    """At the end of a run whose length is no multiple of --eval-every; that of seed 3 is better there than
    at any other step."""
    options = {"eval_every": 150, "checkpoint_every": 50, "seed": 3}
    [straight] = train("sac", tmp_path / "straight", **options)
    expected = load(straight / "checkpoint/best.pt")
    [shorter] = train("sac", tmp_path / "longer", **{**options, "total_timesteps": 200})
    best = load(shorter / "checkpoint/best.pt")
    assert best["step"] == 200
    assert best["return_mean"] > expected["return_mean"]
    [longer] = train("sac", tmp_path / "longer", **options, resume=True)
    assert same(load(longer / "checkpoint/best.pt"), expected)


def test_without_an_evaluation_there_is_no_best_policy(tmp_path):
    """The last evaluation of a run, made because it ended there, is not in the checkpoint of a longer one."""
    [path] = train("sac", tmp_path, total_timesteps=100, eval_every=10**6)
    assert kept(path) == ["0000000100.pt", "best.pt"]
    [path] = train("sac", tmp_path, total_timesteps=200, eval_every=10**6, resume=True)
    assert checkpoint(path)["best"] == {}
    assert checkpoint(path)["step"] == 200


# Asked for by name


@pytest.mark.parametrize("which", ["best", "300"])
def test_eval_and_python_take_a_policy_of_before(pmoe_here, keeping, which):
    step = load(keeping / "checkpoint/best.pt")["step"] if which == "best" else 300
    shown = pmoe_here("eval", keeping, "--checkpoint", which, "--episodes", 1)
    assert shown.returncode == 0, shown.stderr
    assert f" {step} " in shown.stdout
    policy = pmoe.load_policy(keeping, which)
    assert policy.step == step
    obs = torch.randn(5, 3)
    expected = pmoe_sac.load_actor(keeping, which).act(obs.unsqueeze(0))[0]
    # Pendulum's torque is from -2 to 2.
    torch.testing.assert_close(policy(obs), 2 * expected)


def test_a_checkpoint_that_is_not_there(pmoe_here, keeping, tmp_path):
    refused(
        pmoe_here("eval", keeping, "--checkpoint", "100"), "no checkpoint of step 100, but of 200, 300, 400"
    )
    refused(pmoe_here("eval", keeping, "--checkpoint", "first"), "--checkpoint must be last, best or a step")
    with pytest.raises(ValueError, match="no checkpoint of step 100"):
        pmoe.load_policy(keeping, 100)
    with pytest.raises(ValueError, match="'first'"):
        pmoe.load_policy(keeping, "first")
    copy = tmp_path / "copy"
    shutil.copytree(keeping, copy)
    (copy / "checkpoint/best.pt").write_bytes(b"half")
    refused(pmoe_here("eval", copy, "--checkpoint", "best"), "best.pt is damaged")
    (copy / "checkpoint/best.pt").unlink()
    refused(pmoe_here("eval", copy, "--checkpoint", "best"), "has no best policy yet")


# The text of the algorithm


def test_a_run_keeps_the_text_of_its_algorithm(keeping):
    assert (keeping / "source.py").read_text() == Path(pmoe_sac.__file__).read_text()


def test_another_text_does_not_resume_it(tmp_path, monkeypatch, capsys):
    """Nothing is changed; with the text that it had the run goes on."""
    [path] = train("sac", tmp_path, total_timesteps=200)
    before = contents(path)
    with monkeypatch.context() as patch:
        patch.setattr(pmoe_sac, "source_hash", lambda: "another")
        with pytest.raises(SystemExit) as end:
            train("sac", tmp_path, resume=True)
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert f"was started with another pmoe_sac.py; to --resume it, cp {path}/source.py pmoe_sac.py" in error
    assert contents(path) == before
    train("sac", tmp_path, resume=True)
    assert checkpoint(path)["step"] == 400


def test_the_version_of_an_environment_is_recorded(tmp_path):
    [path] = train("sac", tmp_path, env_id="Pendulum", total_timesteps=100)
    assert json_of(path / "config.json")["env"] == "Pendulum-v1"


def test_a_colon_stands_in_no_folder(tmp_path):
    args = pmoe_sac.Args(env_id="my_envs:F64-v0", run_dir=str(tmp_path))
    [path] = pmoe_sac.run_paths(args)
    assert path.relative_to(tmp_path).parts[0] == "my_envs-F64-v0"
