"""The baselines: what each policy composes, whose gradient its loss has, K = 1, DAC's two MDPs, seeds side by side."""

import copy

import common  # noqa: F401  registers the toy environments
import numpy as np
import pytest
import torch
from torch import distributions as D
from torch import nn

from pmoe import pmoe_ppo, pmoe_sac
from pmoe.baselines import dac_ppo, gating_sac, gumbel_sac, mcp_ppo, mcp_sac, mrp_sac, reinforce_sac

SAC = [gating_sac, mcp_sac, gumbel_sac, reinforce_sac, mrp_sac]
MIXTURES = [gumbel_sac, reinforce_sac, mrp_sac]
PPO = [mcp_ppo, dac_ppo]
SETTINGS = [
    *((module, {}) for module in SAC),
    (mrp_sac, {"estimator": "half"}),
    (reinforce_sac, {"baseline_samples": 0}),
]


def label(x):
    return "-".join(map(str, x.values())) if isinstance(x, dict) else x.__name__.split(".")[-1]


def make_agent(module, k=3, seeds=(0, 1), low=(-2.0, 0.5), high=(1.0, 1.5), **fields):
    """With primitives that differ, as those of PPO do not at first"""
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    sizes = (4, len(low)) if module in (pmoe_ppo, *PPO) else (4, np.float32(low), np.float32(high))
    agent = module.Agent(module.Args(k=k, **fields), *sizes, generators)
    for name, p in agent.actor.named_parameters():
        if "bias" in name:
            n = len(p) // len(seeds)  # networks a seed
            p.data += torch.cat([torch.randn(n, *p.shape[1:], generator=g) for g in generators])
    return agent


def noise(agent, n, seed=0, seeds=2):
    """For n states of each seed: normal (S, n, J, A) and uniform (S, n, J)"""
    g, actions = torch.Generator().manual_seed(seed), agent.actor.scale.shape[-1]
    normal = torch.randn(seeds, n, agent.draws, actions, generator=g, dtype=torch.float64)
    uniform = torch.rand(seeds, n, agent.draws, generator=g, dtype=torch.float64)
    return normal.to(agent.actor.scale.dtype), uniform.to(agent.actor.scale.dtype)


def batch(seeds=2, size=32, seed=0, dtype=torch.float32):
    g = torch.Generator().manual_seed(seed)
    x, y = (torch.randn(seeds, size, 4, generator=g) for _ in range(2))
    a, reward = torch.rand(seeds, size, 2, generator=g) * 2 - 1, torch.randn(seeds, size, 1, generator=g)
    return [z.to(dtype) for z in (x, a, y, reward, (torch.rand(seeds, size, 1, generator=g) < 0.3).float())]


def mixture(agent, obs):
    """The mixture policy built from torch.distributions: a distribution of actions (S, B, A)"""
    mean, log_std, log_w = agent.actor(obs)
    gaussians = D.Independent(D.Normal(mean, log_std.exp()), 1)
    scale, shift = agent.actor.scale[0, 0, 0], agent.actor.shift[0, 0, 0]
    transforms = [D.TanhTransform(), D.AffineTransform(shift, scale, event_dim=1)]
    return D.TransformedDistribution(D.MixtureSameFamily(D.Categorical(logits=log_w), gaussians), transforms)


def quadrature(agent, obs):
    """Of a policy of one action dimension in the first state: actions on a grid, log pi(a|s), and pi(a|s) da"""
    mean, log_std, log_w = (x[0, 0].view(-1) for x in agent.actor(obs[:, :1]))
    u, scale, shift = torch.linspace(-60, 60, 120_001).double(), agent.actor.scale.item(), agent.actor.shift.item()
    log_prob = D.MixtureSameFamily(D.Categorical(logits=log_w), D.Normal(mean, log_std.exp())).log_prob(u)
    log_det = D.TanhTransform().log_abs_det_jacobian(u, u.tanh()) + np.log(scale)
    return shift + scale * u.tanh(), log_prob - log_det, log_prob.exp() * (u[1] - u[0])


def close(a, b, rtol=1e-7, atol=1e-9):
    torch.testing.assert_close(a, b, rtol=rtol, atol=atol)


def gates(*shape, seed=0):
    """mean and log_std (*shape, A), log_w (*shape), of a softmax"""
    g = torch.Generator().manual_seed(seed)
    mean, log_std = (torch.randn(*shape, generator=g, dtype=torch.float64) for _ in range(2))
    return mean, 0.5 * log_std, torch.randn(*shape[:-1], generator=g, dtype=torch.float64).log_softmax(-1)


# What gating and MCP compose


def test_gating_has_the_moments_of_the_weighted_sum():
    mean, log_std, log_w = gates(1, 1, 4, 2)
    g, n = torch.Generator().manual_seed(1), 100_000
    u = mean + log_std.exp() * torch.randn(1, n, 4, 2, generator=g, dtype=torch.float64)
    x = (log_w.exp().unsqueeze(-1) * u).sum(2)[0]
    composed, log_sigma = (y.flatten() for y in gating_sac.compose(mean, log_std, log_w))
    close(x.mean(0), composed, rtol=0, atol=5 * (x.std(0) / n**0.5).max().item())
    close(x.var(0), (2 * log_sigma).exp(), rtol=5 * (2 / n) ** 0.5)
    _, printed = gating_sac.compose(mean, log_std, log_w, printed=True)
    close((2 * printed).exp(), (log_w.exp().unsqueeze(-1) * (2 * log_std).exp()).sum(2, keepdim=True))


@pytest.mark.parametrize("variance, log_sigma", [("exact", -0.5 * np.log(2)), ("printed", 0.0)])
def test_gating_draws_with_the_variance_asked_for(variance, log_sigma):
    agent = make_agent(gating_sac, k=2, low=[-1.0], high=[1.0], variance=variance).double()
    zeros, log_w = torch.zeros(2, 1, 2, 1), torch.full((2, 1, 2), 0.5).log()
    agent.actor.forward = lambda obs: (zeros, zeros, log_w)  # two standard Gaussians, equally weighted
    action, log_prob, _ = agent.propose(None, torch.ones(2, 1, 1, 1).double())
    u = torch.tensor(log_sigma).double().exp()
    close(action, u.tanh().expand(2, 1, 1, 1), rtol=1e-6)
    expected = D.TransformedDistribution(D.Normal(0, u), [D.TanhTransform()]).log_prob(u.tanh())
    close(log_prob, expected.expand(2, 1, 1), rtol=1e-6)


@pytest.mark.parametrize("w", [(0.5, 0.5, 0.5), (0.9, 0.1, 0.4), (0.01, 0.03, 0.002), (0.999, 0.999, 0.999)])
def test_mcp_is_the_normalised_product_of_the_gaussians(w):
    u, log_w = torch.linspace(-60, 60, 200_001, dtype=torch.float64), torch.tensor(w).double().log()
    mean, std = torch.tensor([-1.0, 0.5, 2.0]).double(), torch.tensor([0.3, 1.0, 0.6]).double()
    product = (log_w.exp() * D.Normal(mean, std).log_prob(u.unsqueeze(-1))).sum(-1).exp()
    density = product / torch.trapezoid(product, u)
    composed, log_sigma = mcp_sac.compose(*(x.view(1, 1, 3, 1) for x in (mean, std.log())), log_w.view(1, 1, 3))
    close(density, D.Normal(composed.flatten(), log_sigma.exp().flatten()).log_prob(u).exp(), rtol=1e-6)


def test_mcp_precision_of_each_dimension_is_the_sum_of_the_gated_ones():
    mean, log_std, log_w = gates(2, 5, 4, 3)
    w = log_w.exp().unsqueeze(-1)
    precision = (w / log_std.exp().square()).sum(2, keepdim=True)
    composed, log_sigma = mcp_sac.compose(mean, log_std, log_w)
    close(log_sigma, -0.5 * precision.log())
    close(composed, (w * mean / log_std.exp().square()).sum(2, keepdim=True) / precision)


def test_mcp_gates_are_open_or_shut_each_on_its_own():
    for agent in (make_agent(mcp_sac), make_agent(mcp_ppo)):
        agent.actor.router.bias.data[:] = torch.tensor([30.0, 30.0, -30.0])
        close(agent.actor(torch.randn(2, 5, 4))[2].exp(), torch.tensor([1.0, 1.0, 0.0]).expand(2, 5, 3), atol=1e-6)


def test_shut_mcp_gates_do_not_make_an_endless_gaussian():
    agent = make_agent(mcp_sac)
    agent.actor.router.bias.data -= 1e4
    obs = torch.randn(2, 5, 4)
    mean, log_std = mcp_sac.compose(*agent.actor(obs))
    assert (
        torch.equal(log_std, agent.actor(obs)[1].amax(2, keepdim=True) + 2)
        and mean.abs().max() <= agent.actor(obs)[0].abs().max()
    )
    loss = agent.policy_loss(obs, *noise(agent, 5), 0.2)[0].sum()
    gradients = torch.autograd.grad(loss, list(agent.actor.parameters()))
    assert loss.isfinite() and all(x.isfinite().all() for x in gradients)


@pytest.mark.parametrize("module", [mcp_sac, mcp_ppo, gating_sac], ids=label)
def test_one_gate_is_open(module):
    agent = make_agent(module, k=1)
    agent.actor.router.bias.data -= 7
    mean, log_std, log_w = agent.actor(torch.randn(2, 5, 4))
    composed = module.compose(mean, log_std, log_w)
    assert not log_w.any() and torch.equal(composed[0], mean)
    close(*torch.broadcast_tensors(composed[1], log_std), rtol=1e-6, atol=1e-6)


def test_one_primitive_of_mcp_ppo_may_be_as_wide_as_ppos():
    ppo, mcp = (make_agent(module, k=1) for module in (pmoe_ppo, mcp_ppo))
    ppo.actor.log_std.data += 3
    mcp.actor.load_state_dict(ppo.actor.state_dict())
    x = torch.randn(2, 1, 4), torch.ones(2, 1, 1, 2), torch.zeros(2, 1, 1)
    close(mcp.draw(*x)[..., 4:6], ppo.draw(*x)[..., 4:6], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("module", [gating_sac, mcp_sac, mcp_ppo], ids=label)
def test_act_takes_the_composed_mean_or_that_of_one_primitive(module):
    agent, obs = make_agent(module), torch.randn(2, 50, 4)
    actor, x = agent.actor, obs
    if module is mcp_ppo:
        actor.statistics.update(3 * obs + 1)
        x = actor.statistics.normalize(obs)
    policy = actor(x)
    actions = module.compose(*policy)[0], policy[0][:, :, 1:2]
    if module is not mcp_ppo:
        actions = (actor.shift + actor.scale * u.tanh() for u in actions)
    chosen = None, lambda log_w: torch.full_like(log_w[..., :1], 1, dtype=int)
    for action, choose in zip(actions, chosen):
        close(actor.act(obs, choose), action.squeeze(2), rtol=1e-6)


# The mixtures


@pytest.mark.parametrize("module", MIXTURES, ids=label)
def test_draws_follow_the_mixture(module):
    n, agent = 20_000, make_agent(module, seeds=[0], low=[-2.0], high=[1.0]).double()
    agent.actor.router.bias.data += torch.tensor([1.0, 0.0, -1.0])
    obs = torch.randn(1, 1, 4, generator=torch.Generator().manual_seed(0)).double()
    action = agent.draw(obs.expand(1, n, 4), *noise(agent, n, seeds=1))[0].flatten()
    u = ((action - agent.actor.shift.item()) / agent.actor.scale.item()).atanh()
    mean, log_std, log_w = (x.flatten() for x in agent.actor(obs))
    assert log_w.exp().min() > 0.02
    rank = (log_w.exp() * D.Normal(mean, log_std.exp()).cdf(u.unsqueeze(-1))).sum(-1)  # uniform, if drawn from it
    counts = torch.histc(rank, 20, 0, 1)
    assert (counts - n / 20).square().sum() / (n / 20) < 50  # chi-square of 19 degrees: once in 7,000 seeds


@pytest.mark.parametrize("fields", [{}, {"alpha": "auto"}])
@pytest.mark.parametrize("module", MIXTURES, ids=label)
def test_the_target_takes_the_density_of_the_mixture(module, fields):
    agent = make_agent(module, gamma=0.9, **{"alpha": 0.5, **fields}).double()
    for q, value in ((agent.qf, 0.0), (agent.qf_target, 10.0)):  # critics that are constant
        q.fc3.weight.data.zero_(), q.fc3.bias.data.fill_(value)
    obs, action, next_obs, reward, terminated = batch(dtype=torch.float64)
    normal, uniform = noise(agent, 64)
    drawn, log_prob = agent.draw(next_obs, normal[:, :32], uniform[:, :32])
    expected = mixture(agent, next_obs).log_prob(drawn[:, :, 0]).unsqueeze(-1)
    close(log_prob, expected, rtol=1e-6, atol=1e-6)
    alpha = 0.5 if not fields else 1.0
    target = reward + 0.9 * (1 - terminated) * (10 - alpha * expected)
    loss = agent.update(obs, action, next_obs, reward, terminated, normal, uniform)["losses/critic"]
    close(loss, 2 * target.square().mean((1, 2)), rtol=1e-6)


def test_gumbel_softmax_is_a_one_hot_with_the_gradient_of_the_softmax():
    g = torch.Generator().manual_seed(0)
    log_w = torch.randn(2, 5000, 3, generator=g).log_softmax(-1).requires_grad_()
    uniform, weight = (torch.rand(2, 5000, 3, generator=g) for _ in range(2))
    one_hot = gumbel_sac.gumbel_softmax(log_w, uniform, 0.1)
    soft = ((log_w - (-uniform.log()).log()) / 0.1).softmax(-1)
    assert torch.equal(one_hot, nn.functional.one_hot(soft.argmax(-1), 3).float())
    gradients = [torch.autograd.grad((weight * x).sum(), log_w)[0] for x in (one_hot, soft)]
    close(*gradients, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("uniform", [0.0, 1 - 2**-24])
def test_gumbel_bears_the_ends_of_the_uniform(uniform):
    agent, u = make_agent(gumbel_sac), torch.rand(2, 8, 3)
    u[:, :4, 0] = uniform
    u[:, :2] = uniform  # of every primitive
    loss = agent.policy_loss(torch.randn(2, 8, 4), noise(agent, 8)[0], u, 0.2)[0].sum()
    gradients = torch.autograd.grad(loss, list(agent.actor.parameters()))
    assert loss.isfinite() and all(x.isfinite().all() for x in gradients)


def test_gumbel_without_a_temperature_is_a_one_hot_without_gradient():
    log_w = torch.tensor([[[0.2, 0.5, 0.3]]]).log().requires_grad_()
    one_hot = gumbel_sac.gumbel_softmax(log_w, torch.tensor([[[0.4, 0.6, 0.2]]]), 0.0)
    (gradient,) = torch.autograd.grad(one_hot[..., 1].sum(), log_w)
    assert one_hot.sum() == 1 and not gradient.any()


def two_peaks(obs, action):
    """A critic whose twins differ, so that their minimum counts: (S, B, J, 1) -> (S, 2, B, J)"""
    a = action.squeeze(-1)
    return torch.stack([2 * (-10 * (a - 0.3).square()).exp(), 0.5 + 1.5 * (-10 * (a + 0.5).square()).exp()], 1)


UNBIASED = [(mrp_sac, {}), *((mrp_sac, {"estimator": "half", "baseline": x}) for x in (True, False))]
UNBIASED += [(reinforce_sac, {"baseline_samples": n}) for n in (0, 1, None)]


@pytest.mark.parametrize("module, fields", UNBIASED, ids=label)
def test_expected_gradient_is_that_of_the_objective(module, fields):
    replicates, size, alpha = 300, 200, 0.5
    agent = make_agent(module, seeds=[0], low=[-1.0], high=[2.0], **fields).double()
    agent.qf.forward, actor = two_peaks, agent.actor
    actor.fc1 = actor.fc2 = nn.Identity()  # the heads alone, the same for every replicate
    generators = [torch.Generator()] * replicates
    actor.mean_log_std, actor.router = (module.Linear(1, n, generators).double() for n in (6, 3))
    heads = actor.mean_log_std.bias, actor.router.bias
    for bias, values in zip(heads, ([-0.9, 0.1, 0.8, 0.2, 0.4, 0.1], [0.5, -0.3, 0.0])):
        bias.data[:] = torch.tensor(values)
    obs = torch.zeros(replicates, size, 1).double()
    loss = agent.policy_loss(obs, *noise(agent, size, seeds=replicates), alpha)[0]
    samples = torch.cat([x[:, 0] for x in torch.autograd.grad(loss.sum(), heads)], -1)  # (replicates, 9)

    action, log_prob, weight = quadrature(agent, obs)
    q = two_peaks(None, action.view(1, -1, 1, 1)).amin(1).flatten()
    objective = (weight * (alpha * log_prob - q)).sum()
    truth = torch.cat([x[0, 0] for x in torch.autograd.grad(objective, heads)])
    error = samples.std(0) / replicates**0.5
    assert error.norm() < 0.05 * truth.norm()
    assert ((samples.mean(0) - truth) / error).abs().max() < 4.5


def gradients_of(loss, module):
    """Names of the parts of a module that the loss reaches"""
    names, parameters = zip(*module.named_parameters())
    grads = torch.autograd.grad(loss, parameters, allow_unused=True, retain_graph=True)
    return {name.split(".")[0] for name, grad in zip(names, grads) if grad is not None and grad.any()}


@pytest.mark.parametrize("module, fields", SETTINGS, ids=label)
def test_the_whole_actor_learns_from_the_policy_loss(module, fields):
    agent, obs = make_agent(module, **fields), batch()[0]
    loss, log_prob, figures = agent.policy_loss(obs, *noise(agent, 32), 0.2)
    assert gradients_of(loss.sum(), agent.actor) == {"fc1", "fc2", "mean_log_std", "router"}
    assert bool(gradients_of(loss.sum(), agent.qf)) == (module is not reinforce_sac)  # which takes Q for a number
    heads = torch.autograd.grad(loss.sum(), agent.actor.mean_log_std.bias)[0].view(2, 2, 3, 2)
    assert heads.all()  # means and sigmas of every primitive
    assert loss.shape == (2,) and log_prob.shape == (2, 32, 1) and {x.shape for x in figures.values()} == {(2,)}


@pytest.mark.parametrize("module", MIXTURES, ids=label)
def test_the_temperature_holds_the_entropy_of_the_mixture(module):
    agent = make_agent(module, seeds=[0], low=[-2.0], high=[1.0], alpha="auto").double()
    agent.qf.forward, obs = two_peaks, torch.zeros(1, 1, 4).double()
    log_prob = agent.policy_loss(obs.expand(1, 4000, 4), *noise(agent, 4000, seeds=1), 0.2)[1].detach()
    _, expected, weight = quadrature(agent, obs)
    close(log_prob.mean(), (weight * expected).sum(), rtol=0, atol=4.5 * (log_prob.std() / 4000**0.5).item())


# K = 1, and seeds side by side


@pytest.mark.parametrize("module, fields", [x for x in SETTINGS if x[0] is not reinforce_sac], ids=label)
def test_one_primitive_is_sac(module, fields):
    sac = make_agent(pmoe_sac, k=1, alpha="auto").double()
    agent = make_agent(module, k=1, alpha="auto", **fields).double()
    agent.load_state_dict(sac.state_dict())
    for i in range(20):
        data = *batch(seed=i, dtype=torch.float64), *noise(sac, 64, i)
        ours, theirs = agent.update(*data), sac.update(*data)
        close(ours["losses/critic"], theirs["losses/critic"])
    for name, x in sac.state_dict().items():
        torch.testing.assert_close(agent.state_dict()[name], x, rtol=1e-6, atol=1e-9, msg=name)
    assert not torch.equal(agent.actor.fc1.weight, make_agent(pmoe_sac, k=1).double().actor.fc1.weight)


@pytest.mark.parametrize("module", SAC, ids=label)
def test_a_seed_learns_the_same_alone_as_among_others(module):
    together, alone = (make_agent(module, seeds=seeds, alpha="auto") for seeds in ((0, 1, 2), (1,)))
    for i in range(10):
        data = *batch(seeds=3, seed=i), *noise(together, 64, i, seeds=3)
        together.update(*data)
        alone.update(*(x[1:2] for x in data))
    for (name, x), y in zip(together.state_dict().items(), alone.state_dict().values()):
        x = x.unflatten(0, (3, -1))[1] if x.dim() else x
        torch.testing.assert_close(x, y, rtol=1e-4, atol=1e-5, msg=name)


def world(seeds=2, envs=2, length=16, seed=0, dtype=torch.float64):
    """What a random world answers in a rollout, and the noise that an agent takes, all (S, T, E, .)"""
    g, shape = torch.Generator().manual_seed(seed), (seeds, length, envs)
    x = {name: torch.randn(*shape, n, generator=g) for name, n in (("obs", 4), ("next_obs", 4), ("reward", 1))}
    x |= {"normal": torch.randn(*shape, 1, 2, generator=g), "uniform": torch.rand(*shape, 1, generator=g)}
    x |= {name: (torch.rand(*shape, 1, generator=g) < 0.15).float() for name in ("terminated", "truncated")}
    return {name: value.to(dtype) for name, value in x.items()}


def collect(agent, world):
    """A rollout, as `train` makes it: what agent.rollout is given (S, T, E, .), and the observations seen"""
    obs, steps, seen = world["obs"][:, 0], [], []
    for t in range(world["obs"].shape[1]):
        now = {name: x[:, t] for name, x in world.items()}
        drawn, done = agent.draw(obs, now["normal"], now["uniform"]), now["terminated"].maximum(now["truncated"])
        if hasattr(agent, "option"):
            agent.option.masked_fill_(done > 0, -1)
        steps.append(torch.cat([drawn, now["next_obs"], now["reward"], now["terminated"], done], -1))
        seen.append(obs)
        obs = torch.where(done > 0, now["obs"], now["next_obs"])
    return torch.stack(steps, 1), torch.stack(seen, 1)


def minibatches(rows, n, size=16, seed=0):
    g = torch.Generator().manual_seed(seed)
    return [rows[:, torch.randint(rows.shape[1], (size,), generator=g)] for _ in range(n)]


def test_one_primitive_of_mcp_ppo_is_ppo():
    ppo, mcp = (make_agent(module, k=1, num_envs=2).double() for module in (pmoe_ppo, mcp_ppo))
    mcp.load_state_dict({name: ppo.state_dict()[name] for name in mcp.state_dict()})
    rows, others = (agent.rollout(collect(agent, world())[0])[0] for agent in (mcp, ppo))
    others = torch.cat([others[..., :6], others[..., 7:]], -1)  # without the primitive drawn
    close(rows, others)
    for x in minibatches(rows, 20):
        figures = mcp.update(x, None)
        theirs = ppo.update(torch.cat([x[..., :6], 0 * x[..., :1], x[..., 6:]], -1), torch.zeros(2, 16, 1, 2).double())
        close(figures["losses/policy"], theirs["losses/policy"])
    for name, x in mcp.state_dict().items():
        torch.testing.assert_close(x, ppo.state_dict()[name], rtol=1e-6, atol=1e-9, msg=name)
    assert figures["losses/approx_kl"].min() > 1e-6


def test_mcp_ppo_draws_from_the_product_and_knows_its_density_and_entropy():
    agent = make_agent(mcp_ppo, num_envs=2).double()
    agent.actor.log_std.data += torch.randn(2, 3, 2).double() / 2
    answers = world()
    steps, _ = collect(agent, answers)
    obs, action, log_prob = steps[..., :7].flatten(1, 2).split((4, 2, 1), -1)
    mean, log_std, log_w = agent.actor(obs)
    precision = log_w.exp().unsqueeze(-1) / log_std.exp().square()
    mean = (precision * mean).sum(2) / precision.sum(2)
    normal = D.Independent(D.Normal(mean, precision.sum(2) ** -0.5), 1)
    close(action, mean + normal.base_dist.scale * answers["normal"].flatten(1, 2).squeeze(2))
    close(log_prob.squeeze(-1), normal.log_prob(action))
    figures = agent.update(agent.rollout(steps)[0], None)
    close(figures["losses/entropy"], normal.entropy().mean(1))
    assert figures["losses/approx_kl"].abs().max() < 1e-12 and not figures["losses/clip_fraction"].any()


@pytest.mark.parametrize("module", PPO, ids=label)
def test_a_seed_of_ppo_learns_the_same_alone_as_among_others(module):
    fields = {"num_envs": 2, "max_grad_norm": 0.1, "target_kl": 0.005}  # clips every gradient; some seeds wait
    together, alone = (make_agent(module, seeds=seeds, **fields).double() for seeds in ((0, 1, 2), (1,)))
    answers = world(seeds=3)
    answers["reward"] *= torch.tensor([1.0, 3.0, 100.0]).view(3, 1, 1, 1)  # the gradient's norms differ
    steps, _ = collect(together, answers)
    own, _ = collect(alone, {name: x[1:2] for name, x in answers.items()})
    rows = together.rollout(steps)[0]
    close(alone.rollout(own)[0], rows[1:2])
    for i, x in enumerate(minibatches(rows, 10)):
        high = torch.tensor([i % 2 == 0, i < 5, i % 3 == 0]).view(3, 1, 1)
        together.update(x, high), alone.update(x[1:2], high[1:2])
    for (name, x), y in zip(together.state_dict().items(), alone.state_dict().values()):
        torch.testing.assert_close(x.chunk(3)[1], y, rtol=1e-6, atol=1e-9, msg=name)


# DAC


def high_by_hand(mu, beta, before):
    """pi_H (K,) of mu (K,), beta (K,), and the option before, -1 for none"""
    if before < 0:
        return mu
    return torch.stack([(1 - beta[before]) * (o == before) + beta[before] * mu[o] for o in range(len(mu))])


@pytest.mark.parametrize("wide", [1, 30])
def test_the_high_policy_by_brute_force(wide):
    g = torch.Generator().manual_seed(0)
    log_mu, ends = (wide * torch.randn(2, 40, 4, generator=g, dtype=torch.float64) for _ in range(2))
    log_mu, before = log_mu.log_softmax(-1), torch.randint(-1, 4, (2, 40, 1), generator=g).double()
    log_high = dac_ppo.high_log_prob(log_mu, ends, before)
    close(log_high.exp().sum(-1), torch.ones(2, 40).double())
    for s in range(2):
        for b in range(40):
            expected = high_by_hand(log_mu[s, b].exp(), ends[s, b].sigmoid(), int(before[s, b]))
            close(log_high[s, b].exp(), expected, atol=1e-12)
    assert before.unique().tolist() == [-1, 0, 1, 2, 3]


def test_the_option_before_ends_and_no_other():
    log_mu, ends = torch.randn(1, 4, 3).log_softmax(-1), torch.randn(1, 4, 3, requires_grad=True)
    before = torch.tensor([[[-1.0], [0.0], [1.0], [2.0]]])
    for o in range(3):
        log_high = dac_ppo.high_log_prob(log_mu, ends, before)
        gradient = torch.autograd.grad(log_high[..., o].sum(), ends)[0][0]
        assert torch.equal(gradient != 0, torch.tensor([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]]).bool())


@pytest.mark.parametrize("part, output", [("mean", 0), ("ends", 3)])
def test_option_k_of_seed_s_is_network_s_times_k(part, output):
    agent, obs = make_agent(dac_ppo), torch.randn(2, 5, 4)
    before = [x.clone() for x in agent.actor(obs)]
    getattr(agent.actor, part)[4].bias.data[1 * 3 + 2] += 1
    changed = [(x != y).flatten(3).any(-1) if x.dim() == 4 else x != y for x, y in zip(agent.actor(obs), before)]
    assert [x.any().item() for x in changed] == [i == output for i in range(4)]
    assert changed[output][1, :, 2].all() and changed[output].sum() == 5


def test_options_are_drawn_from_the_high_policy():
    n = 20_000
    agent = make_agent(dac_ppo, seeds=[0], num_envs=n).double()
    obs, g = torch.randn(1, 1, 4).double().expand(1, n, 4), torch.Generator().manual_seed(0)
    for before in (-1, 1):
        agent.option.fill_(before)
        drawn = agent.draw(obs, torch.zeros(1, n, 1, 2).double(), torch.rand(1, n, 1, generator=g).double())
        _, _, log_mu, ends = agent.actor(drawn[:, :1, :4])
        expected = high_by_hand(log_mu[0, 0].exp(), ends[0, 0].sigmoid(), before)
        frequency = agent.option.flatten().long().bincount(minlength=3) / n
        close(frequency.double(), expected, rtol=0, atol=5 * 0.5 / n**0.5)
        assert torch.equal(drawn[..., 6:7], agent.option) and (drawn[..., 7] == before).all()


def network(layers, i, activation=nn.Tanh):
    """Network i of those side by side, in torch's own layers"""
    plain = [nn.Linear(*x.weight.shape[1:], dtype=x.weight.dtype) for x in (layers[0], layers[2], layers[4])]
    for ours, x in zip(plain, (layers[0], layers[2], layers[4])):
        ours.load_state_dict({"weight": x.weight[i].T.clone(), "bias": x.bias[i, 0].clone()})
    return nn.Sequential(plain[0], activation(), plain[1], activation(), plain[2])


@torch.no_grad()
def test_advantages_of_both_mdps_by_a_slow_loop():
    gamma, lam, length = 0.9, 0.8, 16
    agent = make_agent(dac_ppo, num_envs=3, gamma=gamma, gae_lambda=lam).double()
    answers = world(envs=3, length=length)
    steps, seen = collect(agent, answers)
    rows = agent.rollout(steps)[0].unflatten(1, (length, 3))
    assert torch.equal(rows[..., :10], steps[..., :10])
    assert answers["terminated"].sum() > 3 and answers["truncated"].sum() > 3
    for s in range(2):
        master, q = network(agent.actor.master, s), network(agent.qf, s)
        ends = [network(agent.actor.ends, s * 3 + o) for o in range(3)]
        mean, std = seen[s].flatten(0, 1).mean(0), seen[s].flatten(0, 1).std(0, correction=0)

        def v_high(x, before, master=master, ends=ends, q=q):
            beta = torch.cat([f(x).sigmoid() for f in ends])
            return (high_by_hand(master(x).softmax(-1), beta, int(before)) * q(x)).sum()

        for e in range(3):
            deltas = []
            for t in range(length):
                x, option, before = steps[s, t, e, :4], int(steps[s, t, e, 6]), steps[s, t, e, 7]
                now = v_high(x, before), q(x)[option]
                bootstrap = [v_high((answers["next_obs"][s, t, e] - mean) / std, option)] * 2
                done = answers["terminated"][s, t, e] + answers["truncated"][s, t, e] > 0
                if t + 1 < length and not done:  # both know their next state
                    after = steps[s, t + 1, e]
                    bootstrap = [v_high(after[:4], after[7]), q(after[:4])[int(after[6])]]
                go_on, reward = 1 - answers["terminated"][s, t, e], answers["reward"][s, t, e]
                deltas.append((*(reward + gamma * go_on * y - x for x, y in zip(now, bootstrap)), done, *now))
            for t in range(length):
                for mdp in (0, 1):
                    advantage, weight = 0, 1
                    for delta in deltas[t:]:
                        advantage, weight = advantage + weight * delta[mdp], weight * gamma * lam
                        if delta[2]:
                            break
                    close(rows[s, t, e, 10 + mdp], advantage[0], rtol=1e-6)
                    close(rows[s, t, e, 12 + mdp], advantage[0] + deltas[t][3 + mdp], rtol=1e-6)


def part_of(name):
    return next(part for part in ("master", "ends", "mean", "std", "qf") if f".{part}" in f".{name}")


def test_each_mdp_moves_its_own_policy_and_each_seed_has_its_own_turn():
    agent = make_agent(dac_ppo, num_envs=2).double()
    rows = agent.rollout(collect(agent, world())[0])[0]
    before = {name: p.clone() for name, p in agent.named_parameters()}
    figures = agent.update(rows, torch.tensor([True, False]).view(2, 1, 1))
    assert figures["losses/approx_kl"].abs().max() < 1e-12  # the densities are those of the rollout
    changed = {name: (p != before[name]).chunk(2) for name, p in agent.named_parameters() if "adam" not in name}
    moved = [{part_of(name) for name, x in changed.items() if x[s].any()} for s in (0, 1)]
    assert moved == [{"master", "ends", "qf"}, {"mean", "std", "qf"}]
    assert all(x.any() for x in changed["actor.ends.4.bias"][0]) and changed["actor.std"][1].all()


@pytest.mark.parametrize("ent_coef", [0.0, 0.01, 1.0])
def test_the_high_mdp_learns_as_ppo_does(ent_coef):
    agent = make_agent(dac_ppo, seeds=[0], num_envs=2, ent_coef=ent_coef, learning_rate=1e-2).double()
    rows = agent.rollout(collect(agent, world(seeds=1, length=40))[0])[0]
    twin, clipped = copy.deepcopy(agent), 0
    adam = torch.optim.Adam(twin.learning, 1e-2, eps=1e-5)
    for x in minibatches(rows, 20):
        agent.update(x, torch.ones(1, 1, 1).bool())
        obs, _, option, before, old, _, advantage, _, returns, _ = x[0].split((4, 2, *[1] * 8), -1)
        _, _, log_mu, ends = (y[0] for y in twin.actor(obs.unsqueeze(0)))
        each = zip(log_mu.exp(), ends.sigmoid(), before)
        pi = torch.stack([high_by_hand(mu, beta, int(o)) for mu, beta, o in each])
        ratio = pi.gather(-1, option.long()) / old.exp()
        advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
        policy_loss = torch.max(-ratio * advantage, -ratio.clamp(0.8, 1.2) * advantage).mean()
        value = (pi.detach() * twin.qf(obs.unsqueeze(0))[0]).sum(-1, keepdim=True)
        loss = policy_loss + 0.5 * nn.functional.mse_loss(value, returns) / 2
        loss = loss - ent_coef * D.Categorical(probs=pi).entropy().mean()
        adam.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(twin.learning, 0.5)
        adam.step()
        clipped += ((ratio - 1).abs() > 0.2).sum()
    assert clipped > 20
    for (name, x), y in zip(agent.actor.named_parameters(), twin.actor.parameters()):
        torch.testing.assert_close(x, y, rtol=1e-6, atol=1e-8, msg=name)
    close(agent.qf[4].weight, twin.qf[4].weight, rtol=1e-6, atol=1e-8)


def test_the_low_mdp_of_one_option_learns_as_ppo_does():
    agent = make_agent(dac_ppo, k=1, seeds=[0], num_envs=2, learning_rate=1e-2).double()
    rows = agent.rollout(collect(agent, world(seeds=1, length=40))[0])[0]
    mean, vf, std = network(agent.actor.mean, 0), network(agent.qf, 0), agent.actor.std[0, 0].detach().clone()
    clipped = 0
    parameters = [*mean.parameters(), *vf.parameters(), std.requires_grad_()]
    adam = torch.optim.Adam(parameters, 1e-2, eps=1e-5)
    for x in minibatches(rows, 20):
        agent.update(x, torch.zeros(1, 1, 1).bool())
        obs, action, _, _, _, old, _, advantage, _, returns = x[0].split((4, 2, *[1] * 8), -1)
        normal = D.Normal(mean(obs).tanh(), nn.functional.softplus(std))
        ratio = (normal.log_prob(action).sum(-1, keepdim=True) - old).exp()
        advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
        loss = torch.max(-ratio * advantage, -ratio.clamp(0.8, 1.2) * advantage).mean()
        loss = loss + 0.5 * 0.5 * (vf(obs) - returns).square().mean()
        adam.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 0.5)
        adam.step()
        clipped += ((ratio - 1).abs() > 0.2).sum()
    assert clipped > 20
    for i in (0, 2, 4):
        close(agent.actor.mean[i].weight[0].T, mean[i].weight, rtol=1e-6, atol=1e-8)
        close(agent.qf[i].weight[0].T, vf[i].weight, rtol=1e-6, atol=1e-8)
    close(agent.actor.std[0, 0], std, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("floor", [0.0, 1e-5])
def test_the_floor_kills_the_gradient_of_small_densities_and_none_changes_nothing(floor):
    agent = make_agent(dac_ppo, log_density_floor=floor).double()
    obs, option = torch.randn(2, 8, 4).double(), torch.randint(3, (2, 8, 1))
    policy = agent.actor(obs)
    means = policy[0]
    mean, log_std = (x.take_along_dim(option.unsqueeze(-1), 2).squeeze(2) for x in policy[:2])
    for distance in (0.5, 8.0):
        action = (mean + distance * log_std.exp()).detach()
        density = D.Independent(D.Normal(mean, log_std.exp()), 1).log_prob(action).exp().unsqueeze(-1)
        _, low, _ = agent.log_probs(policy, action, option, -torch.ones(2, 8, 1).double())
        close(low, (density + floor).log())
        plain, ours = (torch.autograd.grad(x.sum(), means, retain_graph=True)[0] for x in (density.log(), low))
        plain, ours = (x.take_along_dim(option.unsqueeze(-1), 2).squeeze(2) for x in (plain, ours))
        assert (plain.abs() > 0.1).all()
        close(ours, plain * (density / (density + floor)).detach(), rtol=1e-6)
        assert (ours.abs() < 1e-9 * plain.abs()).all() == bool(floor and distance > 1)


def test_act_keeps_its_option_until_it_ends_and_begins_anew_without_one():
    agent, obs = make_agent(dac_ppo), torch.randn(2, 300, 4)
    actor = agent.actor
    actor.statistics.update(obs)

    def chosen(obs):
        """The options that the master likes best, and the action of the mean of those that `act` chose"""
        mean, _, log_mu, _ = actor(actor.statistics.normalize(obs))
        action = actor.act(obs)
        close(action, mean.take_along_dim(actor.option.unsqueeze(-1), 2).squeeze(2), rtol=1e-6)
        return log_mu.argmax(-1, keepdim=True), actor.option

    actor.ends[4].bias.data -= 100  # never ends
    actor.master[4].weight.data *= 300  # which likes another option elsewhere
    first, option = chosen(obs)
    assert torch.equal(first, option) and len(option.unique()) > 1
    other = obs.flip(1)
    assert not torch.equal(chosen(other)[0], first) and torch.equal(actor.option, first)
    actor.ends[4].bias.data += 200  # ends at once
    liked, option = chosen(other)
    assert torch.equal(liked, option)
    actor.ends[4].bias.data -= 200
    actor.option = None
    liked, option = chosen(obs)
    assert torch.equal(liked, option)


@pytest.mark.parametrize("env_id", ["ToyTerminates-v0", "ToyTruncates-v0"])
def test_every_episode_begins_without_an_option_in_a_real_run(tmp_path, monkeypatch, env_id):
    rollouts, options = [], []
    rollout, evaluate = dac_ppo.Agent.rollout, dac_ppo.Envs.evaluate

    def spy(agent, steps):
        obs, _, option, before, log_high, _ = steps.flatten(1, 2)[..., :9].split((3 - 1, 2, 1, 1, 1, 2), -1)
        _, _, log_mu, ends = agent.actor(obs)
        expected = dac_ppo.high_log_prob(log_mu, ends, before).gather(-1, option.long())
        expected = torch.where(before < 0, log_mu.gather(-1, option.long()), expected)
        close(log_high, expected, rtol=1e-4, atol=1e-5)
        rollouts.append(steps[..., 4:6])
        return rollout(agent, steps)

    def note(envs, act, seeds, step):
        options.append(act.__self__.option)
        return evaluate(envs, act, seeds, step)

    monkeypatch.setattr(dac_ppo.Agent, "rollout", spy)
    monkeypatch.setattr(dac_ppo.Envs, "evaluate", note)
    fields = {"num_envs": 3, "num_seeds": 2, "num_steps": 14, "minibatch_size": 7, "update_epochs": 1}
    fields |= {"total_timesteps": 84, "eval_every": 42, "eval_episodes": 2, "compile": "off", "k": 3}
    dac_ppo.train(dac_ppo.Args(env_id=env_id, run_dir=str(tmp_path), **fields))
    option, before = torch.cat(rollouts, 1).unbind(-1)  # (S, 28, E); episodes are of 5 steps
    start = torch.arange(28) % 5 == 0
    assert (before[:, start] == -1).all()
    assert torch.equal(before[:, 1:][:, ~start[1:]], option[:, :-1][:, ~start[1:]])
    assert option.unique().tolist() == [0, 1, 2]
    assert options == [None, None]  # each evaluation begins anew
