"""The mixture policy against torch.distributions, numerical integration and what must hold of any mixture."""

import numpy as np
import torch
from common import SHORT
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import distributions as D

from pmoe import pmoe_sac
from pmoe.pmoe_sac import Actor, Agent, Args, Critic, draw_primitive, mixture_log_density


def make_agent(k=3, seeds=2, obs=4, low=(-2.0, 0.5), high=(1.0, 1.5), **fields):
    generators = [torch.Generator().manual_seed(seed) for seed in range(seeds)]
    return Agent(Args(**(SHORT["sac"] | {"k": k} | fields)), obs, np.float32(low), np.float32(high), generators)


def noise(agent, n, seed=0):
    """For n states of each of its seeds: normal (S, n, K, A) and uniform (S, n, 1)"""
    seeds, _, _, actions = agent.actor.scale.shape
    g, dtype = torch.Generator().manual_seed(seed), agent.actor.scale.dtype
    normal = torch.randn(seeds, n, agent.actor.k, actions, generator=g, dtype=dtype)
    return normal, torch.rand(seeds, n, 1, generator=g, dtype=dtype)


def torch_mixture(agent, obs):
    """The same policy built from torch.distributions: a distribution of actions (S, B, A)"""
    mean, log_std, log_w = agent.actor(obs)
    gaussians = D.Independent(D.Normal(mean, log_std.exp()), 1)
    mixture = D.MixtureSameFamily(D.Categorical(logits=log_w), gaussians)
    scale, shift = agent.actor.scale[0, 0, 0], agent.actor.shift[0, 0, 0]
    return D.TransformedDistribution(mixture, [D.TanhTransform(), D.AffineTransform(shift, scale, event_dim=1)])


def test_mixture_density_is_torch_distributions():
    agent = make_agent(entropy="mixture").double()
    obs = torch.randn(2, 5, 4, dtype=torch.float64)
    action, log_prob, _ = agent.propose(obs, noise(agent, 5)[0])
    for k in range(3):
        expected = torch_mixture(agent, obs).log_prob(action[:, :, k])
        torch.testing.assert_close(log_prob[:, :, k], expected, rtol=1e-6, atol=1e-6)


def test_primitive_density_is_torch_distributions():
    agent = make_agent(entropy="primitive").double()
    obs = torch.randn(2, 5, 4, dtype=torch.float64)
    action, log_prob, _ = agent.propose(obs, noise(agent, 5)[0])
    mean, log_std, _ = agent.actor(obs)
    base = D.Independent(D.Normal(mean, log_std.exp()), 1)
    affine = D.AffineTransform(agent.actor.shift, agent.actor.scale, event_dim=1)
    expected = D.TransformedDistribution(base, [D.TanhTransform(), affine]).log_prob(action)
    torch.testing.assert_close(log_prob, expected, rtol=1e-6, atol=1e-6)


def test_density_integrates_to_one_over_the_actions():
    agent = make_agent(seeds=1, low=[-2.0], high=[3.0], entropy="mixture").double()
    grid = torch.linspace(-30, 30, 60_001, dtype=torch.float64)
    obs = torch.randn(1, 1, 4, dtype=torch.float64).expand(1, len(grid), 4)
    action, log_prob, _ = agent.propose(obs, grid[None, :, None, None].expand(1, -1, 3, 1))
    for k in range(3):
        area = torch.trapezoid(log_prob[0, :, k].exp(), action[0, :, k, 0])
        torch.testing.assert_close(area, torch.tensor(1.0, dtype=torch.float64), rtol=0, atol=1e-4)


def test_permuting_the_primitives_permutes_the_policy():
    agent, permutation = make_agent().double(), [2, 0, 1]
    obs = torch.randn(2, 7, 4, dtype=torch.float64)
    mean, log_std, log_w = agent.actor(obs)
    density = torch_mixture(agent, obs).log_prob(agent.actor.act(obs))
    with torch.no_grad():
        for p in (agent.actor.mean_log_std.weight, agent.actor.mean_log_std.bias):
            p.copy_(p.unflatten(-1, (2, 3, -1))[..., permutation, :].flatten(-3))
        for p in (agent.actor.router.weight, agent.actor.router.bias):
            p.copy_(p[..., permutation])
    new_mean, new_log_std, new_log_w = agent.actor(obs)
    torch.testing.assert_close(new_mean, mean[:, :, permutation])
    torch.testing.assert_close(new_log_std, log_std[:, :, permutation])
    torch.testing.assert_close(new_log_w, log_w[:, :, permutation])
    torch.testing.assert_close(torch_mixture(agent, obs).log_prob(agent.actor.act(obs)), density)


@settings(deadline=None, max_examples=25)
@given(
    logits=st.floats(0, 1e6),
    means=st.floats(0, 1e4),
    log_stds=st.floats(-1e4, 1e4),
    entropy=st.sampled_from(["primitive", "mixture"]),
)
def test_finite_at_extreme_logits_and_actions(logits, means, log_stds, entropy):
    agent = make_agent(k=4, low=[-0.4] * 17, high=[0.4] * 17, entropy=entropy)
    with torch.no_grad():
        agent.actor.router.bias += logits * torch.randn(agent.actor.router.bias.shape)
        mean, log_std = agent.actor.mean_log_std.bias.chunk(2, -1)
        mean += means * torch.randn(mean.shape)
        log_std += log_stds
    action, log_prob, log_w = agent.propose(torch.randn(2, 6, 4), noise(agent, 6)[0])
    torch.testing.assert_close(log_w.exp().sum(-1), torch.ones(2, 6))
    assert (action.abs() <= 0.4 + 1e-6).all()
    log_prob.sum().backward()
    grads = [p.grad for p in agent.actor.parameters() if p.grad is not None]
    assert log_prob.isfinite().all() and all(grad.isfinite().all() for grad in grads)


def test_mixture_density_of_one_primitive_is_its_own():
    agents = [make_agent(k=1, entropy=entropy) for entropy in ("primitive", "mixture")]
    obs = torch.randn(2, 5, 4)
    (a, p, _), (b, q, _) = (agent.propose(obs, noise(agent, 5)[0]) for agent in agents)
    assert torch.equal(a, b) and torch.equal(p, q)


def test_mixture_density_does_not_underflow_in_many_dimensions():
    u, mean, log_std = torch.full((1, 1, 1, 17), 40.0), torch.zeros(1, 1, 2, 17), torch.zeros(1, 1, 2, 17)
    log_prob = mixture_log_density(u, mean, log_std, torch.tensor([[[0.5, 0.5]]]).log())
    torch.testing.assert_close(log_prob.item(), -17 * (800 + 0.5 * np.log(2 * np.pi)), rtol=1e-5, atol=0)


def test_draws_follow_the_router():
    log_w = torch.tensor([0.1, 0.7, 0.2]).log().expand(1, 30_000, 3)
    frequency = draw_primitive(log_w, noise(make_agent(seeds=1), 30_000)[1]).flatten().bincount(minlength=3) / 30_000
    torch.testing.assert_close(frequency, log_w[0, 0].exp(), rtol=0, atol=0.015)


def test_draw_takes_the_action_and_density_of_the_primitive_drawn():
    agent, obs = make_agent(), torch.randn(2, 50, 4)
    normal, uniform = noise(agent, 50)
    action, log_prob, log_w = agent.propose(obs, normal)
    chosen = draw_primitive(log_w, uniform)
    s, b = torch.arange(2)[:, None], torch.arange(50)
    drawn, density = agent.draw(obs, normal, uniform)
    assert torch.equal(drawn[:, :, 0], action[s, b, chosen[..., 0]]) and len(chosen.unique()) == 3
    assert torch.equal(density[..., 0], log_prob[s, b, chosen[..., 0]])


def test_act_routes_as_asked():
    agent = make_agent(seeds=1)
    obs = torch.randn(1, 200, 4)
    mean, _, log_w = agent.actor(obs)
    means = agent.actor.shift + agent.actor.scale * mean.tanh()
    for k in range(3):
        alone = agent.actor.act(obs, lambda log_w, k=k: torch.full_like(log_w[..., :1], k, dtype=int))
        assert torch.equal(alone, means[:, :, k])
    best = log_w.argmax(-1)
    assert torch.equal(agent.actor.act(obs), means[0, torch.arange(200), best[0]][None])
    sampled = agent.actor.act(obs, lambda log_w: draw_primitive(log_w, noise(agent, 200)[1]))
    used = (sampled.unsqueeze(2) == means).all(-1)  # which primitive each action is the mean of
    assert used.any(-1).all() and used.float().mean(1).min() > 0.05


def test_linear_starts_as_torch_does_and_each_seed_alone():
    bound = 17**-0.5
    layer = pmoe_sac.Linear(17, 300, [torch.Generator().manual_seed(seed) for seed in (5, 6)])
    alone = pmoe_sac.Linear(17, 300, [torch.Generator().manual_seed(6)])
    assert torch.equal(layer.weight[1], alone.weight[0]) and torch.equal(layer.bias[1], alone.bias[0])
    for x in (layer.weight, layer.bias):
        assert x.abs().max() <= bound and abs(x.std().item() - bound / 3**0.5) < 0.02 * bound


def test_critic_is_two_networks_a_seed():
    generators = [torch.Generator().manual_seed(seed) for seed in (1, 2)]
    critic, obs, action = Critic(3 + 2, generators), torch.randn(2, 5, 3), torch.randn(2, 5, 4, 2)
    q = critic(obs, action)
    for s in range(2):
        for twin in range(2):
            x = torch.cat([obs[s, 1], action[s, 1, 3]])
            for layer in (critic.fc1, critic.fc2, critic.fc3):
                x = x.relu() if layer is not critic.fc1 else x
                x = x @ layer.weight[2 * s + twin] + layer.bias[2 * s + twin, 0]
            torch.testing.assert_close(q[s, twin, 1, 3], x[0])


def test_actor_takes_the_bounds_of_the_action_space():
    actor = Actor(3, np.float32([-1, 2]), np.float32([3, 2.5]), 2, [torch.Generator().manual_seed(0)])
    with torch.no_grad():
        actor.mean_log_std.bias[..., :4] += 100
    torch.testing.assert_close(actor.act(torch.randn(1, 1, 3))[0, 0], torch.tensor([3.0, 2.5]))
