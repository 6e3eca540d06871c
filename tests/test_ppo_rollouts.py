"""PPO's rollouts: advantages, running statistics, minibatches, and what a run gives to each of them."""

from copy import deepcopy
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from common import checkpoint, rows_of, train
from hypothesis import given, settings
from hypothesis import strategies as st
from ppo_agents import generator, make_agent, noise

from pmoe import pmoe_ppo
from pmoe.pmoe_ppo import Agent, Batch, Drawn, RewardScale, Rollout, Statistics, gae, minibatches

# Advantages


def column(*values):
    """T steps of one environment, (1, T, 1, 1)"""
    return torch.tensor(values, dtype=torch.float32).view(1, -1, 1, 1)


def test_advantages_by_hand():
    """gamma = lambda = 1/2: with a termination and a time limit, with the latter alone, without an end"""
    reward = column(1, 2, 3, 4)
    value = column(1, 1, 1, 1)
    next_value = column(2, 4, 6, 8)
    terminated = column(0, 1, 0, 0)
    done = column(0, 1, 1, 0)
    advantage = gae(reward, value, next_value, terminated, done, 0.5, 0.5)
    assert advantage.flatten().tolist() == [0.75, 1, 5, 7]

    never = column(0, 0, 0, 0)
    done = column(0, 0, 1, 0)
    advantage = gae(reward, value, next_value, never, done, 0.5, 0.5)
    assert advantage.flatten().tolist() == [1.1875, 2.75, 5, 7]

    advantage = gae(reward, value, next_value, never, never, 0.5, 0.5)
    assert advantage.flatten().tolist() == [1.140625, 2.5625, 4.25, 7]


@dataclass
class Steps:
    """Random steps (S, T, E)"""

    reward: np.ndarray
    value: np.ndarray
    next_value: np.ndarray
    terminated: np.ndarray
    done: np.ndarray

    def tensors(self):
        fields = (self.reward, self.value, self.next_value, self.terminated, self.done)
        return [torch.tensor(x, dtype=torch.float64).unsqueeze(-1) for x in fields]

    def bootstrap(self, s, i, e):
        """The value of what follows a step"""
        if self.terminated[s, i, e]:
            return 0.0
        last = i == self.done.shape[1] - 1
        if self.done[s, i, e] or last:
            return self.next_value[s, i, e]
        return self.value[s, i + 1, e]


def random_steps(shape, seed) -> Steps:
    rng = np.random.default_rng(seed)
    reward, value, next_value = rng.normal(size=(3, *shape))
    terminated, truncated = rng.random((2, *shape)) < 0.2
    return Steps(reward, value, next_value, terminated, terminated | truncated)


@settings(deadline=None, max_examples=50)
@given(
    steps=st.integers(1, 12), gamma=st.floats(0, 1), gae_lambda=st.floats(0, 1), seed=st.integers(0, 10**6)
)
def test_advantages_are_sums_over_what_follows(steps, gamma, gae_lambda, seed):
    shape = (2, steps, 3)
    x = random_steps(shape, seed)
    advantage = gae(*x.tensors(), gamma, gae_lambda)
    for s, t, e in np.ndindex(shape):
        expected = 0.0
        weight = 1.0
        for i in range(t, steps):
            target = x.reward[s, i, e] + gamma * x.bootstrap(s, i, e)
            expected += weight * (target - x.value[s, i, e])
            weight *= gamma * gae_lambda
            if x.done[s, i, e]:
                break
        assert advantage[s, t, e].item() == pytest.approx(expected, abs=1e-9)


def test_returns_telescope_though_the_statistics_move():
    """With lambda = 1 the return is that of the rewards and the last value, whatever is thought between."""
    agent = make_agent(seeds=[0], gae_lambda=1.0, num_envs=1, gamma=0.9)
    growing = torch.linspace(1, 30, 21).view(1, 21, 1, 1)
    obs = growing * torch.randn(1, 21, 1, 4)
    drawn = []
    for t in range(20):
        drawn.append(agent.draw(obs[:, t], *noise(agent, 1, seed=t)))
    drawn = Drawn(*[torch.stack(x, 1) for x in zip(*drawn)])
    ones = torch.ones(1, 20, 1, 1)
    never = torch.zeros(1, 20, 1, 1)
    batch, _ = agent.estimate(Rollout(drawn, obs[:, 1:], ones, never, never))

    scaled = agent.reward_scale.statistics.normalize(torch.ones(1, 1, 1), centered=False)
    last = agent.actor.statistics.normalize(obs[:, 20])
    expected = agent.vf(last).item()
    for value in batch.returns.flatten().flip(0):
        expected = scaled.item() + 0.9 * expected
        assert value.item() == pytest.approx(expected, rel=1e-4)


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
    of_seeds = np.array([1, 2]).reshape(2, 1, 1)
    x = (offset + spread * rng.normal(size=(2, 60, 3)) * of_seeds).astype(np.float32)
    statistics = Statistics(3, [torch.Generator(), torch.Generator()])
    for part in np.split(x, sorted(cuts), 1):
        statistics.update(torch.tensor(part))
    mean = x.mean(1, keepdims=True, dtype=float)
    std = x.astype(float).std(1, keepdims=True)
    for start, centered in ((mean, True), (0, False)):
        expected = ((x - start) / std).clip(-10, 10)
        normalized = statistics.normalize(torch.tensor(x), centered)
        np.testing.assert_allclose(normalized, expected, rtol=1e-3, atol=1e-3)
        assert normalized.dtype == torch.float32


def test_rewards_are_in_standard_deviations_of_the_discounted_return():
    """Over rollouts, and for each seed; an episode's end begins a new sum."""
    scale = RewardScale(3, 0.9, [torch.Generator(), torch.Generator()])
    rng = np.random.default_rng(0)
    spread = np.array([1, 50]).reshape(2, 1, 1, 1)
    discounted = np.zeros((2, 3, 1))
    sums = []
    for _ in range(4):
        reward = (spread * rng.normal(size=(2, 10, 3, 1))).astype(np.float32)
        done = (rng.random((2, 10, 3, 1)) < 0.3).astype(np.float32)
        for t in range(10):
            discounted = reward[:, t] + 0.9 * discounted
            sums.append(discounted)
            discounted = discounted * (1 - done[:, t])
        std = np.stack(sums, 1).std((1, 2), keepdims=True)
        scaled = scale(torch.tensor(reward), torch.tensor(done))
        np.testing.assert_allclose(scaled, (reward / std).clip(-10, 10), rtol=1e-4, atol=1e-5)


def test_a_checkpoint_holds_the_statistics(quick_run):
    state = checkpoint(quick_run("ppo"))["learnt"]
    assert state["actor.statistics.sums"][0, 0].tolist() == [400] * 3
    assert state["reward_scale.statistics.sums"][0, 0].item() == 400
    assert state["reward_scale.discounted"].shape == (1, 1, 1)


# Minibatches


def numbered_batch(n) -> Batch:
    """Two seeds, whose fields say which row they are of: in seed 1 it is 100 more"""
    rows = torch.arange(n) + torch.tensor([[0.0], [100.0]])
    row = rows.unsqueeze(-1)  # (2, n, 1)
    return Batch(row.expand(2, n, 3), row.expand(2, n, 2), row, row, row, row)


def test_minibatches_are_shuffled_passes_in_which_rows_stay_together():
    generators = [generator(0), generator(1)]
    stream = list(minibatches(numbered_batch(10), 5, 3, generators))
    assert len(stream) == 6
    for batch in stream:
        assert [x.shape for x in batch] == [(2, 5, n) for n in (3, 2, 1, 1, 1, 1)]
        for x in batch:
            assert torch.equal(x, batch.returns.expand_as(x))
    orders = torch.cat([batch.returns for batch in stream], 1).squeeze(-1)  # (2, 30)
    for s in (0, 1):
        epochs = orders[s].view(3, 10) - 100 * s
        assert torch.equal(epochs.sort(-1).values, torch.arange(10.0).expand(3, 10))
        assert len(epochs.unique(dim=0)) == 3
    assert not torch.equal(orders[0], orders[1] - 100)


@pytest.mark.parametrize(
    "n, size, epochs, expected", [(10, 4, 3, 7), (10, 10, 1, 1), (3, 4, 1, 0), (3, 4, 2, 1)]
)
def test_minibatches_span_passes_and_leave_what_is_left_over(n, size, epochs, expected):
    generators = [generator(0), generator(1)]
    stream = list(minibatches(numbered_batch(n), size, epochs, generators))
    assert len(stream) == expected
    for batch in stream:
        assert batch.action.shape == (2, size, 2)


# What a run does


@dataclass
class Seen:
    """A rollout of a run: the agent as it then was, what `estimate` took and gave, what each update took"""

    agent: Agent
    rollout: Rollout
    batch: Batch
    explained: torch.Tensor
    rates: list[float] = field(default_factory=list)
    minibatches: list[Batch] = field(default_factory=list)


@pytest.fixture
def rollouts(monkeypatch):
    """Of the runs of a test"""
    estimate = Agent.estimate
    update = Agent.update
    seen = []

    def watch_estimate(agent, rollout):
        batch, explained = estimate(agent, rollout)
        seen.append(Seen(deepcopy(agent), rollout, batch, explained))
        return batch, explained

    def watch_update(agent, batch, normal):
        seen[-1].rates.append(agent.rate.item())
        seen[-1].minibatches.append(batch)
        return update(agent, batch, normal)

    monkeypatch.setattr(Agent, "estimate", watch_estimate)
    monkeypatch.setattr(Agent, "update", watch_update)
    return seen


def rows_in(batches) -> torch.Tensor:
    """The rows of batches of one seed"""
    rows = [torch.cat(batch, -1)[0] for batch in batches]
    return torch.cat(rows)


def test_every_transition_is_used_in_every_epoch(tmp_path, rollouts):
    train("ppo", tmp_path, update_epochs=3, total_timesteps=100)
    assert len(rollouts) == 2
    for seen in rollouts:
        assert len(seen.minibatches) == 6
        all_rows = rows_in([seen.batch]).unique(dim=0)
        assert len(all_rows) == 50
        epochs = [rows_in(seen.minibatches[i : i + 2]) for i in (0, 2, 4)]
        assert not torch.equal(epochs[0], epochs[1])
        for rows in epochs:
            assert torch.equal(rows.unique(dim=0), all_rows)


def test_the_last_rollout_is_shorter(tmp_path, rollouts):
    (path,) = train("ppo", tmp_path, num_envs=3, total_timesteps=399)
    shapes = [seen.rollout.reward.shape for seen in rollouts]
    assert shapes == [(1, 50, 3, 1), (1, 50, 3, 1), (1, 33, 3, 1)]
    # Two epochs by 25; what is left over is left.
    assert [len(seen.minibatches) for seen in rollouts] == [12, 12, 7]
    assert checkpoint(path)["step"] == 399
    assert rows_of(path / "eval.csv")[-1]["step"] == "399"


def test_a_last_rollout_smaller_than_a_minibatch_is_not_learnt_from(tmp_path, rollouts):
    (path,) = train("ppo", tmp_path, update_epochs=1, total_timesteps=110)
    assert [len(seen.minibatches) for seen in rollouts] == [2, 2, 0]
    assert checkpoint(path)["step"] == 110


@pytest.mark.parametrize("anneal_lr", [True, False])
def test_the_learning_rate_falls_if_asked_to(tmp_path, rollouts, anneal_lr):
    train("ppo", tmp_path, anneal_lr=anneal_lr, total_timesteps=180)
    for seen, start in zip(rollouts, (0, 50, 100, 150), strict=True):
        left = 1 - start / 180 if anneal_lr else 1
        expected = [3e-4 * left] * len(seen.minibatches)
        assert seen.rates == pytest.approx(expected)


def test_after_target_kl_the_next_rollout_is_learnt_from_again(tmp_path, rollouts):
    train("ppo", tmp_path, target_kl=1e-4, learning_rate=0.01, update_epochs=4)
    assert len(rollouts) == 8
    for seen in rollouts:
        assert seen.rates[0] == pytest.approx(0.01)
        assert seen.rates[-1] == 0


def numbers(x) -> np.ndarray:
    """T steps of the environments of one seed, (1, T, E, 1) or (1, T E, 1) -> (T, E)"""
    return x.double().numpy().reshape(33, 2)


def scaled_rewards(reward, done, discounted, sums) -> np.ndarray:
    """Rewards (T, E) in standard deviations of all sums so far; adds to these"""
    for now, end in zip(reward, done):
        discounted[:] = now + 0.9 * discounted
        sums.append(discounted.copy())
        discounted[:] = discounted * (1 - end)
    return (reward / np.std(sums)).clip(-10, 10)


@torch.no_grad()
def values_of(seen) -> tuple[np.ndarray, np.ndarray]:
    """V of the observations and of those that follow, (T, E) each"""
    agent = seen.agent
    next_obs = agent.actor.statistics.normalize(seen.rollout.next_obs.flatten(1, 2))
    value = numbers(agent.vf(seen.batch.obs))
    next_value = numbers(agent.vf(next_obs))
    # Within an episode, as the step after it has it: statistics have moved since then.
    within = numbers(seen.rollout.done)[:-1] == 0
    next_value[:-1] = np.where(within, value[1:], next_value[:-1])
    return value, next_value


@pytest.mark.parametrize("env_id, terminates", [("ToyTerminates-v0", 1), ("ToyTruncates-v0", 0)])
def test_rollouts_of_a_run(tmp_path, rollouts, env_id, terminates):
    """Rewards in standard deviations of discounted returns; time limits bootstrap, terminations do not."""
    train("ppo", tmp_path, env_id=env_id, num_envs=2, num_steps=33, total_timesteps=132, gamma=0.9)
    assert len(rollouts) == 2
    moves = 0
    discounted = np.zeros(2)
    sums = []
    for seen in rollouts:
        done = numbers(seen.rollout.done)
        terminated = numbers(seen.rollout.terminated)
        count = (moves + np.arange(33)) % 5 + 1  # the observation; no reset among them
        moves += 33
        assert (seen.rollout.next_obs[0, ..., 0].numpy().T == count).all()
        assert (done.T == (count == 5)).all()
        assert (terminated == done * terminates).all()

        reward = scaled_rewards(numbers(seen.rollout.reward), done, discounted, sums)
        value, next_value = values_of(seen)
        delta = reward + 0.9 * (1 - terminated) * next_value - value
        advantage = numbers(seen.batch.advantage)
        returns = numbers(seen.batch.returns)
        later = np.zeros((33, 2))
        later[:-1] = advantage[1:]
        expected = delta + 0.9 * 0.95 * (1 - done) * later
        np.testing.assert_allclose(advantage, expected, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(returns, advantage + value, rtol=1e-4, atol=1e-5)
        explained = 1 - advantage.var() / returns.var()
        np.testing.assert_allclose(seen.explained, explained, rtol=1e-3)


def test_the_environment_gets_actions_in_its_own_units(tmp_path, rollouts):
    """Of a policy in units of their bounds; the toy's reward is the first dimension of what it gets."""
    train("ppo", tmp_path, env_id="ToyTerminates-v0", num_envs=2, total_timesteps=200)
    for seen in rollouts:
        action = seen.rollout.drawn.action[..., :1]
        assert action.abs().max() > 1
        expected = 0.6 + 1.7 * action.clamp(-1, 1)  # from -1.1 to 2.3
        torch.testing.assert_close(seen.rollout.reward, expected, rtol=1e-5, atol=1e-5)


def test_a_step_of_several_seeds_and_environments_goes_where_it_belongs():
    """Steps (S E, .), as the environments give them -> (S, T, E, .)"""
    S, T, E = 2, 3, 4
    like = torch.zeros(S, T, E, 1)
    steps = []
    for t in range(T):
        obs = np.array([[100 * s + 10 * t + e] * 5 for s in range(S) for e in range(E)])
        steps.append((obs, obs[:, 0]))
    obs, reward = pmoe_ppo.stack_arrays(steps, like)
    assert obs.shape == (S, T, E, 5)
    assert reward.shape == (S, T, E, 1)
    for s, t, e in np.ndindex(S, T, E):
        assert (obs[s, t, e] == 100 * s + 10 * t + e).all()
        assert reward[s, t, e] == 100 * s + 10 * t + e
