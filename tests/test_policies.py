"""What a trained policy does in its episodes, how it samples, and which policies are shown."""

import os
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from common import MODULES, failed, run_at, train
from common_figures import close, run_of
from scipy import stats

import pmoe.envs  # noqa: F401
from pmoe.plots import policies, runs

WITH_PRIMITIVES = [algo for algo in MODULES if algo != "amortized-sac"]
EPISODES = 3
LENGTH = 200  # of Pendulum's


@pytest.fixture
def run(quick_run, algo):
    return run_at(quick_run(algo))


@pytest.fixture
def actor(run, algo):
    return MODULES[algo].load_actor(run.path)


def evaluate(run, act) -> np.ndarray:
    """Returns of the episodes of `pmoe eval`"""
    envs = MODULES[run.algo].Envs(run.env, EPISODES)
    return envs.evaluate(act, [run.seed], run.budget)[0]


# What a policy does


def test_a_rollout_is_the_evaluation(run, actor):
    steps = policies.rollout(run, EPISODES)
    assert (steps.returns == evaluate(run, actor.act)).all()
    rewards = np.bincount(steps.episode, steps.reward)
    close(rewards, steps.returns)


def test_the_fields_of_a_rollout(run):
    steps = policies.rollout(run, EPISODES)
    n = EPISODES * LENGTH
    k = 2
    assert steps.obs.shape == (n, 3)
    assert steps.action.shape == (n, 1)
    assert steps.log_w.shape == (n, k)
    for each in (steps.mean, steps.log_std, steps.mean_action):
        assert each.shape == (n, k, 1)
    for each in (steps.reward, steps.chosen, steps.done):
        assert each.shape == (n,)
    times = np.arange(LENGTH)
    assert (steps.episode == np.repeat(range(EPISODES), LENGTH)).all()
    assert (steps.time == np.tile(times, EPISODES)).all()
    assert (steps.done == (steps.time == LENGTH - 1)).all()
    assert abs(steps.action).max() <= 1


def test_the_likeliest_primitive_acts_or_all_are_composed(run, actor, algo):
    steps = policies.rollout(run, EPISODES)
    close(np.exp(steps.log_w).sum(-1), 1, 1e-5)
    assert (steps.chosen == steps.log_w.argmax(-1)).all()
    chosen = steps.mean_action[np.arange(len(steps.obs)), steps.chosen]
    composed = hasattr(MODULES[algo], "compose")
    assert policies.composes(run) == composed
    if composed:
        obs = torch.from_numpy(steps.obs)
        action = actor.act(obs[None])[0].numpy()
        close(steps.action, action.clip(-1, 1), 1e-5)
        assert not np.allclose(chosen, steps.action, atol=1e-4)
    else:
        close(steps.action, chosen, 1e-5)


@pytest.mark.parametrize("primitive", [0, 1])
def test_a_primitive_alone(run, actor, primitive):
    def act(obs):
        return actor.act(obs, lambda log_w: torch.full_like(log_w[..., :1], primitive).long())

    steps = policies.rollout(run, EPISODES, primitive)
    assert (steps.returns == evaluate(run, act)).all()
    assert (steps.chosen == primitive).all()
    close(steps.action, steps.mean_action[:, primitive], 1e-5)


@pytest.mark.parametrize("algo", ["sac", "ppo", "mrp-sac", "gating-sac"])
def test_the_routers_probabilities_are_the_actors(run, actor):
    steps = policies.rollout(run, 1)
    obs = torch.from_numpy(steps.obs)
    mean, log_std, log_w = policies.gaussians(actor, obs[None])
    close(steps.mean, mean, 1e-5)
    close(steps.log_std, log_std, 1e-5)
    close(steps.log_w, log_w, 1e-5)


@pytest.mark.parametrize("algo", ["mcp-sac"])
def test_mcps_weights_are_shares_of_its_gates(run, actor):
    steps = policies.rollout(run, 1)
    obs = torch.from_numpy(steps.obs)
    _, _, log_gates = policies.gaussians(actor, obs[None])
    gates = np.exp(log_gates.numpy())
    shares = gates / gates.sum(-1, keepdims=True)
    assert gates.max() < 1
    close(np.exp(steps.log_w), shares, 1e-5)


@pytest.mark.parametrize("sample", [False, True])
@pytest.mark.parametrize("algo", ["dac"])
def test_dac_keeps_its_option(run, actor, sample):
    """The weights are given the option before, also where actions are drawn."""
    steps = policies.rollout(run, EPISODES, sample=sample)
    obs = torch.from_numpy(steps.obs)
    with torch.no_grad():
        *_, log_mu, ends = actor(actor.statistics.normalize(obs[None]))
    before = np.roll(steps.chosen, 1)
    before[steps.time == 0] = -1
    option = torch.from_numpy(before)[None, :, None]
    log_high = MODULES["dac"].high_log_prob(log_mu, ends, option)
    close(steps.log_w, log_high[0], 1e-5)


def test_episodes_of_different_length(reaching):
    run = run_of(reaching, "PMOE-SAC K=3")
    steps = policies.rollout(run, 8)
    lengths = np.bincount(steps.episode)
    times = [np.arange(length) for length in lengths]
    assert len(set(lengths)) > 1
    assert (np.diff(steps.episode) >= 0).all()
    assert (steps.time == np.concatenate(times)).all()
    assert (np.flatnonzero(steps.done) == np.cumsum(lengths) - 1).all()
    rewards = np.bincount(steps.episode, steps.reward)
    close(rewards, steps.returns, 1e-3)
    first = steps.obs[steps.time == 0]
    close(first[:, -4:], 0)  # at rest


def test_frames_are_of_the_episode_itself(reaching):
    run = run_of(reaching, "PMOE-SAC K=3")
    steps = policies.rollout(run, EPISODES)
    again = policies.rollout(run, EPISODES, frames_at=[0, 5])
    assert (again.obs == steps.obs).all()
    assert (again.returns == steps.returns).all()
    first, later = again.frames
    assert first.shape == (512, 512, 3)
    assert (first != later).any()


@pytest.mark.parametrize("algo", ["sac", "ppo", "dac"])
def test_a_policy_asked_in_its_states_says_what_it_did_there(quick_run, algo):
    """PPO's normalises them itself; DAC's keeps an option, which has no say in what each would do."""
    (run,), _ = runs.find([quick_run(algo)])
    steps = policies.rollout(run, 2)
    mean, log_std = policies.gaussians_in(run, steps.obs[::-1].copy())
    close(mean, steps.mean[::-1], 1e-5)
    close(log_std, steps.log_std[::-1], 1e-5)


# Which are shown


@pytest.fixture(scope="module")
def some(tmp_path_factory):
    """Two seeds with two primitives, one with one; not to be changed"""
    root = tmp_path_factory.mktemp("some")
    train("sac", root, seed=2, num_seeds=2, total_timesteps=120)
    train("sac", root, k=1, total_timesteps=120)
    return root


def pick(root, **options) -> tuple:
    found, _ = runs.find([root])
    return policies.pick(found, **options)


def test_the_first_seed_of_each_method_is_shown(some):
    (run,), notes = pick(some)
    assert run.seed == 2
    assert run.args["k"] == 2
    text = "\n".join(notes)
    assert f"the policy shown is {run.path} at step 120" in text
    assert "Pendulum-v1, SAC: its policy is not shown, as it has one primitive" in text


def test_policies_of_one_primitive_are_shown_where_that_says_something(some):
    picked, _ = pick(some, several=False)
    assert [run.args["k"] for run in picked] == [1, 2]


def test_a_seed_without_a_policy_makes_room_for_the_next(some, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(some, copy)
    (run,), _ = pick(copy)
    (file,) = run.path.glob("checkpoint/[0-9]*.pt")
    file.unlink()
    (other,), notes = pick(copy)
    assert other.seed == 3
    assert "seed2 has no checkpoint" in "\n".join(notes)
    (file,) = other.path.glob("checkpoint/[0-9]*.pt")
    file.write_bytes(b"")
    with pytest.raises(runs.PlotError, match="is damaged"):
        pick(copy)


@pytest.mark.parametrize("figure", ["routing", "primitives", "tsne"])
def test_one_primitive_is_refused(pmoe_here, reaching, tmp_path, figure):
    (path,) = reaching.glob("*/sac-k1*")
    result = pmoe_here("plot", path, f"--{figure}")
    failed(result, "TargetReaching-v0, SAC", "one primitive")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("names", [("TargetReaching-v0", "PMOE-SAC K=4 lr=0.001"), ("my/Env-v0", "a b.c")])
def test_file_names(tmp_path, names):
    file = policies.stem(tmp_path, "routing", *names)
    assert file.parent == tmp_path
    assert file.with_suffix(".png").stem == file.name


def test_where_nothing_renders(monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "nonsense")
    assert policies.choose_renderer("Hopper-v4")
    assert os.environ["MUJOCO_GL"] == "nonsense"


# Actions drawn as in training

MEAN = np.array([-0.8, 0.6])  # of two primitives
STD = np.array([0.2, 0.5])
W = np.array([0.3, 0.7])
DRAWS = 4000


@pytest.fixture
def apart(run, algo, monkeypatch):
    """A run whose primitives are those above in every state"""
    module = MODULES[algo]
    load_actor = module.load_actor

    def load_apart(path):
        actor = load_actor(path)
        forward = actor.forward

        def constant(obs):
            mean, log_std, log_w, *rest = forward(obs)
            mean = torch.zeros_like(mean) + torch.tensor(MEAN[:, None]).float()
            log_std = torch.zeros_like(mean) + torch.tensor(np.log(STD[:, None])).float()
            log_w = torch.zeros_like(log_w) + torch.tensor(np.log(W)).float()
            return mean, log_std, log_w, *rest

        actor.forward = constant
        return actor

    monkeypatch.setattr(module, "load_actor", load_apart)
    return run


def draw(run, primitive=None) -> np.ndarray:
    """Drawn for one observation, before the tanh, (N,)"""
    envs = SimpleNamespace(n=DRAWS, obs_size=3, action_size=1)
    obs = torch.tensor([0.5, -0.8, 0.3]).expand(1, DRAWS, 3)
    act = policies.sampler(run, envs, primitive)
    again = policies.sampler(run, envs, primitive)
    action = act(obs)
    assert action.shape == (1, DRAWS, 1)
    assert torch.equal(action, again(obs))
    assert not torch.equal(action, act(obs))
    if run.family == "SAC":
        action = action.atanh()
    return action.double().numpy().ravel()


def assert_moments(x: np.ndarray, mean: float, std: float) -> None:
    """Within some five standard errors"""
    assert x.mean() == pytest.approx(mean, abs=5 * std / DRAWS**0.5)
    assert x.std() == pytest.approx(std, rel=0.06)


@pytest.mark.parametrize("algo", WITH_PRIMITIVES)
@pytest.mark.parametrize("primitive", [0, 1])
def test_a_primitive_alone_draws_from_its_gaussian(apart, primitive):
    x = draw(apart, primitive)
    mean = MEAN[primitive]
    std = STD[primitive]
    assert_moments(x, mean, std)
    z = (x - mean) / std
    assert stats.kstest(z, "norm").pvalue > 1e-4


@pytest.mark.parametrize("algo", WITH_PRIMITIVES)
def test_a_policy_draws_from_its_mixture_or_from_what_it_composes(apart, algo):
    if algo == "gating-sac":  # u = sum_k w_k u_k
        mean = W @ MEAN
        variance = W**2 @ STD**2
    elif algo.startswith("mcp"):  # prod_k N_k^w_k
        precision = W / STD**2
        variance = 1 / precision.sum()
        mean = variance * precision @ MEAN
    else:
        mean = W @ MEAN
        variance = W @ (STD**2 + MEAN**2) - mean**2
    assert_moments(draw(apart), mean, variance**0.5)


@pytest.mark.parametrize("algo", ["gating-sac"])
def test_draws_are_by_the_options_of_the_run(apart):
    printed = replace(apart, args={**apart.args, "variance": "printed"})
    variance = W @ STD**2
    assert_moments(draw(printed), W @ MEAN, variance**0.5)


def test_another_seed_draws_otherwise(apart):
    other = replace(apart, args={**apart.args, "seed": 2})
    assert (draw(apart) != draw(other)).all()
