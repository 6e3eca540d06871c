"""PPO's policy and update: K = 1 against a PPO written here, which loss reaches what, Adam, target_kl."""

from typing import NamedTuple
from unittest.mock import patch

import numpy as np
import pytest
import torch
from common import checkpoint, train
from ppo_agents import generator, make_agent, make_batch, noise, one_mlp, one_of, perturb, same_layer
from torch import distributions as D
from torch import nn

from pmoe import pmoe_ppo
from pmoe.pmoe_ppo import Linear

BOTH = pytest.mark.parametrize("surrogate", ["mixture", "primitive"])


def torch_mixture(agent, obs):
    """The same policy built from torch.distributions, of normalised observations"""
    mean, log_std, log_w = agent.actor(obs)
    std = log_std.exp().expand_as(mean)
    gaussians = D.Independent(D.Normal(mean, std), 1)
    return D.MixtureSameFamily(D.Categorical(logits=log_w), gaussians)


def density_of(mixture, batch, surrogate):
    """log pi(a|s), or log N_k(a|s) of the k that acted: (S, B, 1)"""
    if surrogate == "mixture":
        return mixture.log_prob(batch.action).unsqueeze(-1)
    of_primitives = mixture.component_distribution.log_prob(batch.action.unsqueeze(2))
    return of_primitives.gather(-1, batch.primitive.long())


def normalized(advantage):
    """Each seed's to mean 0 and standard deviation 1"""
    mean = advantage.mean(1, keepdim=True)
    std = advantage.std(1, keepdim=True)
    return (advantage - mean) / (std + 1e-8)


# What is learnt


@pytest.mark.parametrize("k", [1, 3])
def test_parameters_are_what_is_learnt(k):
    agent = make_agent(k=k)
    parts = dict(agent.named_children())
    assert parts.keys() == {"actor", "vf", "qf", "reward_scale", "policy_adam", "qf_adam"}
    for name in ("reward_scale", "policy_adam", "qf_adam"):
        assert not list(parts[name].parameters())
    actor = {name for name, _ in agent.actor.named_parameters()}
    layers = ["fc1", "fc2", "mean", "router"]
    expected = {f"{layer}.{part}" for layer in layers for part in ("weight", "bias")}
    assert actor == expected | {"log_std"}
    learnt = [*agent.policy_adam.learnt, *agent.qf_adam.learnt]
    assert {id(x) for x in learnt} == {id(x) for x in agent.parameters()}
    assert all(x.requires_grad for x in agent.parameters())
    assert not any(x.requires_grad for x in agent.buffers())


# K = 1 is PPO


class PlainPPO:
    """Proximal policy optimisation with torch's own layers, distributions, optimiser and clipping"""

    def __init__(self, agent, ent_coef):
        actor = agent.actor
        layers = [one_of(layer) for layer in (actor.fc1, actor.fc2, actor.mean)]
        self.policy = nn.Sequential(layers[0], nn.Tanh(), layers[1], nn.Tanh(), layers[2])
        self.log_std = nn.Parameter(actor.log_std[0, 0].detach().clone())
        self.value = one_mlp(agent.vf)
        self.parameters = [*self.policy.parameters(), self.log_std, *self.value.parameters()]
        self.adam = torch.optim.Adam(self.parameters, 0.01, eps=1e-5)
        self.ent_coef = ent_coef

    def update(self, batch):
        """Figures, and the norm of the gradient"""
        obs = batch.obs[0]
        normal = D.Normal(self.policy(obs), self.log_std.exp())
        log_prob = normal.log_prob(batch.action[0]).sum(-1)
        ratio = (log_prob - batch.log_prob[0, :, 0]).exp()
        advantage = normalized(batch.advantage)[0, :, 0]
        unclipped = -advantage * ratio
        clipped = -advantage * ratio.clamp(0.8, 1.2)
        policy_loss = torch.max(unclipped, clipped).mean()
        value_loss = 0.5 * nn.functional.mse_loss(self.value(obs), batch.returns[0])
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
    fields = {"surrogate": surrogate, "ent_coef": ent_coef, "max_grad_norm": 1.5}
    agent = make_agent(k=1, seeds=[0], **fields).double()
    agent.rate.fill_(0.01)  # a number that single precision would round
    ppo = PlainPPO(agent, ent_coef)
    batches = [make_batch(agent, seed=i) for i in range(5)]
    normal, _ = noise(agent, 32)
    norms = []
    fractions = []
    for i in range(25):
        batch = batches[i % 5]
        figures = agent.update(batch, normal)
        expected, norm = ppo.update(batch)
        norms.append(norm)
        fractions.append(expected["losses/clip_fraction"].item())
        for name, x in expected.items():
            ours = figures[name].item()
            torch.testing.assert_close(ours, x.item(), rtol=1e-7, atol=1e-9, msg=name)
    assert "losses/frequency" not in figures
    assert "losses/q" not in figures
    # Clipped and not, of either kind
    assert min(norms) < 1.5 < max(norms)
    assert max(fractions) > 0.1

    for layer, linear in zip(agent.vf[::2], ppo.value[::2], strict=True):
        same_layer(layer, linear)
    layers = (agent.actor.fc1, agent.actor.fc2, agent.actor.mean)
    for layer, linear in zip(layers, ppo.policy[::2], strict=True):
        same_layer(layer, linear)
    torch.testing.assert_close(agent.actor.log_std[0, 0], ppo.log_std, rtol=1e-6, atol=1e-9)


# The policy


@BOTH
def test_draw_says_the_density_of_what_it_draws(surrogate):
    agent = perturb(make_agent(surrogate=surrogate).double())
    batch = make_batch(agent, 50)
    mixture = torch_mixture(agent, batch.obs)
    torch.testing.assert_close(batch.log_prob, density_of(mixture, batch, surrogate))

    normal, _ = noise(agent, 50)
    mean = mixture.component_distribution.mean
    proposed = mean + agent.actor.log_std.exp().unsqueeze(1) * normal
    primitive = batch.primitive.long().unsqueeze(-1)
    assert torch.equal(batch.action, proposed.take_along_dim(primitive, 2).squeeze(2))
    assert len(primitive.unique()) == 3


def test_draw_sees_normalized_observations_and_remembers_them():
    agent = make_agent(seeds=[0])
    seen = []
    for _ in range(3):
        obs = 5 + 2 * torch.randn(1, 40, 4)
        seen.append(obs)
        drawn = agent.draw(obs, *noise(agent, 40))
        every = torch.cat(seen, 1)
        mean = every.mean(1, keepdim=True)
        std = every.std(1, correction=0, keepdim=True)
        torch.testing.assert_close(drawn.obs, (obs - mean) / std, rtol=1e-4, atol=1e-4)


def test_who_has_seen_nothing_acts():
    """As `pmoe eval` lets the checkpoint of step 0 do."""
    action = make_agent().actor.act(torch.randn(2, 5, 4))
    assert action.isfinite().all()


def test_act_uses_the_statistics_and_routes_as_asked():
    actor = perturb(make_agent(seeds=[0])).actor
    obs = 3 + 4 * torch.randn(1, 200, 4)
    actor.router.bias.data.zero_()
    actor.statistics.update(3 + 4 * torch.randn(1, 1000, 4))
    before = actor.statistics.sums.clone()
    mean, _, log_w = actor(actor.statistics.normalize(obs))
    mean = mean.clamp(-1, 1)  # in units of the action's bounds
    for k in range(3):
        alone = actor.act(obs, lambda log_w, k=k: torch.full_like(log_w[..., :1], k, dtype=int))
        assert torch.equal(alone, mean[:, :, k])
    best = log_w[0].argmax(-1)
    states = torch.arange(200)
    assert torch.equal(actor.act(obs)[0], mean[0, states, best])
    assert len(best.unique()) > 1
    assert torch.equal(actor.statistics.sums, before)


def test_act_stays_within_the_bounds():
    actor = make_agent(k=1).actor
    actor.mean.bias.data[:] = torch.tensor([3.0, -0.25])
    actor.mean.weight.data.zero_()
    action = actor.act(torch.randn(2, 5, 4))
    assert torch.equal(action, torch.tensor([1.0, -0.25]).expand(2, 5, 2))


def test_entropy_is_that_of_primitive_and_action_together():
    agent = perturb(make_agent().double())
    batch = make_batch(agent)
    mixture = torch_mixture(agent, batch.obs)
    router = mixture.mixture_distribution
    of_primitives = mixture.component_distribution.entropy()
    expected = router.entropy() + (router.probs * of_primitives).sum(-1)
    normal, _ = noise(agent, 32)
    figures = agent.update(batch, normal)
    torch.testing.assert_close(figures["losses/entropy"], expected.mean(1))


@pytest.mark.parametrize("fan_in, fan_out", [(4, 64), (64, 4), (64, 64)])
def test_linear_starts_orthogonal_and_each_seed_alone(fan_in, fan_out):
    layer = Linear(fan_in, fan_out, 0.5, [generator(5), generator(6)])
    alone = Linear(fan_in, fan_out, 0.5, [generator(6)])
    assert torch.equal(layer.weight[1], alone.weight[0])
    assert not layer.bias.any()
    for weight in layer.weight:
        narrow = weight if fan_in <= fan_out else weight.T
        expected = 0.25 * torch.eye(len(narrow))
        torch.testing.assert_close(narrow @ narrow.T, expected, rtol=0, atol=1e-5)


def test_gains_are_those_of_ppo():
    agent = make_agent()
    actor = agent.actor
    gains = []
    for layer in (actor.fc1, actor.fc2, actor.mean, actor.router, *agent.vf[::2], *agent.qf[::2]):
        singular_values = torch.linalg.svdvals(layer.weight)[0]
        assert singular_values.max() - singular_values.min() < 1e-4
        gains.append(singular_values.mean().item())
    root = 2**0.5
    assert gains == pytest.approx([root, root, 0.01, 0.01, root, root, 1, root, root, 1], rel=1e-4)
    assert not actor.log_std.any()


# Losses and what they reach


class Step(NamedTuple):
    """What an Adam was given in an update"""

    loss: float  # summed over the seeds
    gradients: dict[str, torch.Tensor]  # by the parameters' names


def steps_of(agent, batch, normal) -> tuple[Step, Step]:
    """What Q's Adam and the policy's are given in an update, which changes nothing here"""
    names = {id(parameter): name for name, parameter in agent.named_parameters()}
    steps = {}

    def look(adam, loss, rate):
        gradients = torch.autograd.grad(loss.sum(), adam.learnt, retain_graph=True)
        named = {names[id(parameter)]: x for parameter, x in zip(adam.learnt, gradients)}
        steps[adam] = Step(loss.sum().item(), named)

    with patch.object(pmoe_ppo.Adam, "step", look):
        agent.update(batch, normal)
    assert set(steps) == {agent.qf_adam, agent.policy_adam}
    return steps[agent.qf_adam], steps[agent.policy_adam]


def only(monkeypatch, kept):
    """Leaves of the policy's losses the surrogate or the frequency loss alone."""
    for name in {"surrogate_loss", "frequency_loss"} - {kept}:
        original = getattr(pmoe_ppo, name)
        monkeypatch.setattr(pmoe_ppo, name, lambda *args, original=original: 0 * original(*args))


@BOTH
def test_before_the_first_update_the_ratio_is_one_and_the_gradient_that_of_the_policy(monkeypatch, surrogate):
    only(monkeypatch, "surrogate_loss")
    agent = perturb(make_agent(surrogate=surrogate, vf_coef=0.0).double())
    batch = make_batch(agent)
    normal, _ = noise(agent, 32)
    _, step = steps_of(agent, batch, normal)

    log_prob = density_of(torch_mixture(agent, batch.obs), batch, surrogate)
    loss = -(normalized(batch.advantage) * log_prob).mean((1, 2))
    parameters = dict(agent.actor.named_parameters())
    learnt = list(parameters.values())
    expected = torch.autograd.grad(loss.sum(), learnt, allow_unused=True, materialize_grads=True)
    for name, x in zip(parameters, expected):
        ours = step.gradients[f"actor.{name}"]
        torch.testing.assert_close(ours, x, rtol=1e-6, atol=1e-9, msg=name)

    figures = agent.update(batch, normal)
    for name in ("losses/policy", "losses/approx_kl", "losses/clip_fraction"):
        torch.testing.assert_close(figures[name].tolist(), [0.0, 0.0], rtol=0, atol=1e-12)


def move(parameters, directions, by):
    with torch.no_grad():
        for parameter, direction in zip(parameters, directions):
            parameter += by * direction


@BOTH
@pytest.mark.parametrize("detach_router", [True, False])
def test_gradient_of_the_surrogate_is_that_of_finite_differences(monkeypatch, surrogate, detach_router):
    only(monkeypatch, "surrogate_loss")
    fields = {"surrogate": surrogate, "vf_coef": 0.0, "ent_coef": 0.1, "detach_router": detach_router}
    agent = perturb(make_agent(**fields).double())
    batch = make_batch(agent)
    normal, _ = noise(agent, 32)
    perturb(agent, by=0.03)
    _, step = steps_of(agent, batch, normal)

    moved = {}
    for name, parameter in agent.named_parameters():
        # What moves the trunk moves a detached router too, which gradients do not say.
        in_trunk = name.startswith(("actor.fc1.", "actor.fc2."))
        if name in step.gradients and not (detach_router and in_trunk):
            moved[name] = parameter
    parameters = list(moved.values())
    h = 1e-6
    for i in range(4):
        g = generator(i)
        directions = [torch.randn(x.shape, generator=g, dtype=x.dtype) for x in parameters]
        move(parameters, directions, h)
        _, above = steps_of(agent, batch, normal)
        move(parameters, directions, -2 * h)
        _, below = steps_of(agent, batch, normal)
        move(parameters, directions, h)
        slope = 0.0
        for name, direction in zip(moved, directions):
            slope += (step.gradients[name] * direction).sum().item()
        difference = (above.loss - below.loss) / (2 * h)
        assert difference == pytest.approx(slope, rel=1e-5, abs=1e-6)


def part_of(name):
    """fc1, of actor.fc1.weight"""
    _, part, *_ = name.split(".")
    return part


def reached(step):
    """The parts of the actor that a gradient moves"""
    parts = set()
    for name, gradient in step.gradients.items():
        if name.startswith("actor.") and gradient.any():
            parts.add(part_of(name))
    return parts


@BOTH
@pytest.mark.parametrize("detach_router", [True, False])
def test_which_parameters_each_loss_reaches(monkeypatch, surrogate, detach_router):
    agent = perturb(make_agent(surrogate=surrogate, detach_router=detach_router))
    batch = make_batch(agent)
    normal, _ = noise(agent, 32)
    of_q, of_policy = steps_of(agent, batch, normal)
    for name, gradient in of_q.gradients.items():
        assert name.startswith("qf.")
        assert gradient.any()
    for name in of_policy.gradients:
        assert name.startswith(("actor.", "vf."))
    assert of_policy.gradients["vf.0.weight"].any()

    with monkeypatch.context() as only_one:
        only(only_one, "surrogate_loss")
        _, step = steps_of(agent, batch, normal)
        of_mixture = {"router"} if surrogate == "mixture" else set()
        assert reached(step) == {"fc1", "fc2", "mean", "log_std"} | of_mixture
    with monkeypatch.context() as only_one:
        only(only_one, "frequency_loss")
        _, step = steps_of(agent, batch, normal)
        trunk = set() if detach_router else {"fc1", "fc2"}
        assert reached(step) == {"router"} | trunk


@BOTH
def test_who_did_not_act_learns_from_the_surrogate_of_the_mixture_alone(surrogate):
    agent = perturb(make_agent(surrogate=surrogate))
    batch = make_batch(agent)
    primitive_1 = torch.ones_like(batch.primitive)
    batch = batch._replace(primitive=primitive_1)
    normal, _ = noise(agent, 32)
    _, step = steps_of(agent, batch, normal)
    of_means = step.gradients["actor.mean.weight"].unflatten(-1, (3, 2)).abs().sum((0, 1, 3))
    of_stds = step.gradients["actor.log_std"].abs().sum((0, 2))
    others = surrogate == "mixture"
    assert (of_means > 0).tolist() == [others, True, others]
    assert (of_stds > 0).tolist() == [others, True, others]


def test_the_best_primitive_is_that_of_the_largest_q_of_its_fresh_action(monkeypatch):
    agent = perturb(make_agent())
    frequency_loss = pmoe_ppo.frequency_loss
    seen = []

    def look(log_w, best):
        seen.append(best)
        return frequency_loss(log_w, best)

    monkeypatch.setattr(pmoe_ppo, "frequency_loss", look)
    batch = make_batch(agent)
    normal, _ = noise(agent, 32, seed=7)
    steps_of(agent, batch, normal)
    (best,) = seen
    mean, log_std, _ = agent.actor(batch.obs)
    for s, b in np.ndindex(2, 32):
        actions = mean[s, b] + log_std[s, 0].exp() * normal[s, b]  # (K, A)
        obs = batch.obs[s, b].expand(3, -1)
        pairs = torch.cat([obs, actions], -1)
        q = agent.qf(pairs.expand(2, -1, -1))[s, :, 0]
        assert best[s, b].item() == q.argmax().item()
    assert len(best.unique()) == 3


@pytest.mark.parametrize("winner", [0, 1, 2])
def test_the_router_moves_to_the_primitive_that_q_likes(monkeypatch, winner):
    only(monkeypatch, "frequency_loss")
    agent = make_agent(vf_coef=0.0, learning_rate=0.05)
    with torch.no_grad():
        means = agent.actor.mean.bias.unflatten(-1, (3, 2))
        means[..., winner, :] += 9

    def likes_large_actions(x):
        unused = sum(parameter.sum() for parameter in agent.qf.parameters())
        return x[..., 4:].sum(-1, keepdim=True) + 0 * unused

    agent.qf.forward = likes_large_actions
    normal, _ = noise(agent, 32)
    for i in range(100):
        figures = agent.update(make_batch(agent, seed=i), normal)
    assert figures[f"routing/usage_{winner}"].min() > 0.9


def test_q_is_regressed_on_the_return_of_the_action_taken():
    agent = perturb(make_agent())
    batch = make_batch(agent)
    q = agent.qf(torch.cat([batch.obs, batch.action], -1))
    loss = 0.5 * (q - batch.returns).square().mean((1, 2))
    expected = torch.autograd.grad(loss.sum(), list(agent.qf.parameters()))
    # The old density and the advantage have no say.
    batch = batch._replace(log_prob=batch.log_prob + 1, advantage=batch.advantage + 1)
    normal, _ = noise(agent, 32)
    step, _ = steps_of(agent, batch, normal)
    for (name, ours), x in zip(step.gradients.items(), expected, strict=True):
        torch.testing.assert_close(ours, x, msg=name)


# Adam, and a seed that waits


def torch_steps(adam, parameters, gradients, s) -> None:
    """Seed s's step with torch's own clipping and optimiser"""
    for parameter, gradient in zip(parameters, gradients):
        parameter.grad = gradient[s].clone()
    nn.utils.clip_grad_norm_(parameters, 0.5)
    adam.step()


@pytest.mark.parametrize("part", ["policy_adam", "qf_adam"])
def test_each_seed_has_its_own_adam_and_gradient_norm(part):
    agent = make_agent(seeds=range(3), learning_rate=3e-3)
    ours = getattr(agent, part)
    copies = []
    adams = []
    for s in range(3):
        copies.append([x.detach()[s].clone().requires_grad_() for x in ours.learnt])
        adams.append(torch.optim.Adam(copies[s], 3e-3, eps=1e-5))
    g = generator(0)
    for _ in range(30):
        sizes = 10 ** torch.randint(-6, 3, (3, 1, 1), generator=g)  # of the seeds' gradients
        gradients = [sizes * torch.randn(x.shape, generator=g) for x in ours.learnt]
        products = [(x * gradient).sum((1, 2)) for x, gradient in zip(ours.learnt, gradients)]
        ours.step(torch.stack(products).sum(0), agent.rate)
        for s in range(3):
            torch_steps(adams[s], copies[s], gradients, s)
    for i, parameter in enumerate(ours.learnt):
        mean = getattr(ours, f"mean{i}")
        square = getattr(ours, f"square{i}")
        for s in range(3):
            theirs = copies[s][i]
            state = adams[s].state[theirs]
            torch.testing.assert_close(parameter[s].detach(), theirs.detach(), rtol=1e-4, atol=1e-6)
            torch.testing.assert_close(mean[s], state["exp_avg"], rtol=1e-4, atol=1e-9)
            torch.testing.assert_close(square[s], state["exp_avg_sq"], rtol=1e-4, atol=1e-15)


def test_each_seed_has_its_own_learning_rate():
    agent = make_agent(seeds=range(3))
    agent.rate[:, 0, 0] = torch.tensor([1e-3, 0.0, 1e-2])
    before = learnt(agent, 1)
    weight = agent.vf[4].weight
    start = weight.detach().clone()
    agent.policy_adam.step(sum(x.sum((1, 2)) for x in agent.policy_adam.learnt), agent.rate)
    steps = (start - weight).detach().mean((1, 2))
    torch.testing.assert_close(steps, torch.tensor([1e-3, 0.0, 1e-2]), rtol=1e-2, atol=0)
    same_learnt(learnt(agent, 1), before)


def learnt(agent, s):
    """All that seed s learns and remembers of learning"""
    parts = ("actor.", "vf.", "qf.", "policy_adam.", "qf_adam.")
    state = {}
    for name, x in agent.state_dict().items():
        if name.startswith(parts):
            state[name] = x[s].clone()
    assert "policy_adam.mean0" in state
    return state


def same_learnt(now, before) -> None:
    for name, x in before.items():
        assert torch.equal(now[name], x), name


@pytest.mark.parametrize("far", [3, 100])  # at 100 its ratios are infinite in single precision
@pytest.mark.parametrize("begun", [True, False], ids=["later", "at its first minibatch"])
def test_a_seed_beyond_target_kl_awaits_the_next_rollout(begun, far):
    agent = make_agent(seeds=range(3), target_kl=0.01)
    alone = make_agent(seeds=range(3), target_kl=0.01)
    good = make_batch(agent)
    normal, _ = noise(agent, 32)
    alone.actor.statistics.load_state_dict(agent.actor.statistics.state_dict())
    log_prob = good.log_prob.clone()
    log_prob[1] -= far  # seed 1 finds its own actions unlikely
    bad = good._replace(log_prob=log_prob)
    if begun:
        agent.update(good, normal)
        alone.update(good, normal)

    waiting = learnt(agent, 1)
    other = learnt(agent, 0)
    # It does not learn from the good minibatch of the same rollout either.
    for batch in (bad, good):
        agent.update(batch, normal)
        same_learnt(learnt(agent, 1), waiting)
    assert not torch.equal(learnt(agent, 0)["vf.0.weight"], other["vf.0.weight"])

    agent.rate.fill_(3e-4)  # as `train` does
    agent.update(good, normal)
    alone.update(good, normal)
    now = learnt(agent, 1)
    # As if the bad minibatch had never been
    for name, x in learnt(alone, 1).items():
        torch.testing.assert_close(now[name], x, msg=name)


def test_without_target_kl_nothing_stops():
    agent = make_agent()
    batch = make_batch(agent)
    before = learnt(agent, 0)
    normal, _ = noise(agent, 32)
    agent.update(batch._replace(log_prob=batch.log_prob - 3), normal)
    assert not torch.equal(learnt(agent, 0)["vf.0.weight"], before["vf.0.weight"])


def test_learning_rate_zero_learns_nothing(tmp_path):
    (path,) = train("ppo", tmp_path, learning_rate=0.0, total_timesteps=100)
    state = checkpoint(path)["learnt"]
    before = make_agent(k=2, seeds=[1], obs_size=3, action_size=1).state_dict()
    for name in ("actor.mean.weight", "vf.0.weight", "qf.4.weight"):
        assert torch.equal(state[name][0], before[name][0]), name
