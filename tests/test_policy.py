"""The mixture policy against torch.distributions, numerical integration and what must hold of any mixture."""

import numpy as np
import pytest
import torch
from common import sac_agent, sac_noise
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import distributions as D

from pmoe.pmoe_sac import Critic, Linear, Philox, draw_primitive, mixture_log_density


def torch_mixture(agent, obs):
    """The same policy built from torch.distributions: a distribution of actions (S, B, A)"""
    mean, log_std, log_w = agent.actor(obs)
    router = D.Categorical(logits=log_w)
    gaussians = D.Independent(D.Normal(mean, log_std.exp()), 1)
    mixture = D.MixtureSameFamily(router, gaussians)
    return D.TransformedDistribution(mixture, [D.TanhTransform()])


def random_obs(*shape):
    return torch.randn(*shape, dtype=torch.float64)


def test_mixture_density_is_torch_distributions():
    agent = sac_agent(entropy="mixture").double()
    obs = random_obs(2, 5, 4)
    normal, _ = sac_noise(agent, 5)
    action, log_prob, _ = agent.propose(obs, normal)
    for k in range(3):
        expected = torch_mixture(agent, obs).log_prob(action[:, :, k])
        torch.testing.assert_close(log_prob[:, :, k], expected, rtol=1e-6, atol=1e-6)


def test_primitive_density_is_torch_distributions():
    agent = sac_agent(entropy="primitive").double()
    obs = random_obs(2, 5, 4)
    normal, _ = sac_noise(agent, 5)
    action, log_prob, _ = agent.propose(obs, normal)
    mean, log_std, _ = agent.actor(obs)
    gaussian = D.Independent(D.Normal(mean, log_std.exp()), 1)
    squashed = D.TransformedDistribution(gaussian, [D.TanhTransform()])
    expected = squashed.log_prob(action)
    torch.testing.assert_close(log_prob, expected, rtol=1e-6, atol=1e-6)


def test_density_integrates_to_one_over_the_actions():
    agent = sac_agent(seeds=1, action_size=1, entropy="mixture").double()
    grid = torch.linspace(-30, 30, 60_001, dtype=torch.float64)
    points = len(grid)
    obs = random_obs(1, 1, 4).expand(1, points, 4)
    noise = grid.view(1, points, 1, 1).expand(1, points, 3, 1)
    action, log_prob, _ = agent.propose(obs, noise)
    one = torch.tensor(1.0, dtype=torch.float64)
    for k in range(3):
        density = log_prob[0, :, k].exp()
        area = torch.trapezoid(density, action[0, :, k, 0])
        torch.testing.assert_close(area, one, rtol=0, atol=1e-4)


def permute_primitives(actor, permutation):
    """Swaps the primitives of a policy, in place."""
    with torch.no_grad():
        for parameter in actor.mean_log_std.parameters():
            primitives = parameter.unflatten(-1, (2, actor.k, -1))  # (., ., 2, K, A)
            permuted = primitives[..., permutation, :]
            parameter.copy_(permuted.flatten(-3))
        for parameter in actor.router.parameters():
            parameter.copy_(parameter[..., permutation])


def test_permuting_the_primitives_permutes_the_policy():
    agent = sac_agent().double()
    obs = random_obs(2, 7, 4)
    mean, log_std, log_w = agent.actor(obs)
    action = agent.actor.act(obs)
    density = torch_mixture(agent, obs).log_prob(action)

    permutation = [2, 0, 1]
    permute_primitives(agent.actor, permutation)
    new_mean, new_log_std, new_log_w = agent.actor(obs)
    torch.testing.assert_close(new_mean, mean[:, :, permutation])
    torch.testing.assert_close(new_log_std, log_std[:, :, permutation])
    torch.testing.assert_close(new_log_w, log_w[:, :, permutation])
    torch.testing.assert_close(agent.actor.act(obs), action)
    new_density = torch_mixture(agent, obs).log_prob(action)
    torch.testing.assert_close(new_density, density)


@settings(deadline=None, max_examples=25)
@given(
    logits=st.floats(0, 1e6),
    means=st.floats(0, 1e4),
    log_stds=st.floats(-1e4, 1e4),
    entropy=st.sampled_from(["primitive", "mixture"]),
)
def test_finite_at_extreme_logits_and_actions(logits, means, log_stds, entropy):
    agent = sac_agent(k=4, action_size=17, entropy=entropy)
    actor = agent.actor
    with torch.no_grad():
        actor.router.bias += logits * torch.randn(actor.router.bias.shape)
        mean, log_std = actor.mean_log_std.bias.chunk(2, -1)
        mean += means * torch.randn(mean.shape)
        log_std += log_stds
    obs = torch.randn(2, 6, 4)
    normal, _ = sac_noise(agent, 6)
    action, log_prob, log_w = agent.propose(obs, normal)
    torch.testing.assert_close(log_w.exp().sum(-1), torch.ones(2, 6))
    assert action.abs().max() <= 1
    assert log_prob.isfinite().all()
    log_prob.sum().backward()
    for parameter in actor.parameters():
        if parameter.grad is not None:
            assert parameter.grad.isfinite().all()


def test_mixture_density_of_one_primitive_is_its_own():
    obs = torch.randn(2, 5, 4)
    primitive = sac_agent(k=1, entropy="primitive")
    mixture = sac_agent(k=1, entropy="mixture")
    normal, _ = sac_noise(primitive, 5)
    action, log_prob, _ = primitive.propose(obs, normal)
    same_action, same_log_prob, _ = mixture.propose(obs, normal)
    assert torch.equal(action, same_action)
    assert torch.equal(log_prob, same_log_prob)


def test_mixture_density_does_not_underflow_in_many_dimensions():
    u = torch.full((1, 1, 1, 17), 40.0)
    mean = torch.zeros(1, 1, 2, 17)
    log_std = torch.zeros(1, 1, 2, 17)
    log_w = torch.tensor([[[0.5, 0.5]]]).log()
    log_prob = mixture_log_density(u, mean, log_std, log_w)
    of_one_dimension = -0.5 * 40**2 - 0.5 * np.log(2 * np.pi)
    torch.testing.assert_close(log_prob.item(), 17 * of_one_dimension, rtol=1e-5, atol=0)


def test_draws_follow_the_router():
    n = 30_000
    log_w = torch.tensor([0.1, 0.7, 0.2]).log().expand(1, n, 3)
    uniform = torch.rand(1, n, 1, generator=torch.Generator().manual_seed(0))
    chosen = draw_primitive(log_w, uniform)
    frequency = chosen.flatten().bincount(minlength=3) / n
    torch.testing.assert_close(frequency, log_w[0, 0].exp(), rtol=0, atol=0.015)


def test_a_primitive_without_weight_is_never_drawn_and_rounding_invents_none():
    log_w = torch.tensor([[[0.0, 1.0, 0.0]]]).log()
    almost_one = 1 - 2**-24
    uniform = torch.tensor([[[0.0, 0.5, almost_one]]])
    assert draw_primitive(log_w, uniform).tolist() == [[[1, 1, 1]]]
    # The sum of w is below the uniform number here.
    log_w = torch.tensor([[[0.3, 0.3, 0.3]]]).log()
    assert draw_primitive(log_w, uniform).tolist() == [[[0, 1, 2]]]


def test_draw_takes_the_action_and_density_of_the_primitive_drawn():
    agent = sac_agent()
    obs = torch.randn(2, 50, 4)
    normal, uniform = sac_noise(agent, 50)
    action, log_prob, log_w = agent.propose(obs, normal)
    chosen = draw_primitive(log_w, uniform[..., :1]).squeeze(-1)
    assert len(chosen.unique()) == 3

    drawn, density = agent.draw(obs, normal, uniform)
    s = torch.arange(2).unsqueeze(-1)
    b = torch.arange(50)
    assert torch.equal(drawn.squeeze(2), action[s, b, chosen])
    assert torch.equal(density.squeeze(2), log_prob[s, b, chosen])


def test_act_routes_as_asked():
    agent = sac_agent(seeds=1)
    obs = torch.randn(1, 200, 4)
    mean, _, log_w = agent.actor(obs)
    means = mean.tanh()  # (1, 200, 3, 2)

    for k in range(3):
        alone = agent.actor.act(obs, lambda log_w, k=k: torch.full_like(log_w[..., :1], k, dtype=int))
        assert torch.equal(alone, means[:, :, k])

    best = log_w[0].argmax(-1)
    assert len(best.unique()) > 1
    states = torch.arange(200)
    likeliest = agent.actor.act(obs)
    assert torch.equal(likeliest[0], means[0, states, best])

    _, uniform = sac_noise(agent, 200)
    sampled = agent.actor.act(obs, lambda log_w: draw_primitive(log_w, uniform[..., :1]))
    used = (sampled.unsqueeze(2) == means).all(-1)  # (1, 200, 3): which primitive's mean each action is
    assert used.any(-1).all()
    assert used.float().mean(1).min() > 0.05


def test_linear_starts_as_torch_does_and_each_seed_alone():
    layer = Linear(17, 300, Philox([5, 6]))
    alone = Linear(17, 300, Philox([6]))
    assert torch.equal(layer.weight[1], alone.weight[0])
    assert torch.equal(layer.bias[1], alone.bias[0])

    bound = 17**-0.5
    uniform_std = bound / 3**0.5
    for x in (layer.weight, layer.bias):
        assert x.abs().max() <= bound
        assert x.std().item() == pytest.approx(uniform_std, abs=0.02 * bound)


def through(layer, n, x):
    """A vector through the n-th of the layers that stand side by side"""
    return x @ layer.weight[n] + layer.bias[n, 0]


def test_critic_is_two_networks_a_seed():
    critic = Critic(3 + 2, 256, Philox([1, 2]))
    obs = torch.randn(2, 5, 3)
    action = torch.randn(2, 5, 4, 2)
    q = critic(obs, action)  # (S, 2, B, K)
    for s in range(2):
        for twin in range(2):
            network = 2 * s + twin
            x = torch.cat([obs[s, 1], action[s, 1, 3]])
            x = through(critic.fc1, network, x).relu()
            x = through(critic.fc2, network, x).relu()
            x = through(critic.fc3, network, x)
            torch.testing.assert_close(q[s, twin, 1, 3], x[0])
