"""PPO's update: advantages, K = 1 against a PPO written here, which loss reaches what, and its Adam."""

from functools import partial
from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from ppo_agents import (
    BOTH,
    one_of,
    perturb,
    ppo_agent,
    ppo_batch,
    ppo_noise,
    steps_of,
    torch_log_prob,
    torch_mixture,
)
from torch import Tensor, nn
from torch.distributions import Normal

from pmoe import pmoe_ppo
from pmoe.pmoe_ppo import Adam, Agent, Batch, Linear, Philox, gae

close = torch.testing.assert_close


# Advantages


def column(*values) -> Tensor:
    """Of the steps of one environment, (1, T, 1, 1)"""
    return torch.tensor(values).view(1, -1, 1, 1)


@pytest.mark.parametrize(
    "terminated, done, expected",
    [
        # Terminates at step 1, and meets its time limit at step 2
        ([0.0, 1.0, 0.0, 0.0], [0.0, 1.0, 1.0, 0.0], [0.75, 1, 5, 7]),
        ([0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0], [1.140625, 2.5625, 4.25, 7]),
    ],
    ids=["ends", "goes on"],
)
def test_advantages_by_hand(terminated, done, expected):
    """gamma = lambda = 1/2"""
    reward = column(1.0, 2.0, 3.0, 4.0)
    value = column(1.0, 1.0, 1.0, 1.0)
    next_value = column(2.0, 4.0, 6.0, 8.0)
    advantage = gae(reward, value, next_value, column(*terminated), column(*done), 0.5, 0.5)
    assert advantage.flatten().tolist() == expected


class Steps(NamedTuple):
    """Of one environment, (T,) each"""

    reward: np.ndarray
    value: np.ndarray
    next_value: np.ndarray
    terminated: np.ndarray
    done: np.ndarray


def advantage_at(t, steps, gamma, gae_lambda) -> float:
    """The sum over all that follows"""
    last = len(steps.reward) - 1
    total = 0.0
    weight = 1.0
    for i in range(t, last + 1):
        if steps.terminated[i]:
            following = 0.0
        elif steps.done[i] or i == last:
            following = steps.next_value[i]
        else:
            following = steps.value[i + 1]
        delta = steps.reward[i] + gamma * following - steps.value[i]
        total += weight * delta
        if steps.done[i]:
            break
        weight *= gamma * gae_lambda
    return total


@settings(deadline=None, max_examples=50)
@given(
    length=st.integers(1, 12), gamma=st.floats(0, 1), gae_lambda=st.floats(0, 1), seed=st.integers(0, 10**6)
)
def test_advantages_are_sums_over_what_follows(length, gamma, gae_lambda, seed):
    rng = np.random.default_rng(seed)
    shape = (2, length, 3, 1)
    reward, value, next_value = rng.normal(size=(3, *shape))
    terminated, truncated = rng.random((2, *shape)) < 0.2
    fields = [reward, value, next_value, terminated, terminated | truncated]
    tensors = [torch.tensor(field, dtype=torch.float64) for field in fields]
    advantage = gae(*tensors, gamma, gae_lambda)
    for s, t, e, _ in np.ndindex(shape):
        steps = Steps(*[field[s, :, e, 0] for field in fields])
        expected = advantage_at(t, steps, gamma, gae_lambda)
        assert advantage[s, t, e].item() == pytest.approx(expected, abs=1e-9)


# K = 1 is PPO


def one_network(fc1, fc2, fc3) -> nn.Sequential:
    return nn.Sequential(one_of(fc1), nn.Tanh(), one_of(fc2), nn.Tanh(), one_of(fc3))


class PlainPPO:
    """Proximal policy optimisation with torch's own layers, distributions, optimiser and gradient clipping"""

    def __init__(self, agent, ent_coef):
        actor = agent.actor
        self.policy = one_network(actor.fc1, actor.fc2, actor.mean)
        self.value = one_network(*agent.vf[::2])
        log_std = actor.log_std[0, 0].detach().clone()
        self.log_std = nn.Parameter(log_std)
        self.parameters = [*self.policy.parameters(), self.log_std, *self.value.parameters()]
        self.adam = torch.optim.Adam(self.parameters, 0.01, eps=1e-5)
        self.ent_coef = ent_coef

    def update(self, batch) -> tuple[dict[str, Tensor], float]:
        """Figures, and the norm of the gradient"""
        obs, action = batch.obs[0], batch.action[0]
        old_log_prob = batch.log_prob.flatten()
        advantage = batch.advantage.flatten()
        returns = batch.returns.flatten()

        normal = Normal(self.policy(obs), self.log_std.exp())
        log_prob = normal.log_prob(action).sum(-1)
        ratio = (log_prob - old_log_prob).exp()
        advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
        unclipped = -advantage * ratio
        clipped = -advantage * ratio.clamp(0.8, 1.2)
        policy_loss = torch.max(unclipped, clipped).mean()
        value = self.value(obs).squeeze(-1)
        value_loss = 0.5 * nn.functional.mse_loss(value, returns)
        entropy = normal.entropy().sum(-1).mean()

        loss = policy_loss + 0.5 * value_loss - self.ent_coef * entropy
        self.adam.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.parameters, 1.5)
        self.adam.step()

        far = (ratio - 1).abs() > 0.2
        figures = {"losses/policy": policy_loss, "losses/value": value_loss, "losses/entropy": entropy}
        figures["losses/clip_fraction"] = far.double().mean()
        return figures, norm.item()


@BOTH
@pytest.mark.parametrize("ent_coef", [0.0, 0.05])
def test_one_primitive_is_ppo(surrogate, ent_coef):
    agent = ppo_agent(k=1, seeds=1, surrogate=surrogate, ent_coef=ent_coef, max_grad_norm=1.5).double()
    # As it was made, it is rounded to single precision.
    agent.rate.fill_(0.01)
    ppo = PlainPPO(agent, ent_coef)
    batches = [ppo_batch(agent, seed=seed) for seed in range(5)]
    norms = []
    fractions = []
    for batch in 5 * batches:
        normal, _ = ppo_noise(agent, 32)
        figures = agent.update(batch, normal)
        expected, norm = ppo.update(batch)
        for name, figure in expected.items():
            close(figures[name].item(), figure.item(), rtol=1e-7, atol=1e-9, msg=name)
        norms.append(norm)
        fractions.append(expected["losses/clip_fraction"])
    assert "losses/frequency" not in figures
    assert "losses/q" not in figures
    # Gradients were clipped and not, and so were ratios.
    assert min(norms) < 1.5 < max(norms)
    assert max(fractions) > 0.1

    same = partial(close, rtol=1e-6, atol=1e-9)
    layers = [agent.actor.fc1, agent.actor.fc2, agent.actor.mean, *agent.vf[::2]]
    linears = [*ppo.policy[::2], *ppo.value[::2]]
    for layer, linear in zip(layers, linears, strict=True):
        same(layer.weight[0].T, linear.weight)
        same(layer.bias[0, 0], linear.bias)
    same(agent.actor.log_std[0, 0], ppo.log_std)


# What learns from what


def without(monkeypatch, name) -> None:
    """Takes a loss out of the update."""
    original = getattr(pmoe_ppo, name)

    def nothing(*args):
        return 0 * original(*args)

    monkeypatch.setattr(pmoe_ppo, name, nothing)


def parts(agent) -> set[str]:
    return {name.partition(".")[0] for name, _ in agent.named_parameters()}


def test_parameters_are_what_is_learnt():
    """Who clips, counts or regularises agent.parameters() meets no state of an optimiser."""
    agent = perturb(ppo_agent())
    assert parts(agent) == {"actor", "vf", "qf"}
    learnt = [*agent.policy_adam.learnt, *agent.qf_adam.learnt]
    parameters = list(agent.parameters())
    assert set(map(id, learnt)) == set(map(id, parameters))
    assert len(learnt) == len(parameters)

    before = [parameter.clone() for parameter in parameters]
    normal, _ = ppo_noise(agent, 32)
    agent.update(ppo_batch(agent), normal)
    for parameter, x in zip(parameters, before):
        assert not parameter.equal(x)


def test_the_state_of_adam_is_saved_and_brought_back():
    """In buffers, so that a checkpoint of the agent's state_dict has it"""
    agent = ppo_agent()
    for name in ("policy_adam", "qf_adam"):
        adam = getattr(agent, name)
        assert list(adam.parameters()) == []
        for buffer, _ in adam.named_buffers():
            assert f"{name}.{buffer}" in agent.state_dict()

    batch = ppo_batch(agent)
    normal, _ = ppo_noise(agent, 32)
    for _ in range(3):
        agent.update(batch, normal)
    twin = ppo_agent()
    twin.load_state_dict(agent.state_dict())
    for x in (agent, twin):
        x.update(batch, normal)
    state = twin.state_dict()
    for name, x in agent.state_dict().items():
        assert x.equal(state[name]), name


@BOTH
def test_before_the_first_update_the_ratio_is_one_and_the_gradient_that_of_the_policy(monkeypatch, surrogate):
    without(monkeypatch, "frequency_loss")
    agent = perturb(ppo_agent(surrogate=surrogate, vf_coef=0.0).double())
    batch = ppo_batch(agent)
    normal, _ = ppo_noise(agent, 32)
    _, step = steps_of(agent, batch, normal)

    deviation = batch.advantage - batch.advantage.mean(1, keepdim=True)
    advantage = deviation / batch.advantage.std(1, keepdim=True)
    log_prob = torch_log_prob(agent, batch.obs, batch.action, batch.primitive)
    loss = -(advantage * log_prob).mean((1, 2)).sum()
    parameters = dict(agent.actor.named_parameters())
    inputs = list(parameters.values())
    expected = torch.autograd.grad(loss, inputs, allow_unused=True, materialize_grads=True)
    for name, gradient in zip(parameters, expected):
        close(step.gradients[f"actor.{name}"], gradient, rtol=1e-6, atol=1e-9, msg=name)

    figures = agent.update(batch, normal)
    zeros = torch.zeros(2, dtype=torch.float64)
    for name in ("losses/policy", "losses/approx_kl", "losses/clip_fraction"):
        close(figures[name].double(), zeros, rtol=0, atol=1e-12)


def move(parameters, directions, by) -> None:
    with torch.no_grad():
        for parameter, direction in zip(parameters, directions):
            parameter.add_(by * direction)


@BOTH
@pytest.mark.parametrize("detach_router", [True, False])
def test_gradient_of_the_surrogate_is_that_of_finite_differences(monkeypatch, surrogate, detach_router):
    without(monkeypatch, "frequency_loss")
    fields = {"surrogate": surrogate, "detach_router": detach_router}
    agent = perturb(ppo_agent(vf_coef=0.0, ent_coef=0.1, **fields).double())
    batch = ppo_batch(agent)
    normal, _ = ppo_noise(agent, 32)
    perturb(agent, 0.03)
    _, step = steps_of(agent, batch, normal)

    parameters = {}
    for name, parameter in agent.named_parameters():
        # What moves the trunk moves a detached router too, which gradients do not say.
        hidden = detach_router and name.startswith(("actor.fc1.", "actor.fc2."))
        if name in step.gradients and not hidden:
            parameters[name] = parameter

    size = 1e-6
    inputs = list(parameters.values())
    for seed in range(4):
        generator = torch.Generator().manual_seed(seed)
        directions = [torch.randn(x.shape, generator=generator, dtype=x.dtype) for x in inputs]
        move(inputs, directions, size)
        _, above = steps_of(agent, batch, normal)
        move(inputs, directions, -2 * size)
        _, below = steps_of(agent, batch, normal)
        move(inputs, directions, size)
        products = [step.gradients[name] * x for name, x in zip(parameters, directions)]
        slope = sum(product.sum().item() for product in products)
        difference = (above.loss - below.loss) / (2 * size)
        assert difference == pytest.approx(slope, rel=1e-5, abs=1e-6)


def reached(step, part="actor") -> set[str]:
    """What of a part of the agent a step moves"""
    names = set()
    for name, gradient in step.gradients.items():
        owner, _, rest = name.partition(".")
        if owner == part and gradient.any():
            names.add(rest.partition(".")[0])
    return names


@BOTH
@pytest.mark.parametrize("detach_router", [True, False])
def test_which_parameters_each_loss_reaches(monkeypatch, surrogate, detach_router):
    agent = perturb(ppo_agent(surrogate=surrogate, detach_router=detach_router))
    batch = ppo_batch(agent)
    normal, _ = ppo_noise(agent, 32)
    of_q, of_policy = steps_of(agent, batch, normal)
    assert {name.partition(".")[0] for name in of_q.gradients} == {"qf"}
    assert all(gradient.any() for gradient in of_q.gradients.values())
    assert {name.partition(".")[0] for name in of_policy.gradients} == {"actor", "vf"}
    assert of_policy.gradients["vf.0.weight"].any()

    with monkeypatch.context() as patch:
        without(patch, "frequency_loss")
        _, of_surrogate = steps_of(agent, batch, normal)
    router = {"router"} if surrogate == "mixture" else set()
    assert reached(of_surrogate) == {"fc1", "fc2", "mean", "log_std"} | router

    with monkeypatch.context() as patch:
        without(patch, "surrogate_loss")
        _, of_frequency = steps_of(agent, batch, normal)
    trunk = set() if detach_router else {"fc1", "fc2"}
    assert reached(of_frequency) == {"router"} | trunk


def test_the_loss_of_the_value_reaches_the_value_alone():
    agent = perturb(ppo_agent())
    batch = ppo_batch(agent)
    normal, _ = ppo_noise(agent, 32)
    _, step = steps_of(agent, batch, normal)
    loss = 0.5 * (agent.vf(batch.obs) - batch.returns).square().mean((1, 2))
    inputs = dict(agent.vf.named_parameters())
    expected = torch.autograd.grad(0.5 * loss.sum(), list(inputs.values()))
    for name, gradient in zip(inputs, expected):
        close(step.gradients[f"vf.{name}"], gradient, msg=name)

    _, other = steps_of(agent, batch._replace(returns=batch.returns + 1), normal)
    for name, gradient in step.gradients.items():
        same = gradient.equal(other.gradients[name])
        assert same == name.startswith("actor."), name


@BOTH
def test_who_did_not_act_learns_from_the_surrogate_of_the_mixture_alone(surrogate):
    agent = perturb(ppo_agent(surrogate=surrogate))
    batch = ppo_batch(agent)
    acted = torch.ones_like(batch.primitive)
    normal, _ = ppo_noise(agent, 32)
    _, step = steps_of(agent, batch._replace(primitive=acted), normal)
    of_means = step.gradients["actor.mean.weight"].unflatten(-1, (3, 2))  # (S, 64, K, A)
    of_stds = step.gradients["actor.log_std"]  # (S, K, A)
    others = surrogate == "mixture"
    learn = [others, True, others]
    assert of_means.abs().sum((0, 1, 3)).bool().tolist() == learn
    assert of_stds.abs().sum((0, 2)).bool().tolist() == learn


def test_the_best_primitive_is_that_of_the_largest_q_of_its_fresh_action(monkeypatch):
    agent = perturb(ppo_agent())
    batch = ppo_batch(agent)
    normal, _ = ppo_noise(agent, 32, seed=7)
    original = pmoe_ppo.frequency_loss
    seen = []

    def watch(log_w, best):
        seen.append(best)
        return original(log_w, best)

    monkeypatch.setattr(pmoe_ppo, "frequency_loss", watch)
    steps_of(agent, batch, normal)
    (best,) = seen
    assert len(best.unique()) == 3

    mean, log_std, _ = agent.actor(batch.obs)
    for s, b in np.ndindex(2, 32):
        actions = mean[s, b] + log_std[s, 0].exp() * normal[s, b]  # (K, A)
        obs = batch.obs[s, b].expand(3, -1)
        pairs = torch.cat([obs, actions], -1).expand(2, -1, -1)
        q = agent.qf(pairs)[s]
        assert best[s, b].item() == q.argmax().item()


@pytest.mark.parametrize("winner", [0, 1, 2])
def test_the_router_moves_to_the_primitive_that_q_likes(monkeypatch, winner):
    without(monkeypatch, "surrogate_loss")
    agent = ppo_agent(vf_coef=0.0, learning_rate=0.05)
    with torch.no_grad():
        means = agent.actor.mean.bias.unflatten(-1, (3, 2))
        means[..., winner, :] += 9

    def sum_of_actions(pairs):
        # Q's parameters have to be asked, or there is no gradient.
        asked = sum(parameter.sum() for parameter in agent.qf.parameters())
        return pairs[..., 4:].sum(-1, keepdim=True) + asked

    agent.qf.forward = sum_of_actions
    for seed in range(100):
        normal, _ = ppo_noise(agent, 32)
        figures = agent.update(ppo_batch(agent, seed=seed), normal)
    assert figures[f"routing/usage_{winner}"].min() > 0.9


def test_q_is_regressed_on_the_return_of_the_action_taken():
    agent = perturb(ppo_agent())
    batch = ppo_batch(agent)
    q = agent.qf(torch.cat([batch.obs, batch.action], -1))
    loss = 0.5 * (q - batch.returns).square().mean((1, 2))
    inputs = dict(agent.qf.named_parameters())
    expected = torch.autograd.grad(loss.sum(), list(inputs.values()))
    # The old density and the advantage have no say.
    other = batch._replace(log_prob=batch.log_prob + 1, advantage=batch.advantage + 1)
    normal, _ = ppo_noise(agent, 32)
    step, _ = steps_of(agent, other, normal)
    for name, gradient in zip(inputs, expected, strict=True):
        close(step.gradients[f"qf.{name}"], gradient, msg=name)


def test_entropy_is_that_of_primitive_and_action_together():
    agent = perturb(ppo_agent().double())
    batch = ppo_batch(agent)
    mixture = torch_mixture(agent, batch.obs)
    router = mixture.mixture_distribution
    of_primitives = mixture.component_distribution.entropy()
    of_action = (router.probs * of_primitives).sum(-1)
    expected = (router.entropy() + of_action).mean(1)
    normal, _ = ppo_noise(agent, 32)
    figures = agent.update(batch, normal)
    close(figures["losses/entropy"], expected)


# Adam


def of_seed(x, seeds, s) -> Tensor:
    """Seed s's part of what stands side by side"""
    return x.detach().unflatten(0, (seeds, -1))[s].clone()


class TorchAdam:
    """torch.optim.Adam with clip_grad_norm_ on what seed s has of the parameters of one of ours"""

    def __init__(self, adam, s, rate):
        self.seeds = adam.seeds
        self.s = s
        self.learnt = [of_seed(x, self.seeds, s).requires_grad_() for x in adam.learnt]
        self.adam = torch.optim.Adam(self.learnt, rate, eps=1e-5)

    def step(self, gradients, max_norm) -> None:
        for parameter, gradient in zip(self.learnt, gradients):
            parameter.grad = of_seed(gradient, self.seeds, self.s)
        nn.utils.clip_grad_norm_(self.learnt, max_norm)
        self.adam.step()

    def assert_same(self, adam, steps) -> None:
        means = adam.mean[self.s].split(adam.sizes)
        squares = adam.square[self.s].split(adam.sizes)
        for ours, mean, square, parameter in zip(adam.learnt, means, squares, self.learnt, strict=True):
            state = self.adam.state[parameter]
            close(of_seed(ours, self.seeds, self.s), parameter.detach(), rtol=1e-4, atol=1e-6)
            close(mean, state["exp_avg"].flatten(), rtol=1e-4, atol=1e-9)
            close(square, state["exp_avg_sq"].flatten(), rtol=1e-4, atol=1e-15)
        for power, beta in ((adam.power1, 0.9), (adam.power2, 0.999)):
            assert power[self.s].item() == pytest.approx(beta**steps, rel=1e-4)


def random_gradients(adam, generator) -> list[Tensor]:
    """Of very different sizes, each seed's of its own"""
    sizes = 10.0 ** torch.randint(-6, 3, (adam.seeds, 1, 1), generator=generator)
    gradients = []
    for parameter in adam.learnt:
        each = len(parameter) // adam.seeds
        normal = torch.randn(parameter.shape, generator=generator)
        gradients.append(normal * sizes.repeat_interleave(each, 0))
    return gradients


def loss_with(adam, gradients) -> Tensor:
    """A loss (S,) whose gradients these are"""
    loss = torch.zeros(adam.seeds)
    for parameter, gradient in zip(adam.learnt, gradients):
        product = parameter * gradient
        loss = loss + product.reshape(adam.seeds, -1).sum(1)
    return loss


def adam_of(part) -> Adam:
    """Of three seeds"""
    if part != "two networks a seed":
        return getattr(ppo_agent(seeds=3), part)
    generator = torch.Generator().manual_seed(1)
    shapes = [(6, 5, 3), (6, 1, 3), (3, 2, 2)]
    parameters = [torch.randn(shape, generator=generator).requires_grad_() for shape in shapes]
    return Adam(parameters, 3, 0.5)


@pytest.mark.parametrize("part", ["policy_adam", "qf_adam", "two networks a seed"])
def test_each_seed_has_its_own_adam_gradient_norm_and_rate(part):
    adam = adam_of(part)
    rates = [3e-3, 1e-3, 3e-4]
    rate = torch.tensor(rates).view(3, 1)
    twins = [TorchAdam(adam, s, rates[s]) for s in range(3)]
    generator = torch.Generator().manual_seed(0)
    for _ in range(30):
        gradients = random_gradients(adam, generator)
        loss = loss_with(adam, gradients)
        adam.step(loss, rate)
        for twin in twins:
            twin.step(gradients, 0.5)
    for twin in twins:
        twin.assert_same(adam, 30)


@pytest.mark.parametrize("begun", [True, False], ids=["later", "before its first step"])
@pytest.mark.parametrize("part", ["policy_adam", "two networks a seed"])
def test_a_seed_whose_rate_is_0_stays_as_it_is(part, begun):
    """Even where its gradient is no number. The others go on, and later it does, as if nothing had been."""
    adam = adam_of(part)
    full = torch.full((3, 1), 3e-3)
    waits = torch.tensor([3e-3, 0, 3e-3]).view(3, 1)
    twins = [TorchAdam(adam, s, 3e-3) for s in range(3)]
    generator = torch.Generator().manual_seed(0)
    rates = [full, waits, waits, full] if begun else [waits, waits, full]
    for rate in rates:
        before = [of_seed(x, 3, 1) for x in (*adam.learnt, *adam.buffers())]
        gradients = random_gradients(adam, generator)
        if rate is waits:
            for gradient in gradients:
                gradient.unflatten(0, (3, -1))[1] = torch.nan
        adam.step(loss_with(adam, gradients), rate)
        for twin in twins:
            if rate is full or twin.s != 1:
                twin.step(gradients, 0.5)
        if rate is waits:
            after = [of_seed(x, 3, 1) for x in (*adam.learnt, *adam.buffers())]
            assert all(map(torch.equal, before, after))
    for twin in twins:
        waited = 2 if twin.s == 1 else 0
        twin.assert_same(adam, len(rates) - waited)


# Seeds beyond target_kl


def learnt(agent, s) -> dict[str, Tensor]:
    """All that seed s learns and remembers of learning"""
    state = {}
    for name, x in agent.state_dict().items():
        if name.startswith(("actor.", "vf.", "qf.", "policy_adam.", "qf_adam.")):
            state[name] = x[s].clone()
    return state


@pytest.mark.parametrize("far", [3, 100])  # at 100 its ratios are infinite in single precision
@pytest.mark.parametrize("begun", [True, False], ids=["later", "at its first minibatch"])
def test_a_seed_beyond_target_kl_awaits_the_next_rollout(begun, far):
    agent = ppo_agent(seeds=3, target_kl=0.01)
    alone = ppo_agent(seeds=3, target_kl=0.01)
    good = ppo_batch(agent)
    normal, _ = ppo_noise(agent, 32)
    statistics = agent.actor.statistics.state_dict()
    alone.actor.statistics.load_state_dict(statistics)
    if begun:
        agent.update(good, normal)
        alone.update(good, normal)

    # Seed 1 finds its own actions unlikely, and does not learn from the good minibatch after that either.
    log_prob = good.log_prob.clone()
    log_prob[1] -= far
    bad = good._replace(log_prob=log_prob)
    before = learnt(agent, 1)
    first = learnt(agent, 0)["vf.0.weight"]
    for batch in (bad, good):
        agent.update(batch, normal)
        after = learnt(agent, 1)
        assert before.keys() == after.keys()
        for name, x in after.items():
            assert x.equal(before[name]), name
    assert not learnt(agent, 0)["vf.0.weight"].equal(first)

    # With the next rollout it goes on, as if the bad minibatch had never been.
    agent.rate.fill_(3e-4)
    agent.update(good, normal)
    alone.update(good, normal)
    after = learnt(agent, 1)
    for name, x in learnt(alone, 1).items():
        close(after[name], x, msg=name)


@pytest.mark.parametrize("kl, waits", [(0.0149, False), (0.0151, True)])
def test_target_kl_is_times_one_and_a_half(kl, waits):
    """The same log-ratio r everywhere is a divergence of exp r - 1 - r."""
    agent = ppo_agent(seeds=1, target_kl=0.01).double()
    batch = ppo_batch(agent)
    log_ratio = torch.linspace(0, 1, 100_001, dtype=torch.float64)
    divergence = log_ratio.exp() - 1 - log_ratio
    nearest = (divergence - kl).abs().argmin()
    far = batch._replace(log_prob=batch.log_prob - log_ratio[nearest])
    normal, _ = ppo_noise(agent, 32)
    figures = agent.update(far, normal)
    assert figures["losses/approx_kl"].item() == pytest.approx(kl, rel=1e-3)
    assert (agent.rate.item() == 0) == waits


def test_without_target_kl_nothing_stops():
    agent = ppo_agent()
    batch = ppo_batch(agent)
    before = learnt(agent, 0)["vf.0.weight"]
    far = batch._replace(log_prob=batch.log_prob - 3)
    normal, _ = ppo_noise(agent, 32)
    agent.update(far, normal)
    assert not learnt(agent, 0)["vf.0.weight"].equal(before)


@pytest.mark.parametrize("networks", ["printed", "separate", "released"])
def test_a_seed_learns_the_same_alone_as_among_others(networks):
    together = ppo_agent(seeds=3, ent_coef=0.1, networks=networks)
    alone = Agent(together.args, 4, 2, Philox([1]))
    for seed in range(20):
        batch = ppo_batch(together, seed=seed)
        normal, _ = ppo_noise(together, 32, seed)
        its_batch = Batch(*[field[1:2] for field in batch])
        together.update(batch, normal)
        alone.update(its_batch, normal[1:2])
    expected = learnt(together, 1)
    for name, x in learnt(alone, 0).items():
        if not name.startswith("actor.statistics"):  # its observations went by, as they were normalised
            close(x, expected[name], rtol=1e-4, atol=1e-5, msg=name)


# How networks start


@pytest.mark.parametrize("fan_in, fan_out", [(4, 64), (64, 4), (64, 64)])
def test_linear_starts_orthogonal_and_each_seed_alone(fan_in, fan_out):
    layer = Linear(fan_in, fan_out, 0.5, Philox([5, 6]))
    alone = Linear(fan_in, fan_out, 0.5, Philox([6]))
    assert layer.weight[1].equal(alone.weight[0])
    assert not layer.bias.any()
    for weight in layer.weight:
        rows = weight if fan_in <= fan_out else weight.T
        squares = 0.25 * torch.eye(len(rows))
        close(rows @ rows.T, squares, rtol=0, atol=1e-5)


def test_gains_are_those_of_ppo():
    agent = ppo_agent()
    actor = agent.actor
    layers = [actor.fc1, actor.fc2, actor.mean, actor.router, *agent.vf[::2], *agent.qf[::2]]
    root = 2**0.5
    expected = [root, root, 0.01, 0.01, root, root, 1, root, root, 1]
    for layer, gain in zip(layers, expected, strict=True):
        gains = torch.linalg.svdvals(layer.weight)
        close(gains, torch.full_like(gains, gain), rtol=1e-4, atol=0)
    assert not actor.log_std.any()
