"""SAC's baselines: what each policy composes, whose gradient its loss has, K = 1, seeds side by side."""

import math

import pytest
import torch
from agents import close, is_finite, label, learning, learns_the_same_alone, make_agent, target_is
from common import sac_batch, sac_noise
from torch import nn
from torch.distributions import (
    Categorical,
    Independent,
    MixtureSameFamily,
    Normal,
    TanhTransform,
    TransformedDistribution,
)

from pmoe import pmoe_sac
from pmoe.baselines import gating_sac, gumbel_sac, mcp_sac, mrp_sac, reinforce_sac

COMPOSED = [gating_sac, mcp_sac]
MIXTURES = [gumbel_sac, reinforce_sac, mrp_sac]
BASELINES = [*COMPOSED, *MIXTURES]
HALF = {"estimator": "half"}
SETTINGS = [
    (gating_sac, {}),
    (mcp_sac, {}),
    (gumbel_sac, {}),
    (reinforce_sac, {}),
    (reinforce_sac, {"baseline_samples": 0}),
    (mrp_sac, {}),
    (mrp_sac, HALF),
]
SAC_AT_ONE = [(module, fields) for module, fields in SETTINGS if module is not reinforce_sac]

each_composed = pytest.mark.parametrize("module", COMPOSED, ids=label)
each_mixture = pytest.mark.parametrize("module", MIXTURES, ids=label)
each_setting = pytest.mark.parametrize("module, fields", SETTINGS, ids=label)


def random(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def gaussians_and_weights(*shape):
    """mean and log_std (*shape, A), log_w (*shape) of a softmax"""
    mean = random(*shape, seed=0)
    log_std = 0.5 * random(*shape, seed=1)
    logits = random(*shape[:-1], seed=2)
    return mean, log_std, logits.log_softmax(-1)


def mixture(agent, obs) -> TransformedDistribution:
    """The mixture policy built from torch.distributions: a distribution of actions (S, B, A)"""
    mean, log_std, log_w = agent.actor(obs)
    primitives = Independent(Normal(mean, log_std.exp()), 1)
    before_tanh = MixtureSameFamily(Categorical(logits=log_w), primitives)
    return TransformedDistribution(before_tanh, [TanhTransform()])


def quadrature(agent, obs):
    """Of a mixture of one action dimension in the first state: actions on a grid, log pi(a|s), pi(a|s) da"""
    mean, log_std, log_w = [x[0, 0].flatten() for x in agent.actor(obs[:, :1])]
    before_tanh = MixtureSameFamily(Categorical(logits=log_w), Normal(mean, log_std.exp()))
    u = torch.linspace(-60, 60, 120_001, dtype=torch.float64)
    log_prob = before_tanh.log_prob(u)
    action = u.tanh()
    log_det = TanhTransform().log_abs_det_jacobian(u, action)
    spacing = u[1] - u[0]
    return action, log_prob - log_det, log_prob.exp() * spacing


# What gating and MCP compose


def test_gating_has_the_moments_of_the_weighted_sum():
    mean, log_std, log_w = gaussians_and_weights(1, 1, 4, 2)
    n = 100_000
    u = mean + log_std.exp() * random(1, n, 4, 2, seed=3)
    w = log_w.exp().unsqueeze(-1)
    x = (w * u).sum(2)[0]
    composed, log_sigma = gating_sac.compose(mean, log_std, log_w)
    error = x.std(0).max().item() / math.sqrt(n)
    close(x.mean(0), composed.flatten(), rtol=0, atol=5 * error)
    variance = (2 * log_sigma).exp()
    error = math.sqrt(2 / n)
    close(x.var(0), variance.flatten(), rtol=5 * error)


def test_gating_has_the_printed_variance_where_it_is_asked_for():
    mean, log_std, log_w = gaussians_and_weights(1, 1, 4, 2)
    w = log_w.exp().unsqueeze(-1)
    variance = (2 * log_std).exp()
    _, log_sigma = gating_sac.compose(mean, log_std, log_w, printed=True)
    printed = (w * variance).sum(2, keepdim=True)
    close((2 * log_sigma).exp(), printed)


@pytest.mark.parametrize("variance, sigma", [("exact", math.sqrt(0.5)), ("printed", 1.0)])
def test_gating_draws_with_the_variance_asked_for(variance, sigma):
    agent = make_agent(gating_sac, k=2, action_size=1, variance=variance).double()
    # Two standard Gaussians, equally weighted
    zeros = torch.zeros(2, 1, 2, 1, dtype=torch.float64)
    log_w = torch.full((2, 1, 2), 0.5, dtype=torch.float64).log()
    agent.actor.forward = lambda obs: (zeros, zeros, log_w)
    ones = torch.ones(2, 1, 1, 1, dtype=torch.float64)
    action, log_prob, _ = agent.propose(None, ones)
    expected = (sigma * ones).tanh()
    close(action, expected)
    policy = TransformedDistribution(Normal(torch.zeros_like(ones), sigma), [TanhTransform()])
    close(log_prob, policy.log_prob(expected).squeeze(-1))


@pytest.mark.parametrize("w", [(0.5, 0.5, 0.5), (0.9, 0.1, 0.4), (0.01, 0.03, 0.002), (0.999, 0.999, 0.999)])
def test_mcp_is_the_normalised_product_of_the_gaussians(w):
    u = torch.linspace(-60, 60, 200_001, dtype=torch.float64)
    w = torch.tensor(w, dtype=torch.float64)
    mean = torch.tensor([-1.0, 0.5, 2.0], dtype=torch.float64)
    std = torch.tensor([0.3, 1.0, 0.6], dtype=torch.float64)
    log_factors = w * Normal(mean, std).log_prob(u.unsqueeze(-1))
    product = log_factors.sum(-1).exp()
    density = product / torch.trapezoid(product, u)

    mean, log_std = [x.view(1, 1, 3, 1) for x in (mean, std.log())]
    mean, log_std = mcp_sac.compose(mean, log_std, w.log().view(1, 1, 3))
    composed = Normal(mean.flatten(), log_std.exp().flatten())
    close(density, composed.log_prob(u).exp(), rtol=1e-6)


def test_mcp_precision_of_each_dimension_is_the_sum_of_the_gated_ones():
    mean, log_std, log_w = gaussians_and_weights(2, 5, 4, 3)
    w = log_w.exp().unsqueeze(-1)
    precisions = w / log_std.exp().square()
    precision = precisions.sum(2, keepdim=True)
    composed, log_sigma = mcp_sac.compose(mean, log_std, log_w)
    close(log_sigma, -0.5 * precision.log())
    close(composed, (precisions * mean).sum(2, keepdim=True) / precision)


def test_mcp_gates_are_open_or_shut_each_on_its_own():
    agent = make_agent(mcp_sac)
    agent.actor.router.bias.data[:] = torch.tensor([30.0, 30.0, -30.0])
    _, _, log_w = agent.actor(torch.randn(2, 5, 4))
    close(log_w.exp(), torch.tensor([1.0, 1.0, 0.0]).expand(2, 5, 3), atol=1e-6)


def test_mcp_gates_have_no_entropy():
    agent = make_agent(mcp_sac)
    _, _, figures = agent.policy_loss(torch.randn(2, 5, 4), *sac_noise(agent, 5), 0.2)
    assert set(figures) == {"losses/actor", "routing/usage_0", "routing/usage_1", "routing/usage_2"}


def test_shut_mcp_gates_do_not_make_an_endless_gaussian():
    agent = make_agent(mcp_sac)
    agent.actor.router.bias.data -= 1e4
    obs = torch.randn(2, 5, 4)
    mean, log_std, log_w = agent.actor(obs)
    composed, log_sigma = mcp_sac.compose(mean, log_std, log_w)
    assert torch.equal(log_sigma, log_std.amax(2, keepdim=True) + 2)
    assert composed.abs().max() <= mean.abs().max()
    loss, _, _ = agent.policy_loss(obs, *sac_noise(agent, 5), 0.2)
    assert is_finite(agent, loss)


@each_composed
def test_one_gate_is_open(module):
    agent = make_agent(module, k=1)
    agent.actor.router.bias.data -= 7
    mean, log_std, log_w = agent.actor(torch.randn(2, 5, 4))
    composed, log_sigma = module.compose(mean, log_std, log_w)
    assert not log_w.any()
    assert torch.equal(composed, mean)
    close(log_sigma, log_std, rtol=1e-6, atol=1e-6)


@each_composed
def test_act_takes_the_composed_mean_or_that_of_one_primitive(module):
    agent = make_agent(module)
    obs = torch.randn(2, 50, 4)
    mean, log_std, log_w = agent.actor(obs)
    composed, _ = module.compose(mean, log_std, log_w)
    close(agent.actor.act(obs), composed.squeeze(2).tanh(), rtol=1e-6)

    def second(log_w):
        return torch.full_like(log_w[..., :1], 1, dtype=int)

    close(agent.actor.act(obs, second), mean[:, :, 1].tanh(), rtol=1e-6)


# The mixtures


@each_mixture
def test_draws_follow_the_mixture(module):
    n = 20_000
    agent = make_agent(module, seeds=[0], action_size=1).double()
    agent.actor.router.bias.data += torch.tensor([1.0, 0.0, -1.0])
    obs = random(1, 1, 4)
    action, _ = agent.draw(obs.expand(1, n, 4), *sac_noise(agent, n))
    mean, log_std, log_w = [x.flatten() for x in agent.actor(obs)]
    assert log_w.exp().min() > 0.02

    # The distribution function at what is drawn from it is uniform.
    u = action.flatten().atanh()
    below = Normal(mean, log_std.exp()).cdf(u.unsqueeze(-1))
    rank = (log_w.exp() * below).sum(-1)
    counts = torch.histc(rank, 20, 0, 1)
    expected = n / 20
    chi_square = (counts - expected).square().sum() / expected
    assert chi_square < 50  # of 19 degrees: once in 7,000 seeds


@pytest.mark.parametrize("alpha, value", [(0.5, 0.5), ("auto", 1.0)])
@each_mixture
def test_the_target_takes_the_density_of_the_mixture(module, alpha, value):
    agent = make_agent(module, gamma=0.9, alpha=alpha).double()
    batch = sac_batch(seeds=2, dtype=torch.float64)
    normal, uniform = sac_noise(agent, 64)
    normal /= 4  # far out, the policy by torch.distributions cannot undo the tanh
    next_action, log_prob = agent.draw(batch.next_obs, normal[:, :32], uniform[:, :32])
    policy = mixture(agent, batch.next_obs)
    expected = policy.log_prob(next_action.squeeze(2)).unsqueeze(-1)
    close(log_prob, expected, rtol=1e-6, atol=1e-6)
    target_is(agent, batch, (normal, uniform), 10 - value * expected)


# Gumbel-softmax


def test_gumbel_softmax_is_a_one_hot_with_the_gradient_of_the_softmax():
    generator = torch.Generator().manual_seed(0)
    log_w = torch.randn(2, 5000, 3, generator=generator).log_softmax(-1).requires_grad_()
    uniform = torch.rand(2, 5000, 3, generator=generator)
    weight = torch.rand(2, 5000, 3, generator=generator)
    one_hot = gumbel_sac.gumbel_softmax(log_w, uniform, 0.1)
    gumbel = -(-uniform.log()).log()
    soft = ((log_w + gumbel) / 0.1).softmax(-1)
    expected = nn.functional.one_hot(soft.argmax(-1), 3)
    assert torch.equal(one_hot, expected.float())
    (gradient,) = torch.autograd.grad((weight * one_hot).sum(), log_w)
    (expected,) = torch.autograd.grad((weight * soft).sum(), log_w)
    close(gradient, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("end", [0.0, 1 - 2**-24])
def test_gumbel_bears_the_ends_of_the_uniform(end):
    agent = make_agent(gumbel_sac)
    noise, uniform = sac_noise(agent, 8)
    uniform[:, :4, 0] = end
    uniform[:, :2] = end  # of every primitive
    loss, _, _ = agent.policy_loss(torch.randn(2, 8, 4), noise, uniform, 0.2)
    assert is_finite(agent, loss)


def test_gumbel_without_a_temperature_is_a_one_hot_without_gradient():
    log_w = torch.tensor([[[0.2, 0.5, 0.3]]]).log().requires_grad_()
    uniform = torch.tensor([[[0.4, 0.6, 0.2]]])
    one_hot = gumbel_sac.gumbel_softmax(log_w, uniform, 0.0)
    (gradient,) = torch.autograd.grad(one_hot[..., 1].sum(), log_w)
    assert one_hot.sum() == 1
    assert not gradient.any()


# Whose gradient a loss has


def two_peaks(obs, action):
    """A critic whose twins differ, so that their minimum counts: (S, B, J, 1) -> (S, 2, B, J)"""
    a = action.squeeze(-1)

    def peak(at, height):
        distance = a - at
        return height * (-10 * distance.square()).exp()

    right = peak(0.3, 2.0)
    left = peak(-0.5, 1.5)
    return torch.stack([right, 0.5 + left], 1)


UNBIASED = [
    (mrp_sac, {}),
    (mrp_sac, {"estimator": "half", "baseline": True}),
    (mrp_sac, {"estimator": "half", "baseline": False}),
    (reinforce_sac, {"baseline_samples": 0}),
    (reinforce_sac, {"baseline_samples": 1}),
    (reinforce_sac, {"baseline_samples": None}),
]


@pytest.mark.parametrize("module, fields", UNBIASED, ids=label)
def test_expected_gradient_is_that_of_the_objective(module, fields):
    replicates = 300
    size = 200
    alpha = 0.5
    agent = make_agent(module, seeds=[0], action_size=1, **fields).double()
    agent.qf.forward = two_peaks

    # A policy of its heads' biases alone, the same for every replicate
    actor = agent.actor
    actor.fc1 = nn.Identity()
    actor.fc2 = nn.Identity()
    rng = module.Philox(range(replicates))
    actor.mean_log_std = module.Linear(1, 6, rng).double()
    actor.router = module.Linear(1, 3, rng).double()
    biases = (actor.mean_log_std.bias, actor.router.bias)
    biases[0].data[:] = torch.tensor([-0.9, 0.1, 0.8, 0.2, 0.4, 0.1])
    biases[1].data[:] = torch.tensor([0.5, -0.3, 0.0])

    obs = torch.zeros(replicates, size, 1, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(replicates, size, agent.draws, 1, generator=generator, dtype=torch.float64)
    uniform = torch.rand(replicates, size, agent.draws, generator=generator, dtype=torch.float64)
    loss, _, _ = agent.policy_loss(obs, noise, uniform, alpha)
    gradients = torch.autograd.grad(loss.sum(), biases)
    samples = torch.cat([gradient[:, 0] for gradient in gradients], -1)  # (replicates, 9)

    action, log_prob, weight = quadrature(agent, obs)
    q = two_peaks(None, action.view(1, -1, 1, 1)).amin(1).flatten()
    objective = (weight * (alpha * log_prob - q)).sum()
    gradients = torch.autograd.grad(objective, biases)
    truth = torch.cat([gradient[0, 0] for gradient in gradients])
    error = samples.std(0) / math.sqrt(replicates)
    assert error.norm() < 0.05 * truth.norm()
    deviation = samples.mean(0) - truth
    assert (deviation / error).abs().max() < 4.5


@each_setting
def test_the_whole_actor_learns_from_the_policy_loss(module, fields):
    agent = make_agent(module, **fields)
    batch = sac_batch(seeds=2)
    loss, log_prob, figures = agent.policy_loss(batch.obs, *sac_noise(agent, 32), 0.2)
    assert learning(loss.sum(), agent.actor) == {"fc1", "fc2", "mean_log_std", "router"}
    # REINFORCE takes Q for a number.
    reaches_q = module is not reinforce_sac
    assert bool(learning(loss.sum(), agent.qf)) == reaches_q
    # Means and sigmas of every primitive
    (gradient,) = torch.autograd.grad(loss.sum(), agent.actor.mean_log_std.bias)
    assert gradient.all()
    assert loss.shape == (2,)
    assert log_prob.shape == (2, 32, 1)
    assert {figure.shape for figure in figures.values()} == {(2,)}


@pytest.mark.parametrize("module", BASELINES, ids=label)
def test_what_is_learnt_is_the_parameters_and_nothing_else(module):
    agent = make_agent(module, alpha="auto")
    learnt = {name for name, parameter in agent.named_parameters() if parameter.requires_grad}
    expected = {"temperature.log_alpha"}
    for part in ("actor", "qf"):
        for name, _ in getattr(agent, part).named_parameters():
            expected.add(f"{part}.{name}")
    assert learnt == expected


@each_mixture
def test_the_temperature_holds_the_entropy_of_the_mixture(module):
    n = 4000
    agent = make_agent(module, seeds=[0], action_size=1, alpha="auto").double()
    agent.qf.forward = two_peaks
    obs = torch.zeros(1, 1, 4, dtype=torch.float64)
    _, log_prob, _ = agent.policy_loss(obs.expand(1, n, 4), *sac_noise(agent, n), 0.2)
    _, expected, weight = quadrature(agent, obs)
    error = log_prob.std().item() / math.sqrt(n)
    mean = (weight * expected).sum()
    close(log_prob.mean(), mean, rtol=0, atol=4.5 * error)


# K = 1, and seeds side by side


@pytest.mark.parametrize("module, fields", SAC_AT_ONE, ids=label)
def test_one_primitive_is_sac(module, fields):
    sac = make_agent(pmoe_sac, k=1, alpha="auto").double()
    first = sac.actor.fc1.weight.clone()
    agent = make_agent(module, k=1, alpha="auto", **fields).double()
    agent.load_state_dict(sac.state_dict())
    for i in range(20):
        batch = sac_batch(seeds=2, seed=i, dtype=torch.float64)
        noise = sac_noise(sac, 64, i)
        figures = agent.update(batch, *noise)
        expected = sac.update(batch, *noise)
        close(figures["losses/critic"], expected["losses/critic"])
    state = agent.state_dict()
    for name, x in sac.state_dict().items():
        torch.testing.assert_close(state[name], x, rtol=1e-6, atol=1e-9, msg=name)
    assert not torch.equal(agent.actor.fc1.weight, first)


@each_setting
def test_a_seed_learns_the_same_alone_as_among_others(module, fields):
    learns_the_same_alone(module, sac_noise, **fields)
