"""`pmoe.load_policy` and `pmoe export`: what a policy does outside of this project."""

import re
import shutil
import subprocess
import sys

import numpy as np
import onnxruntime
import pytest
import torch
from common import MODULES, ROOT, failed, train

import pmoe as package
from pmoe.algorithms import file_of, load
from pmoe.policy import export

BOUNDS = "ToyUnits-v0,low=(-1,0),high=(3,10)"  # of its two actions
N = 5


@pytest.fixture(scope="module")
def bounded(tmp_path_factory):
    """Run directories in an environment whose bounds are not -1 and 1; not to be changed"""
    root = tmp_path_factory.mktemp("bounded")
    paths = {}
    for algo in ("sac", "ppo", "dac"):
        (paths[algo],) = train(algo, root, env_id=BOUNDS, total_timesteps=300)
    return paths


def some_obs(policy, n=N, seed=0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, policy.obs_size))


def test_import_is_cheap():
    code = "import sys, pmoe; print(sorted({'torch', 'numpy', 'gymnasium'} & set(sys.modules)))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown == "[]\n"


# What a policy takes and gives


def test_the_episodes_of_an_evaluation(quick_run, algo):
    """Step by step from Python they have the returns that `pmoe eval` would print."""
    path = quick_run(algo)
    policy = package.load_policy(path)
    module = MODULES[algo]
    envs = module.Envs("Pendulum-v1", 2)
    (returns,) = envs.evaluate(module.load_actor(path).act, [1], 400)
    for i, wanted in enumerate(returns):
        env = envs.envs[i]
        envs.start(module.random_seeds(2, 1, 400))
        obs = envs.obs[i]
        policy.reset()
        total = 0.0
        ended = False
        while not ended:
            obs, reward, terminated, truncated, _ = env.step(policy(obs))
            total += reward
            ended = terminated or truncated
        assert total == pytest.approx(wanted)


@pytest.mark.parametrize("algo", ["sac", "ppo"])
def test_every_kind_of_observations_gives_its_kind_of_actions(bounded, algo):
    policy = package.load_policy(str(bounded[algo]))
    obs = some_obs(policy)
    actions = policy(obs)
    assert policy.obs_size == 2
    assert policy.env_id == BOUNDS
    assert policy.step == 300
    assert type(actions) is np.ndarray
    assert actions.dtype == policy.action_space.dtype
    assert actions.shape == (N, 2)
    for dtype in (np.float32, np.float64):
        assert (policy(obs.astype(dtype)) == actions).all()
        tensor = policy(torch.tensor(obs.astype(dtype), requires_grad=True))
        assert isinstance(tensor, torch.Tensor)
        assert (tensor.numpy() == actions).all()
    single = policy(obs[0])
    assert single.shape == (2,)
    assert np.allclose(single, actions[0], atol=1e-5)
    assert policy(torch.tensor(obs[0])).shape == (2,)
    assert (policy(obs[0].tolist()) == single).all()
    assert policy(obs[:0]).shape == (0, 2)


def test_actions_are_within_the_bounds_of_the_environment(bounded):
    policy = package.load_policy(bounded["sac"])
    low, high = policy.action_space.low, policy.action_space.high
    actor = MODULES["sac"].load_actor(bounded["sac"])
    obs = some_obs(policy, 100) * 100
    units = actor.act(torch.tensor(obs, dtype=torch.float32)[None])[0].numpy()
    actions = policy(obs)
    assert np.allclose(actions, low + (units + 1) / 2 * (high - low), atol=1e-5)
    assert all(policy.action_space.contains(action) for action in actions)


@pytest.mark.parametrize(
    "obs", [np.zeros(3), np.zeros((2, 2, 2)), np.float64(1), {"a": 1}, "ab", None], ids=repr
)
def test_what_is_no_observation(bounded, obs):
    policy = package.load_policy(bounded["sac"])
    with pytest.raises(ValueError, match="observation"):
        policy(obs)


# A policy with a memory


def switching(path):
    """DAC's policy, whose options end and begin anew more often than after a short training"""
    policy = package.load_policy(path)
    with torch.no_grad():
        policy.actor.master[4].weight.mul_(1e3)
    policy.untouched.load_state_dict(policy.actor.state_dict())
    return policy


def test_reset_forgets_the_option(bounded):
    policy = switching(bounded["dac"])
    first, *others = some_obs(policy, 40)
    action = policy(first)
    options = set()
    for obs in others:
        policy(obs)
        options.add(policy.actor.option.item())
    assert options == {0, 1}
    policy.reset()
    assert policy.actor.option is None
    assert (policy(first) == action).all()


def test_episodes_of_a_batch_end_one_by_one(bounded):
    policy = switching(bounded["dac"])
    obs = some_obs(policy, 40)
    policy(obs)
    before = policy.actor.option.clone()
    ended = np.arange(40) < 10
    policy.reset(ended)
    option = policy.actor.option
    assert (option[0, :10] == -1).all()
    assert torch.equal(option[0, 10:], before[0, 10:])
    actions = policy(obs[::-1].copy())
    policy.reset()
    anew = policy(obs[::-1].copy())
    assert (actions[:10] == anew[:10]).all()
    assert not (actions == anew).all()


def test_a_memory_of_other_episodes_is_not_taken(bounded):
    """One option would silently be that of all."""
    policy = package.load_policy(bounded["dac"])
    policy(some_obs(policy, 1))
    with pytest.raises(ValueError, match="1 observations at the step before, and now 5; reset"):
        policy(some_obs(policy, 5))
    policy.reset()
    assert policy(some_obs(policy, 5)).shape == (5, 2)


def test_memoryless_policies_are_reset_too(bounded):
    policy = package.load_policy(bounded["sac"])
    policy(some_obs(policy, 1))
    policy(some_obs(policy, 5))
    policy.reset(np.ones(5, bool))
    policy.reset()


# Where from


def test_a_fork(bounded, tmp_path):
    fork = tmp_path / "my_idea.py"
    text = file_of("sac").read_text().replace("squeeze(2).tanh().cpu()", "squeeze(2).tanh().cpu() * 0.5")
    fork.write_text(text)
    module = load(fork)
    fields = {"env_id": "Pendulum-v1", "run_dir": str(tmp_path), "total_timesteps": 20, "random_steps": 10}
    (path,) = module.train(module.Args(**fields, compile="off", eval_episodes=1))
    policy = package.load_policy(path)
    assert abs(policy(some_obs(policy, 100))).max() <= 1
    fork.rename(path / "source.py")
    assert package.load_policy(path).obs_size == policy.obs_size
    (path / "source.py").unlink()
    with pytest.raises(ValueError, match="my_idea") as error:
        package.load_policy(path)
    assert error.type is ValueError  # and not one of plots


@pytest.fixture
def run_dir(bounded, tmp_path):
    """A copy, to be damaged"""
    return shutil.copytree(bounded["sac"], tmp_path / "seed1")


def test_no_run(tmp_path, run_dir):
    for path, words in ((tmp_path / "none", "no such folder"), (tmp_path, "config.json")):
        with pytest.raises(FileNotFoundError, match=words):
            package.load_policy(path)
    for file in run_dir.glob("checkpoint/*.pt"):
        file.unlink()
    with pytest.raises(FileNotFoundError, match="has no checkpoint"):
        package.load_policy(run_dir)


@pytest.mark.parametrize(
    "name, content, words",
    [
        ("config.json", "{", "config.json is damaged"),
        ("checkpoint/0000000300.pt", "no zip", "damaged or no checkpoint"),
    ],
)
def test_damaged(run_dir, name, content, words):
    (run_dir / name).write_text(content)
    with pytest.raises(ValueError, match=words) as error:
        package.load_policy(run_dir)
    assert error.type is ValueError  # and not one of plots


def test_no_environment(run_dir):
    file = run_dir / "config.json"
    file.write_text(file.read_text().replace("ToyUnits", "ToyGone"))
    with pytest.raises(ValueError, match="its environment cannot be made .*ToyGone") as error:
        package.load_policy(run_dir)
    assert error.type is ValueError  # and not one of plots


# Exported


@pytest.mark.parametrize("algo", ["ppo", "dac"])
def test_onnx(bounded, algo, tmp_path, pmoe_here):
    """With the statistics of observations, which only PPO's family has, and DAC's memory"""
    result = pmoe_here("export", bounded[algo], "policy.onnx")
    assert result.returncode == 0
    assert result.stderr == ""
    assert result.stdout.startswith("wrote policy.onnx: obs (batch, 2)")
    assert [file.name for file in tmp_path.iterdir()] == ["policy.onnx"]
    policy = package.load_policy(bounded[algo])
    session = onnxruntime.InferenceSession(tmp_path / "policy.onnx")
    inputs = {"option": np.full(N, -1)} if algo == "dac" else {}
    for seed in range(3):
        obs = some_obs(policy, seed=seed).astype(np.float32)
        action, *option = session.run(None, {"obs": obs, **inputs})
        assert np.allclose(action, policy(obs), atol=1e-4)
        inputs = {"option": option[0]} if option else {}


@pytest.mark.parametrize("algo", ["gating-sac", "mcp-ppo", "dac"])
def test_pt(quick_run, algo, tmp_path, pmoe_here):
    path = quick_run(algo)
    assert pmoe_here("export", path, "policy.pt2").returncode == 0
    policy = package.load_policy(path)
    module = torch.export.load(tmp_path / "policy.pt2").module()
    for n in (1, 7):
        obs = torch.tensor(some_obs(policy, n), dtype=torch.float32)
        policy.reset()
        if policy.remembers:
            action, _ = module(obs, torch.full((n,), -1))
        else:
            action = module(obs)
        assert torch.allclose(action, policy(obs), atol=1e-4)


def test_nothing_is_overwritten_unless_asked(bounded, tmp_path, pmoe_here):
    file = tmp_path / "policy.pt2"
    file.write_text("mine")
    failed(pmoe_here("export", bounded["sac"], "policy.pt2"), "policy.pt2 exists; --overwrite")
    assert file.read_text() == "mine"
    assert pmoe_here("export", bounded["sac"], "policy.pt2", "--overwrite").returncode == 0
    assert torch.export.load(file)


@pytest.mark.parametrize(
    "words, message",
    [
        (["none", "policy.pt2"], "none: no such folder"),
        ([".", "policy.pt2"], "it has no config.json"),
        (["RUN", "policy.pt"], "an .onnx or a .pt2 file"),
        (["RUN", "none/policy.pt2"], "there is no folder none"),
        (["runs", "table.csv"], "curves need -o, as in `pmoe export runs -o table.csv`"),
        (["RUN"], "give RUN_DIR FILE.onnx, for a policy"),
    ],
)
def test_bad_input(bounded, tmp_path, pmoe_here, words, message):
    words = [bounded["sac"] if word == "RUN" else word for word in words]
    failed(pmoe_here("export", *words), message)
    assert list(tmp_path.iterdir()) == []


def test_what_the_onnx_file_needs_is_named(bounded, monkeypatch, pmoe_here):
    monkeypatch.setattr(export, "NEEDED", ("onnx", "not_there"))
    failed(pmoe_here("export", bounded["sac"], "policy.onnx"), "needs not_there: pip install not_there")


def test_what_does_otherwise_than_the_policy_is_not_written(bounded, monkeypatch, tmp_path, pmoe_here):
    """As what depends on something that the exporter took for a constant"""
    runner = export.torch_runner

    def wrong(content):
        run = runner(content)
        return lambda *inputs: [x + 0.01 for x in run(*inputs)]

    monkeypatch.setattr(export, "torch_runner", wrong)
    result = pmoe_here("export", bounded["sac"], "policy.pt2")
    assert result.returncode == 1
    assert "does otherwise than the policy" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_the_page_for_users(quick_run, tmp_path, pmoe_here, monkeypatch):
    """Its examples run as they stand, in its order."""
    shutil.copytree(quick_run("ppo"), tmp_path / "runs/Hopper-v4/sac-k4/seed1")
    shutil.copytree(quick_run("dac"), tmp_path / "runs/HalfCheetah-v4/dac-k4/seed1")
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs/python.md").read_text()
    names: dict = {}
    ran = 0
    for language, code in re.findall(r"```(python|bash)\n(.*?)```", page, re.DOTALL):
        if language == "python":
            exec(code, names)  # noqa: S102
            ran += 1
            continue
        for line in code.splitlines():
            result = pmoe_here(*line.split()[1:])
            assert result.returncode == 0, result.stderr
    assert ran == 5
    assert names["action"].shape == (1, 1)
