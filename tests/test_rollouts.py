"""PPO's rollouts: what acts and is remembered, statistics, minibatches, and the rollouts of whole runs."""

from copy import deepcopy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from common import Toy, checkpoint, rows_of, train
from hypothesis import given, settings
from hypothesis import strategies as st
from ppo_agents import BOTH, perturb, ppo_agent, ppo_batch, ppo_noise, torch_log_prob

from pmoe.pmoe_ppo import (
    Agent,
    Batch,
    Drawn,
    Envs,
    Philox,
    RewardScale,
    Rollout,
    Statistics,
    minibatches,
    stack,
)

close = torch.testing.assert_close


# What the policy draws


@BOTH
def test_draw_says_the_density_of_what_it_draws(surrogate):
    agent = perturb(ppo_agent(surrogate=surrogate).double())
    drawn = ppo_batch(agent, 50)
    assert len(drawn.primitive.unique()) == 3
    expected = torch_log_prob(agent, drawn.obs, drawn.action, drawn.primitive)
    close(drawn.log_prob, expected)

    normal, _ = ppo_noise(agent, 50)
    mean, log_std, _ = agent.actor(drawn.obs)
    proposed = mean + log_std.exp() * normal
    acted = drawn.primitive.long().unsqueeze(-1)
    assert drawn.action.equal(proposed.take_along_dim(acted, 2).squeeze(2))


def test_draw_sees_normalized_observations_and_remembers_them():
    agent = ppo_agent(seeds=1)
    seen = []
    for _ in range(3):
        obs = 5 + 2 * torch.randn(1, 40, 4)
        seen.append(obs)
        drawn = agent.draw(obs, *ppo_noise(agent, 40))
        all_obs = torch.cat(seen, 1)
        mean = all_obs.mean(1, keepdim=True)
        std = all_obs.std(1, correction=0, keepdim=True)
        close(drawn.obs, (obs - mean) / std, rtol=1e-4, atol=1e-4)


def test_what_is_passed_on_has_named_fields():
    for kind in (Drawn, Rollout, Batch):
        assert issubclass(kind, tuple)
    assert Drawn._fields == ("obs", "action", "primitive", "log_prob")
    assert Rollout._fields == ("drawn", "next_obs", "reward", "terminated", "done")
    assert Batch._fields == (*Drawn._fields, "advantage", "returns")
    agent = ppo_agent()
    drawn = agent.draw(torch.randn(2, 5, 4), *ppo_noise(agent, 5))
    assert isinstance(drawn, Drawn)
    shapes = [field.shape for field in drawn]
    assert shapes == [(2, 5, 4), (2, 5, 2), (2, 5, 1), (2, 5, 1)]


# The deterministic policy


def test_who_has_seen_nothing_acts():
    """As `pmoe eval` lets the checkpoint of step 0 do."""
    actor = ppo_agent().actor
    assert actor.act(torch.randn(2, 5, 4)).isfinite().all()


def test_act_uses_the_statistics_and_routes_as_asked():
    agent = perturb(ppo_agent(seeds=1))
    actor = agent.actor
    actor.router.bias.data.zero_()
    actor.statistics.update(3 + 4 * torch.randn(1, 1000, 4))
    before = actor.statistics.sums.clone()
    obs = 3 + 4 * torch.randn(1, 200, 4)
    mean, _, log_w = actor(actor.statistics.normalize(obs))
    means = mean.clamp(-1, 1)  # (1, 200, 3, 2)
    for k in range(3):
        alone = actor.act(obs, lambda log_w, k=k: torch.full_like(log_w[..., :1], k, dtype=int))
        assert alone.equal(means[:, :, k])

    best = log_w[0].argmax(-1)
    assert len(best.unique()) > 1
    states = torch.arange(200)
    likeliest = actor.act(obs)
    assert likeliest[0].equal(means[0, states, best])
    assert actor.statistics.sums.equal(before)


def test_act_stays_within_the_bounds_of_actions():
    agent = perturb(ppo_agent(), 3.0)
    obs = 10 * torch.randn(2, 100, 4)
    action = agent.actor.act(obs)
    assert action.amin() == -1
    assert action.amax() == 1
    mean, _, _ = agent.actor(agent.actor.statistics.normalize(obs))
    assert mean.abs().max() > 1


def test_actions_are_in_units_of_their_bounds():
    """An action beyond them is moved to them by the environment alone."""
    envs = Envs("ToyTerminates-v0", 4)
    envs.start(range(4))
    given = []
    step = Toy.step

    def watch(env, action):
        given.append(action.copy())
        return step(env, action)

    action = np.float32([[-1, 1], [0, -0.5], [3, -2], [0.3, 0.2]])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Toy, "step", watch)
        envs.step(action)
    low = Toy.action_space.low.astype(float)
    high = Toy.action_space.high.astype(float)
    shift = (high + low) / 2
    scale = (high - low) / 2
    np.testing.assert_allclose(given, shift + scale * action.clip(-1, 1), rtol=1e-6)
    remembered = [actions[0] for actions in envs.actions]
    assert np.array_equal(remembered, action)


# Running statistics


@settings(deadline=None, max_examples=50)
@given(
    cuts=st.lists(st.integers(1, 59), max_size=6),
    offset=st.floats(-1000, 1000),
    spread=st.floats(0.1, 100),
    seed=st.integers(0, 10**6),
)
def test_statistics_are_those_of_all_that_was_seen(cuts, offset, spread, seed):
    """However it is cut into batches; per seed and dimension"""
    rng = np.random.default_rng(seed)
    times = np.array([1, 2]).reshape(2, 1, 1)
    normal = rng.normal(size=(2, 60, 3)) * times
    x = (offset + spread * normal).astype(np.float32)
    statistics = Statistics(3, Philox([0, 1]))
    for part in np.split(x, sorted(cuts), 1):
        statistics.update(torch.tensor(part))

    exact = x.astype(float)
    mean = exact.mean(1, keepdims=True)
    std = exact.std(1, keepdims=True)
    for centered in (True, False):
        expected = ((x - mean * centered) / std).clip(-10, 10)
        normalized = statistics.normalize(torch.tensor(x), centered)
        np.testing.assert_allclose(normalized, expected, rtol=1e-3, atol=1e-3)
        assert normalized.dtype == torch.float32


def discounted_returns(reward, done, gamma) -> np.ndarray:
    """What each environment has had so far of its episode's rewards, the last least discounted: (T, E)"""
    running = np.zeros(reward.shape[1])
    returns = []
    for now, end in zip(reward, done):
        running = now + gamma * running
        returns.append(running)
        running = running * (1 - end)
    return np.array(returns)


def test_rewards_are_divided_by_the_deviation_of_all_discounted_returns():
    """Of the seed, those of this rollout too; episodes go on from one rollout to the next."""
    rng = np.random.default_rng(0)
    reward = rng.normal(size=(2, 60, 3)) * [[[1]], [[5]]]
    done = rng.random((2, 60, 3)) < 0.1
    reward_scale = RewardScale(3, 0.9, Philox([0, 1]))
    rewards = torch.tensor(reward, dtype=torch.float32).unsqueeze(-1)
    ends = torch.tensor(done, dtype=torch.float32).unsqueeze(-1)
    returns = [discounted_returns(reward[s], done[s], 0.9) for s in range(2)]
    for first, last in ((0, 40), (40, 60)):
        given = rewards[:, first:last].clone()
        scaled = reward_scale(given, ends[:, first:last])
        assert given.equal(rewards[:, first:last])
        for s in range(2):
            expected = reward[s, first:last] / returns[s][:last].std()
            np.testing.assert_allclose(scaled[s, ..., 0], expected.clip(-10, 10), rtol=1e-4)
    running = [returns[s][-1] * (1 - done[s, -1]) for s in range(2)]
    np.testing.assert_allclose(reward_scale.discounted.squeeze(-1), running, rtol=1e-4, atol=1e-6)


def test_a_checkpoint_holds_the_statistics(quick_run):
    state = checkpoint(quick_run("ppo"))["learnt"]
    (of_obs,) = state["actor.statistics.sums"]
    (of_returns,) = state["reward_scale.statistics.sums"]
    count, _, _ = of_obs
    assert count.tolist() == [400, 400, 400]
    count, _, _ = of_returns
    assert count.item() == 400
    assert state["reward_scale.discounted"].shape == (1, 1, 1)


# Advantages and returns of a rollout


def test_returns_telescope_though_the_statistics_move():
    """With lambda = 1 they are of the rewards and of the last value alone, whatever is thought between."""
    agent = ppo_agent(seeds=1, gae_lambda=1.0, num_envs=1, gamma=0.9)
    sizes = torch.linspace(1, 30, 21).view(1, 21, 1, 1)
    obs = sizes * torch.randn(1, 21, 1, 4)
    drawn_steps = []
    env_steps = []
    for t in range(20):
        drawn_steps.append(agent.draw(obs[:, t], *ppo_noise(agent, 1, t)))
        env_steps.append((obs[0, t + 1].numpy(), np.ones(1), np.zeros(1), np.zeros(1)))
    batch, _ = agent.estimate(stack(drawn_steps, env_steps))

    one = torch.ones(1, 1, 1)
    reward = agent.reward_scale.statistics.normalize(one, centered=False).item()
    last = agent.actor.statistics.normalize(obs[:, 20])
    expected = agent.vf(last).item()
    for value in batch.returns.flatten().flip(0):
        expected = reward + 0.9 * expected
        assert value.item() == pytest.approx(expected, rel=1e-4)


def test_estimate_keeps_what_was_drawn():
    """In the order of steps, then of environments"""
    agent = ppo_agent(num_envs=3)
    steps = [agent.draw(torch.randn(2, 3, 4), *ppo_noise(agent, 3, t)) for t in range(5)]
    drawn = Drawn(*[torch.stack(field, 1) for field in zip(*steps)])
    zeros = torch.zeros(2, 5, 3, 1)
    next_obs = torch.randn(2, 5, 3, 4)
    batch, explained = agent.estimate(Rollout(drawn, next_obs, torch.randn(2, 5, 3, 1), zeros, zeros))
    for name, field in drawn._asdict().items():
        assert getattr(batch, name).equal(field.flatten(1, 2)), name
    assert batch.advantage.shape == (2, 15, 1)
    close(batch.returns - batch.advantage, agent.vf(batch.obs))
    assert explained.shape == (2,)


def test_arrays_of_steps_are_stacked_by_seed_step_and_environment():
    """As the tensors that were drawn are"""
    rng = np.random.default_rng(0)
    flags = np.zeros(6)
    env_steps = [(rng.normal(size=(6, 4)), rng.normal(size=6), flags, flags) for _ in range(5)]
    drawn_steps = [Drawn(*torch.randn(4, 2, 3, 1)) for _ in range(5)]
    rollout = stack(drawn_steps, env_steps)
    assert rollout.next_obs.shape == (2, 5, 3, 4)
    assert rollout.reward.shape == rollout.drawn.obs.shape == (2, 5, 3, 1)
    for s, t, e in np.ndindex(2, 5, 3):
        its_obs, its_reward, _, _ = env_steps[t]
        n = 3 * s + e
        np.testing.assert_allclose(rollout.next_obs[s, t, e], its_obs[n], rtol=1e-6)
        assert rollout.reward[s, t, e].item() == pytest.approx(its_reward[n], rel=1e-6)
        assert rollout.drawn.action[s, t, e].equal(drawn_steps[t].action[s, e])


# Minibatches


def numbered(n, seeds=2) -> Batch:
    """Each row of which says in every field whose it is and where"""
    rows = torch.arange(seeds * n, dtype=torch.float32).view(seeds, n, 1)
    wide = rows.expand(-1, -1, 4)
    return Batch(wide, rows, rows, rows, rows, rows)


def parts_of(n, size, epochs, seeds=2) -> list[Batch]:
    """The minibatches of n rows"""
    return list(minibatches(numbered(n, seeds), size, epochs, Philox(range(seeds))))


def stream_of(parts) -> torch.Tensor:
    """The rows in minibatches, one after the other: (S, .)"""
    numbers = [part.action.squeeze(-1) for part in parts]
    return torch.cat(numbers, 1)


def test_every_transition_is_in_each_pass():
    parts = parts_of(n=50, size=25, epochs=3)
    stream = stream_of(parts)
    assert len(parts) == 6
    for s in range(2):
        own = torch.arange(50.0) + 50 * s
        passes = stream[s].split(50)
        for order in passes:
            assert order.sort().values.equal(own)
            assert not order.equal(own)
        assert not passes[0].equal(passes[1])
    assert not stream[0].equal(stream[1] - 50)


def test_minibatches_may_span_two_passes_and_what_is_left_over_is_dropped():
    parts = parts_of(n=33, size=25, epochs=2)
    stream = stream_of(parts)
    assert [part.obs.shape for part in parts] == [(2, 25, 4), (2, 25, 4)]
    for s in range(2):
        first, second = stream[s].split([33, 17])
        assert first.sort().values.equal(torch.arange(33.0) + 33 * s)
        assert len(second.unique()) == 17
    assert parts_of(n=20, size=25, epochs=1) == []


def test_the_fields_of_a_minibatch_stay_together():
    parts = parts_of(n=33, size=25, epochs=2)
    for part in parts:
        assert isinstance(part, Batch)
        for field in part:
            assert field.equal(part.action.expand_as(field))


def test_a_seed_shuffles_the_same_alone_as_among_others():
    together = parts_of(n=33, size=25, epochs=2)
    alone = parts_of(n=33, size=25, epochs=2, seeds=1)
    first, _ = stream_of(together)
    (only,) = stream_of(alone)
    assert first.equal(only)


# Runs


@pytest.fixture
def rollouts(monkeypatch) -> list[SimpleNamespace]:
    """Of a test's runs: what went into `estimate` and came out, the agent as it then was, each `update`"""
    estimate = Agent.estimate
    update = Agent.update
    seen = []

    def watch_estimate(agent, rollout):
        batch, explained = estimate(agent, rollout)
        seen.append(SimpleNamespace(rollout=rollout, batch=batch, explained=explained))
        seen[-1].agent = deepcopy(agent)
        seen[-1].rates = []
        seen[-1].minibatches = []
        return batch, explained

    def watch_update(agent, batch, noise):
        seen[-1].rates.append(agent.rate.item())
        seen[-1].minibatches.append(batch)
        return update(agent, batch, noise)

    monkeypatch.setattr(Agent, "estimate", watch_estimate)
    monkeypatch.setattr(Agent, "update", watch_update)
    return seen


def rows(batch) -> torch.Tensor:
    """Of one seed, (B, .), all fields side by side"""
    return torch.cat(batch, -1)[0]


def test_every_transition_is_used_in_every_epoch(tmp_path, rollouts):
    train("ppo", tmp_path, update_epochs=3, total_timesteps=100)
    assert len(rollouts) == 2
    for rollout in rollouts:
        assert len(rollout.minibatches) == 6
        transitions = rows(rollout.batch).unique(dim=0)
        assert len(transitions) == 50
        parts = list(map(rows, rollout.minibatches))
        epochs = [torch.cat(parts[i : i + 2]) for i in (0, 2, 4)]
        assert not epochs[0].equal(epochs[1])
        for epoch in epochs:
            assert epoch.unique(dim=0).equal(transitions)


def steps_and_minibatches(rollouts) -> list[tuple[int, int, int]]:
    """Steps, environments and minibatches of each"""
    counts = []
    for seen in rollouts:
        _, length, envs, _ = seen.rollout.reward.shape
        updates = len(seen.minibatches)
        counts.append((length, envs, updates))
    return counts


def test_the_last_rollout_is_shorter(tmp_path, rollouts):
    """Of two epochs by 25, what is left over is left."""
    (path,) = train("ppo", tmp_path, num_envs=3, total_timesteps=399)
    assert steps_and_minibatches(rollouts) == [(50, 3, 12), (50, 3, 12), (33, 3, 7)]
    assert checkpoint(path)["step"] == 399
    last = rows_of(path / "eval.csv")[-1]
    assert last["step"] == "399"


def test_a_last_rollout_smaller_than_a_minibatch_is_not_learnt_from(tmp_path, rollouts):
    (path,) = train("ppo", tmp_path, update_epochs=1, total_timesteps=110)
    assert steps_and_minibatches(rollouts) == [(50, 1, 2), (50, 1, 2), (10, 1, 0)]
    assert checkpoint(path)["step"] == 110


def test_learning_rate_zero_learns_nothing(tmp_path):
    (path,) = train("ppo", tmp_path, learning_rate=0.0, total_timesteps=100, networks="separate")
    state = checkpoint(path)["learnt"]
    before = ppo_agent(k=2, seeds=2, obs_size=3, action_size=1).state_dict()
    for name in ("actor.mean.weight", "vf.0.weight", "qf.4.weight"):
        (learnt,) = state[name]
        _, made = before[name]  # of seeds 0 and 1
        assert learnt.equal(made), name


@pytest.mark.parametrize("anneal_lr", [True, False])
def test_the_learning_rate_falls_if_asked_to(tmp_path, rollouts, anneal_lr):
    train("ppo", tmp_path, anneal_lr=anneal_lr, total_timesteps=180)
    for rollout, begun in zip(rollouts, (0, 50, 100, 150), strict=True):
        assert rollout.rates
        left = 1 - begun / 180 if anneal_lr else 1
        for rate in rollout.rates:
            assert rate == pytest.approx(3e-4 * left)


def test_after_target_kl_the_next_rollout_is_learnt_from_again(tmp_path, rollouts):
    train("ppo", tmp_path, target_kl=1e-4, learning_rate=0.01, update_epochs=4)
    assert len(rollouts) == 8
    for rollout in rollouts:
        assert rollout.rates[0] == pytest.approx(0.01)
        assert rollout.rates[-1] == 0


def array(field) -> np.ndarray:
    """Of the only seed: (T, E, .), or (T, E) where there is one number"""
    x = field[0].double().numpy()
    return x.squeeze(-1) if x.shape[-1] == 1 else x


def values_of(seen) -> tuple[np.ndarray, np.ndarray]:
    """Of observations and of next observations, (T, E) each, the agent being as it then was"""
    next_obs = seen.rollout.next_obs.flatten(1, 2)
    normalized = seen.agent.actor.statistics.normalize(next_obs)
    with torch.no_grad():
        value = seen.agent.vf(seen.batch.obs)
        next_value = seen.agent.vf(normalized)
    like = seen.rollout.reward
    return array(value.view_as(like)), array(next_value.view_as(like))


TOYS = pytest.mark.parametrize("env_id, terminates", [("ToyTerminates-v0", 1), ("ToyTruncates-v0", 0)])
TWO_ROLLOUTS = {"num_envs": 2, "num_steps": 33, "total_timesteps": 132, "gamma": 0.9}


@TOYS
def test_rollouts_are_what_the_environments_did(tmp_path, rollouts, env_id, terminates):
    """An episode's last observation is the true one, and no reset is among the next observations."""
    train("ppo", tmp_path, env_id=env_id, **TWO_ROLLOUTS)
    assert len(rollouts) == 2
    low, high = Toy.action_space.low[0], Toy.action_space.high[0]
    moves = np.arange(66).reshape(2, 33, 1)
    counts = moves % 5 + 1  # what both environments observe
    for seen, count in zip(rollouts, counts):
        rollout = seen.rollout
        done = array(rollout.done)
        assert (array(rollout.next_obs)[..., 0] == count).all()
        assert (done == (count == 5)).all()
        assert (array(rollout.terminated) == terminates * done).all()
        action = array(rollout.drawn.action)[..., 0]
        assert abs(action).max() > 1
        moved = (low + high) / 2 + (high - low) / 2 * action.clip(-1, 1)
        np.testing.assert_allclose(array(rollout.reward), moved, rtol=1e-5, atol=1e-5)


@TOYS
def test_advantages_and_returns_of_a_run(tmp_path, rollouts, env_id, terminates):
    """Rewards in standard deviations of all discounted returns so far; time limits bootstrap, terminations
    do not."""
    train("ppo", tmp_path, env_id=env_id, networks="separate", **TWO_ROLLOUTS)
    rewards = np.zeros((0, 2))
    ends = np.zeros((0, 2))
    for seen in rollouts:
        reward = array(seen.rollout.reward)
        done = array(seen.rollout.done)
        rewards = np.concatenate([rewards, reward])
        ends = np.concatenate([ends, done])
        discounted = discounted_returns(rewards, ends, 0.9)
        scaled = (reward / discounted.std()).clip(-10, 10)

        value, next_value = values_of(seen)
        # Statistics have moved between the two values of an observation.
        next_value[:-1] = np.where(done[:-1], next_value[:-1], value[1:])
        delta = scaled + 0.9 * (1 - terminates * done) * next_value - value
        advantage = array(seen.batch.advantage).reshape(33, 2)
        later = np.zeros((33, 2))
        later[:-1] = advantage[1:]
        expected = delta + 0.9 * 0.95 * (1 - done) * later
        np.testing.assert_allclose(advantage, expected, rtol=1e-4, atol=1e-5)
        returns = array(seen.batch.returns).reshape(33, 2)
        np.testing.assert_allclose(returns, advantage + value, rtol=1e-4, atol=1e-5)
        explained = 1 - advantage.var() / returns.var()
        np.testing.assert_allclose(seen.explained, explained, rtol=1e-3)
