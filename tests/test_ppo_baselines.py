"""PPO's baselines: what MCP composes, K = 1, DAC's two processes, seeds side by side."""

import copy

import common  # noqa: F401  registers the toy environments
import numpy as np
import pytest
import torch
from ppo_baseline_agents import (
    close,
    collect,
    generator,
    learn_from,
    make_agent,
    make_various,
    make_world,
    of_seeds,
    one_mlp,
    random_minibatches,
    random_normal,
    same_layer,
)
from torch import distributions as D
from torch import nn

from pmoe import pmoe_ppo
from pmoe.baselines import dac_ppo, mcp_ppo

PPO = {"mcp_ppo": mcp_ppo, "dac_ppo": dac_ppo}


@pytest.fixture(params=PPO)
def module(request):
    """Each of the two files in turn"""
    return PPO[request.param]


def test_parameters_are_what_is_learnt(module):
    agent = make_agent(module)
    critic, adam = (agent.qf, agent.adam) if module is dac_ppo else (agent.vf, agent.policy_adam)
    expected = [*agent.actor.parameters(), *critic.parameters()]
    for learnt in (adam.learnt, list(agent.parameters())):
        assert len(learnt) == len(expected)
        for x, y in zip(learnt, expected):
            assert x is y
            assert x.requires_grad
    for x in agent.buffers():
        assert not x.requires_grad


# What MCP composes


def test_mcp_gates_are_open_or_shut_each_on_its_own():
    agent = make_agent(mcp_ppo)
    agent.actor.router.bias.data[:] = torch.tensor([30.0, 30.0, -30.0])
    _, _, log_w = agent.actor(torch.randn(2, 5, 4))
    expected = torch.tensor([1.0, 1.0, 0.0]).expand(2, 5, 3)
    close(log_w.exp(), expected, atol=1e-6)


def test_one_gate_is_open():
    agent = make_agent(mcp_ppo, k=1)
    agent.actor.router.bias.data -= 7
    mean, log_std, log_w = agent.actor(torch.randn(2, 5, 4))
    composed, log_sigma = mcp_ppo.compose(mean, log_std, log_w)
    assert not log_w.any()
    assert torch.equal(composed, mean)
    close(log_sigma, log_std.expand_as(log_sigma), rtol=1e-6, atol=1e-6)


def test_one_primitive_of_mcp_ppo_may_be_as_wide_as_ppos():
    ppo = make_agent(pmoe_ppo, k=1)
    mcp = make_agent(mcp_ppo, k=1)
    ppo.actor.log_std.data += 3
    mcp.actor.load_state_dict(ppo.actor.state_dict())
    obs = torch.randn(2, 1, 4)
    noise = torch.ones(2, 1, 1, 2)
    uniform = torch.zeros(2, 1, 1)
    action = mcp.draw(obs, noise, uniform).action
    expected = ppo.draw(obs, noise, uniform).action
    close(action, expected, rtol=1e-5, atol=1e-5)


def test_act_takes_the_composed_mean_or_that_of_one_primitive():
    actor = make_agent(mcp_ppo, networks="separate").actor  # printed means lie within the bounds
    actor.mean.bias.data += torch.randn(2, 1, 6)
    obs = torch.randn(2, 50, 4)
    actor.statistics.update(3 * obs + 1)
    mean, log_std, log_w = actor(actor.statistics.normalize(obs))
    composed, _ = mcp_ppo.compose(mean, log_std, log_w)
    assert mean.abs().max() > 1
    close(actor.act(obs), composed.squeeze(2).clamp(-1, 1), rtol=1e-6)
    alone = actor.act(obs, lambda log_w: torch.full_like(log_w[..., :1], 1, dtype=int))
    close(alone, mean[:, :, 1].clamp(-1, 1), rtol=1e-6)


def torch_product(mean, log_std, log_w):
    """The normalised product of N_k^w_k, a distribution of actions (S, B, A)"""
    w = log_w.exp().unsqueeze(-1)
    precisions = w / log_std.exp().square()
    precision = precisions.sum(2)
    mean = (precisions * mean).sum(2) / precision
    normal = D.Normal(mean, precision**-0.5)
    return D.Independent(normal, 1)


def test_mcp_ppo_draws_from_the_product_and_knows_its_density_and_entropy():
    agent = make_various(mcp_ppo, num_envs=2)
    agent.actor.log_std.data += random_normal(2, 3, 2) / 2
    world = make_world()
    batch = learn_from(mcp_ppo, agent, world)
    product = torch_product(*agent.actor(batch.obs))
    noise = world.normal.flatten(1, 2).squeeze(2)
    close(batch.action, product.mean + product.stddev * noise)
    log_prob = product.log_prob(batch.action)
    close(batch.log_prob.squeeze(-1), log_prob)

    figures = agent.update(batch, None)
    entropy = product.entropy()
    close(figures["losses/entropy"], entropy.mean(1))
    assert figures["losses/approx_kl"].abs().max() < 1e-12
    assert not figures["losses/clip_fraction"].any()


# K = 1, and seeds side by side


def without_primitive(batch) -> mcp_ppo.Batch:
    """The same of an agent of mcp_ppo, which draws none"""
    fields = {name: getattr(batch, name) for name in mcp_ppo.Batch._fields}
    return mcp_ppo.Batch(**fields)


def test_one_primitive_of_mcp_ppo_is_ppo():
    ppo = make_various(pmoe_ppo, k=1, num_envs=2)
    mcp = make_various(mcp_ppo, k=1, num_envs=2)
    state = ppo.state_dict()
    ours = {name: state[name] for name in mcp.state_dict() if not name.startswith("policy_adam")}
    mcp.load_state_dict(ours, strict=False)

    expected = learn_from(pmoe_ppo, ppo, make_world())
    batch = learn_from(mcp_ppo, mcp, make_world())
    for x, y in zip(batch, without_primitive(expected), strict=True):
        close(x, y)
    noise = torch.zeros(2, 16, 1, 2).double()
    for minibatch in random_minibatches(expected, 20):
        theirs = ppo.update(minibatch, noise)
        figures = mcp.update(without_primitive(minibatch), noise)
        close(figures["losses/policy"], theirs["losses/policy"])
    assert figures["losses/approx_kl"].min() > 1e-6

    state = ppo.state_dict()
    for name, x in mcp.state_dict().items():
        torch.testing.assert_close(x, state[name], rtol=1e-6, atol=1e-9, msg=name)


def test_a_seed_of_ppo_learns_the_same_alone_as_among_others(module):
    # Every gradient is clipped, and some seeds wait.
    fields = {"num_envs": 2, "max_grad_norm": 0.1, "target_kl": 0.005}
    together = make_various(module, seeds=(0, 1, 2), **fields)
    alone = make_various(module, seeds=(1,), **fields)
    world = make_world(seeds=3)
    scales = torch.tensor([1.0, 3.0, 100.0]).view(3, 1, 1, 1)  # so that the gradients' norms differ
    world = world._replace(reward=world.reward * scales)
    batch = learn_from(module, together, world)
    own = learn_from(module, alone, of_seeds(world, 1, 2))
    for x, y in zip(own, of_seeds(batch, 1, 2), strict=True):
        close(x, y)

    for i, minibatch in enumerate(random_minibatches(batch, 10)):
        high = torch.tensor([i % 2 == 0, i < 5, i % 3 == 0]).view(3, 1, 1)
        together.update(minibatch, high)
        alone.update(of_seeds(minibatch, 1, 2), high[1:2])
    state = alone.state_dict()
    for name, x in together.state_dict().items():
        if x.dim():  # the count of random numbers is of no seed
            x = x.chunk(3)[1]
        torch.testing.assert_close(x, state[name], rtol=1e-6, atol=1e-9, msg=name)


# DAC's policies


def high_by_hand(mu, beta, before):
    """pi_H (K,) of mu (K,), beta (K,), and the option before, -1 for none"""
    before = int(before)
    if before < 0:
        return mu
    probs = []
    for o in range(len(mu)):
        stays = (1 - beta[before]) * (o == before)
        probs.append(stays + beta[before] * mu[o])
    return torch.stack(probs)


@pytest.mark.parametrize("wide", [1, 30])
def test_the_high_policy_by_brute_force(wide):
    logits, ends = wide * random_normal(2, 2, 40, 4)
    log_mu = logits.log_softmax(-1)
    before = torch.randint(-1, 4, (2, 40, 1), generator=generator(0)).double()
    assert before.unique().tolist() == [-1, 0, 1, 2, 3]
    high = dac_ppo.high_log_prob(log_mu, ends, before).exp()
    close(high.sum(-1), torch.ones(2, 40).double())
    mu = log_mu.exp()
    beta = ends.sigmoid()
    for i in np.ndindex(2, 40):
        expected = high_by_hand(mu[i], beta[i], before[i])
        close(high[i], expected, atol=1e-12)


def test_the_option_before_ends_and_no_other():
    log_mu = torch.randn(1, 4, 3).log_softmax(-1)
    ends = torch.randn(1, 4, 3, requires_grad=True)
    before = torch.tensor([[[-1.0], [0.0], [1.0], [2.0]]])
    expected = torch.tensor([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]]).bool()
    for o in range(3):
        log_high = dac_ppo.high_log_prob(log_mu, ends, before)
        (gradient,) = torch.autograd.grad(log_high[..., o].sum(), ends)
        assert torch.equal(gradient[0] != 0, expected)


@pytest.mark.parametrize("part, output", [("mean", 0), ("ends", 3)])
def test_option_k_of_seed_s_is_network_s_times_k(part, output):
    actor = make_agent(dac_ppo).actor
    obs = torch.randn(2, 5, 4)
    before = [x.clone() for x in actor(obs)]
    last = getattr(actor, part)[4]
    last.bias.data[1 * 3 + 2] += 1
    now = actor(obs)
    for i, x in enumerate(before):
        assert torch.equal(x, now[i]) == (i != output)
    changed = before[output] != now[output]
    if part == "mean":
        changed = changed.any(-1)
    assert changed[1, :, 2].all()
    assert changed.sum() == 5


@pytest.mark.parametrize("before", [-1, 1])
def test_options_are_drawn_from_the_high_policy(before):
    n = 20_000
    agent = make_various(dac_ppo, seeds=[0], num_envs=n)
    obs = random_normal(1, 1, 4).expand(1, n, 4)
    uniform = torch.rand(1, n, 1, generator=generator(0)).double()
    noise = torch.zeros(1, n, 1, 2).double()
    agent.option.fill_(before)
    drawn = agent.draw(obs, noise, uniform)
    assert torch.equal(drawn.option, agent.option)
    assert (drawn.before == before).all()

    _, _, log_mu, ends = agent.actor(drawn.obs)
    mu = log_mu[0, 0].exp()
    beta = ends[0, 0].sigmoid()
    expected = high_by_hand(mu, beta, before)
    counts = drawn.option.long().flatten().bincount(minlength=3)
    close(counts.double() / n, expected, rtol=0, atol=5 * 0.5 / n**0.5)


def of_option(x, option):
    """x (S, B, K, A) of the options (S, B, 1) -> (S, B, A)"""
    index = option.long().unsqueeze(-1)
    return x.take_along_dim(index, 2).squeeze(2)


def gradient_of(x, means):
    """Of its sum"""
    (gradient,) = torch.autograd.grad(x.sum(), means, retain_graph=True)
    return gradient


@pytest.mark.parametrize("floor", [0.0, 1e-5])
def test_the_floor_is_added_to_the_probability_of_the_option(floor):
    agent = make_various(dac_ppo, log_density_floor=floor)
    mean, log_std, log_mu, ends = agent.actor(random_normal(2, 8, 4))
    before = torch.full((2, 8, 1), -1.0)
    option = torch.randint(3, (2, 8, 1))
    log_high = dac_ppo.high_log_prob(log_mu, ends, before)
    high, _ = agent.log_probs(mean[:, :, 0], option, mean, log_std, log_high)
    probability = log_high.exp().gather(-1, option)
    close(high, (probability + floor).log())


@pytest.mark.parametrize("floor", [0.0, 1e-5])
@pytest.mark.parametrize("distance", [0.5, 8.0])
def test_the_floor_kills_the_gradient_of_small_densities_and_none_changes_nothing(floor, distance):
    agent = make_various(dac_ppo, log_density_floor=floor)
    means, log_stds, log_mu, _ = agent.actor(random_normal(2, 8, 4))
    option = torch.randint(3, (2, 8, 1))
    mean = of_option(means, option)
    log_std = of_option(log_stds.expand_as(means), option)
    std = log_std.exp()
    action = (mean + distance * std).detach()
    gaussian = D.Independent(D.Normal(mean, std), 1)
    log_prob = gaussian.log_prob(action).unsqueeze(-1)
    density = log_prob.exp().detach()
    _, low = agent.log_probs(action, option, means, log_stds, log_mu)
    close(low, (density + floor).log())

    plain = gradient_of(log_prob, means)
    plain = of_option(plain, option)
    ours = gradient_of(low, means)
    ours = of_option(ours, option)
    assert plain.abs().min() > 0.1
    close(ours, plain * density / (density + floor), rtol=1e-6)
    share = (ours / plain).abs().max()
    far_below = floor > 0 and distance > 1
    assert (share < 1e-9) == far_below


def test_act_keeps_its_option_until_it_ends_and_begins_anew_without_one():
    actor = make_various(dac_ppo).float().actor
    obs = torch.randn(2, 300, 4)
    actor.statistics.update(obs)
    end = actor.ends[4].bias.data
    # A master that likes other options elsewhere
    for layer in actor.master[::2]:
        layer.bias.data.zero_()
    actor.master[4].weight.data *= 300

    def liked(obs):
        _, _, log_mu, _ = actor(actor.statistics.normalize(obs))
        return log_mu.argmax(-1, keepdim=True)

    def chosen(obs):
        """The options that `act` chooses, whose mean its action is"""
        mean, _, _, _ = actor(actor.statistics.normalize(obs))
        action = actor.act(obs)
        close(action, of_option(mean, actor.option), rtol=1e-6)
        return actor.option

    end -= 100  # never ends
    first = chosen(obs)
    assert torch.equal(first, liked(obs))
    assert len(first.unique()) > 1
    other = obs.flip(1)
    assert torch.equal(chosen(other), first)
    assert not torch.equal(liked(other), first)

    end += 200  # ends at once
    assert torch.equal(chosen(other), liked(other))

    end -= 200
    actor.option = None
    assert torch.equal(chosen(obs), liked(obs))


# What DAC's two processes see


class SlowValues:
    """v_H and v_L of one seed, with torch's own layers, one state at a time"""

    def __init__(self, agent, s):
        actor = agent.actor
        self.master = one_mlp(actor.master, s)
        self.q = one_mlp(agent.qf, s)
        self.ends = [one_mlp(actor.ends, s * 3 + o) for o in range(3)]

    def high(self, obs, before):
        beta = torch.cat([ends(obs).sigmoid() for ends in self.ends])
        probs = high_by_hand(self.master(obs).softmax(-1), beta, before)
        return (probs * self.q(obs)).sum()

    def low(self, obs, option):
        return self.q(obs)[int(option)]


def slow_deltas(values, chain, t, gamma):
    """Of high and low, value and delta at step t of one environment's chain of steps"""
    now = chain[t]
    high = values.high(now.drawn.obs, now.drawn.before)
    low = values.low(now.drawn.obs, now.drawn.option)
    next_high = values.high(now.next_obs, now.drawn.option)
    next_low = next_high
    if t + 1 < len(chain) and not now.done:
        # The next state is known, and so is its option.
        after = chain[t + 1].drawn
        next_high = values.high(after.obs, after.before)
        next_low = values.low(after.obs, after.option)
    discount = gamma * (1 - now.terminated)
    high_delta = now.reward + discount * next_high - high
    low_delta = now.reward + discount * next_low - low
    return (high, high_delta), (low, low_delta)


def slow_advantages(deltas, chain, weight):
    """Sums from each step to the end of its episode or of the rollout"""
    advantages = []
    for t in range(len(chain)):
        total = 0.0
        factor = 1.0
        for delta, step in zip(deltas[t:], chain[t:]):
            total += factor * delta
            factor *= weight
            if step.done:
                break
        advantages.append(total)
    return torch.stack(advantages)


def chain_of(rollout, next_obs, s, e) -> list[dac_ppo.Rollout]:
    """The steps of one environment"""
    chain = []
    for t in range(rollout.reward.shape[1]):
        drawn = dac_ppo.Drawn(*[field[s, t, e] for field in rollout.drawn])
        rest = (rollout.reward, rollout.terminated, rollout.done)
        numbers = [field[s, t, e, 0] for field in rest]
        chain.append(dac_ppo.Rollout(drawn, next_obs[s, t, e], *numbers))
    return chain


@torch.no_grad()
def test_advantages_of_both_processes_by_a_slow_loop():
    gamma, gae_lambda, length = 0.9, 0.8, 16
    agent = make_various(dac_ppo, num_envs=3, gamma=gamma, gae_lambda=gae_lambda)
    world = make_world(envs=3, length=length)
    assert world.terminated.sum() > 3
    assert world.truncated.sum() > 3
    rollout, seen = collect(dac_ppo, agent, world)
    batch, _ = agent.estimate(rollout)
    batch = dac_ppo.Batch(*[field.unflatten(1, (length, 3)) for field in batch])
    for x, y in zip(batch, rollout.drawn):
        assert torch.equal(x, y)

    mean = seen.mean((1, 2), keepdim=True)
    std = seen.std((1, 2), correction=0, keepdim=True)
    next_obs = (world.next_obs - mean) / std
    for s, e in np.ndindex(2, 3):
        values = SlowValues(agent, s)
        chain = chain_of(rollout, next_obs, s, e)
        both = [slow_deltas(values, chain, t, gamma) for t in range(length)]
        of_high, of_low = zip(*both)
        v_high, deltas = zip(*of_high)
        high = slow_advantages(deltas, chain, gamma * gae_lambda)
        v_low, deltas = zip(*of_low)
        low = slow_advantages(deltas, chain, gamma * gae_lambda)
        one = dac_ppo.Batch(*[field[s, :, e, 0] for field in batch])
        close(one.high_advantage, high, rtol=1e-6)
        close(one.low_advantage, low, rtol=1e-6)
        close(one.high_returns, high + torch.stack(v_high), rtol=1e-6)
        close(one.low_returns, low + torch.stack(v_low), rtol=1e-6)


# What DAC's two processes learn


def moved_parts(agent, before, s) -> set[str]:
    """master, ends, mean or std of the actor, or qf: where seed s is not as it was before"""
    parts = set()
    for name, x in agent.named_parameters():
        now = x.chunk(2)[s]
        then = before[name].chunk(2)[s]
        if not torch.equal(now, then):
            part, *_ = name.removeprefix("actor.").split(".")
            parts.add(part)
    return parts


def test_each_process_moves_its_own_policy_and_each_seed_has_its_own_turn():
    agent = make_various(dac_ppo, num_envs=2)
    batch = learn_from(dac_ppo, agent, make_world(length=40))
    before = copy.deepcopy(dict(agent.named_parameters()))
    high = torch.tensor([True, False]).view(2, 1, 1)
    figures = agent.update(batch, high)
    # The densities are those of the rollout.
    assert figures["losses/approx_kl"].abs().max() < 1e-12
    assert moved_parts(agent, before, 0) == {"master", "ends", "qf"}
    assert moved_parts(agent, before, 1) == {"mean", "std", "qf"}

    bias = agent.actor.ends[4].bias
    changed = bias != before["actor.ends.4.bias"]  # (S K, 1, 1)
    assert changed[:3].all()
    std_changed = agent.actor.std != before["actor.std"]
    assert std_changed[1].all()


class PlainPPO:
    """PPO's step with torch's own optimiser and gradient clipping; counts the ratios that were clipped"""

    def __init__(self, parameters):
        self.parameters = list(parameters)
        self.adam = torch.optim.Adam(self.parameters, 1e-2, eps=1e-5)
        self.clipped = 0

    def step(self, ratio, advantage, value, returns, bonus=0.0):
        """All (B, 1)"""
        advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
        unclipped = -ratio * advantage
        clipped = -ratio.clamp(0.8, 1.2) * advantage
        policy_loss = torch.max(unclipped, clipped).mean()
        value_loss = 0.5 * nn.functional.mse_loss(value, returns)
        loss = policy_loss + 0.5 * value_loss - bonus
        self.adam.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, 0.5)
        self.adam.step()
        self.clipped += ((ratio - 1).abs() > 0.2).sum().item()


def first_seed(batch) -> dac_ppo.Batch:
    return dac_ppo.Batch(*[field[0] for field in batch])


@pytest.mark.parametrize("ent_coef", [0.0, 0.01, 1.0])
def test_the_high_process_learns_as_ppo_does(ent_coef):
    agent = make_various(dac_ppo, seeds=[0], num_envs=2, ent_coef=ent_coef, learning_rate=1e-2)
    batch = learn_from(dac_ppo, agent, make_world(seeds=1, length=40))
    twin = copy.deepcopy(agent)
    ppo = PlainPPO(twin.parameters())
    for minibatch in random_minibatches(batch, 20):
        agent.update(minibatch, torch.ones(1, 1, 1).bool())

        x = first_seed(minibatch)
        _, _, log_mu, ends = twin.actor(minibatch.obs)
        mu = log_mu[0].exp()
        beta = ends[0].sigmoid()
        probs = [high_by_hand(*state) for state in zip(mu, beta, x.before)]
        probs = torch.stack(probs)
        new = probs.gather(-1, x.option.long())
        ratio = new / x.high_log_prob.exp()
        q = twin.qf(minibatch.obs)[0]
        value = (probs.detach() * q).sum(-1, keepdim=True)
        entropy = D.Categorical(probs=probs).entropy().mean()
        ppo.step(ratio, x.high_advantage, value, x.high_returns, ent_coef * entropy)
    assert ppo.clipped > 20
    expected = dict(twin.actor.named_parameters())
    for name, x in agent.actor.named_parameters():
        torch.testing.assert_close(x, expected[name], rtol=1e-6, atol=1e-8, msg=name)
    close(agent.qf[4].weight, twin.qf[4].weight, rtol=1e-6, atol=1e-8)


def test_the_low_process_of_one_option_learns_as_ppo_does():
    agent = make_various(dac_ppo, k=1, seeds=[0], num_envs=2, learning_rate=1e-2)
    batch = learn_from(dac_ppo, agent, make_world(seeds=1, length=40))
    mean = one_mlp(agent.actor.mean)
    vf = one_mlp(agent.qf)
    std = agent.actor.std[0, 0].detach().clone().requires_grad_()
    ppo = PlainPPO([*mean.parameters(), *vf.parameters(), std])
    for minibatch in random_minibatches(batch, 20):
        agent.update(minibatch, torch.zeros(1, 1, 1).bool())

        x = first_seed(minibatch)
        normal = D.Normal(mean(x.obs).tanh(), nn.functional.softplus(std))
        log_prob = normal.log_prob(x.action).sum(-1, keepdim=True)
        ratio = (log_prob - x.low_log_prob).exp()
        ppo.step(ratio, x.low_advantage, vf(x.obs), x.low_returns)
    assert ppo.clipped > 20
    for i in (0, 2, 4):
        same_layer(agent.actor.mean[i], mean[i], rtol=1e-6, atol=1e-8)
        same_layer(agent.qf[i], vf[i], rtol=1e-6, atol=1e-8)
    close(agent.actor.std[0, 0], std, rtol=1e-6, atol=1e-8)


# DAC's runs

SMALL = {
    "num_envs": 3,
    "num_seeds": 2,
    "num_steps": 14,
    "minibatch_size": 7,
    "update_epochs": 1,
    "total_timesteps": 84,
    "eval_every": 42,
    "eval_episodes": 2,
    "compile": "off",
    "k": 3,
}


@pytest.mark.parametrize("env_id", ["ToyTerminates-v0", "ToyTruncates-v0"])
def test_every_episode_begins_without_an_option_in_a_real_run(tmp_path, monkeypatch, env_id):
    estimate = dac_ppo.Agent.estimate
    evaluate = dac_ppo.Envs.evaluate
    rollouts = []
    options = []

    def look(agent, rollout):
        drawn = dac_ppo.Drawn(*[field.flatten(1, 2) for field in rollout.drawn])
        _, _, log_mu, ends = agent.actor(drawn.obs)
        log_high = dac_ppo.high_log_prob(log_mu, ends, drawn.before)
        expected = torch.where(drawn.before < 0, log_mu, log_high).gather(-1, drawn.option.long())
        close(drawn.high_log_prob, expected, rtol=1e-4, atol=1e-5)
        rollouts.append(rollout.drawn)
        return estimate(agent, rollout)

    def note(envs, act, *args):
        options.append(act.__self__.option)
        return evaluate(envs, act, *args)

    monkeypatch.setattr(dac_ppo.Agent, "estimate", look)
    monkeypatch.setattr(dac_ppo.Envs, "evaluate", note)
    dac_ppo.train(dac_ppo.Args(env_id=env_id, run_dir=str(tmp_path), **SMALL))

    option = torch.cat([drawn.option for drawn in rollouts], 1)  # (S, 28, E, 1)
    before = torch.cat([drawn.before for drawn in rollouts], 1)
    for t in range(28):
        if t % 5 == 0:  # episodes are of 5 steps
            assert (before[:, t] == -1).all()
        else:
            assert torch.equal(before[:, t], option[:, t - 1])
    assert option.unique().tolist() == [0, 1, 2]
    assert options == [None, None]  # each evaluation begins anew


def test_each_process_has_its_half_of_the_minibatches(tmp_path, monkeypatch):
    """Of 8 seeds, some begin with the high one."""
    update = dac_ppo.Agent.update
    turns = []

    def look(agent, batch, high):
        turns.append(high.flatten().tolist())
        return update(agent, batch, high)

    monkeypatch.setattr(dac_ppo.Agent, "update", look)
    fields = {**SMALL, "num_seeds": 8, "total_timesteps": 42, "update_epochs": 2}
    dac_ppo.train(dac_ppo.Args(env_id="ToyTruncates-v0", run_dir=str(tmp_path), **fields))
    passes = 42 // 7 * 2
    assert len(turns) == 2 * passes
    first = turns[0]
    second = [not high for high in first]
    assert len(set(first)) == 2
    assert turns == [first] * passes + [second] * passes
