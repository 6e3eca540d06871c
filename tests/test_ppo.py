"""PPO's own: advantages, K = 1 against a PPO written here, which loss reaches what, rollouts, running statistics."""

from copy import deepcopy
from types import SimpleNamespace
from unittest.mock import patch

import numpy as np
import pytest
import torch
from common import SHORT, checkpoint, rows_of, train
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import distributions as D
from torch import nn

from pmoe import pmoe_ppo
from pmoe.pmoe_ppo import Agent, Args, Linear, Statistics, gae

BOTH = pytest.mark.parametrize("surrogate", ["mixture", "primitive"])


def make_agent(k=3, seeds=2, obs=4, actions=2, **fields):
    generators = [torch.Generator().manual_seed(seed) for seed in range(seeds)]
    return Agent(Args(**(SHORT["ppo"] | {"k": k} | fields)), obs, actions, generators)


def noise(agent, n, seed=0):
    """For n states of each of its seeds: normal (S, n, K, A) and uniform (S, n, 1)"""
    shape, dtype = agent.actor.log_std.shape, agent.actor.log_std.dtype
    g = torch.Generator().manual_seed(seed)
    normal = torch.randn(shape[0], n, *shape[1:], generator=g, dtype=dtype)
    return normal, torch.rand(shape[0], n, 1, generator=g, dtype=dtype)


def batch(agent, n=32, seed=0):
    """A minibatch: what the agent draws and says of random observations, with random advantages and returns"""
    g, like = torch.Generator().manual_seed(seed), agent.actor.log_std
    obs = torch.randn(len(like), n, agent.sizes[0], generator=g, dtype=like.dtype)
    drawn = agent.draw(obs, *noise(agent, n, seed))
    return torch.cat([drawn, 3 * torch.randn(len(like), n, 2, generator=g, dtype=like.dtype)], -1)


def split(agent, rows):
    """obs, action, chosen, log_prob, advantage, returns"""
    return rows.split((*agent.sizes, 1, 1), -1)


def perturb(agent, by=0.3):
    """Away from where it began, where router and means are next to 0"""
    g = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for p in agent.learning:
            p += by * torch.randn(p.shape, generator=g, dtype=p.dtype)
    return agent


def torch_mixture(agent, obs):
    """The same policy built from torch.distributions, of normalised observations"""
    mean, log_std, log_w = agent.actor(obs)
    gaussians = D.Independent(D.Normal(mean, log_std.exp().expand_as(mean)), 1)
    return D.MixtureSameFamily(D.Categorical(logits=log_w), gaussians)


def test_advantages_by_hand():
    """gamma = lambda = 1/2. The first environment terminates at step 1 and meets its time limit at step 2."""
    reward, next_value = torch.tensor([1.0, 2, 3, 4]), torch.tensor([2.0, 4, 6, 8])
    ends = torch.tensor([[0.0, 1, 0, 0], [0, 0, 0, 0]]), torch.tensor([[0.0, 1, 1, 0], [0, 0, 0, 0]])
    terminated, done = (x.T[None] for x in ends)
    reward, next_value = (x[:, None].repeat(1, 2)[None] for x in (reward, next_value))
    advantage = gae(reward, torch.ones(1, 4, 2), next_value, terminated, done, 0.5, 0.5)
    assert advantage[0, :, 0].tolist() == [0.75, 1, 5, 7]
    assert advantage[0, :, 1].tolist() == [1.140625, 2.5625, 4.25, 7]


@settings(deadline=None, max_examples=50)
@given(steps=st.integers(1, 12), gamma=st.floats(0, 1), gae_lambda=st.floats(0, 1), seed=st.integers(0, 10**6))
def test_advantages_are_sums_over_what_follows(steps, gamma, gae_lambda, seed):
    rng, shape = np.random.default_rng(seed), (2, steps, 3)
    reward, value, next_value = rng.normal(size=(3, *shape))
    terminated, truncated = rng.random((2, *shape)) < 0.2
    done = terminated | truncated
    data = (torch.tensor(x, dtype=torch.float64) for x in (reward, value, next_value, terminated, done))
    advantage = gae(*data, gamma, gae_lambda)
    for s, t, e in np.ndindex(shape):
        expected, weight = 0.0, 1.0
        for i in range(t, steps):
            ends = done[s, i, e] or i == steps - 1
            bootstrap = 0 if terminated[s, i, e] else gamma * (next_value[s, i, e] if ends else value[s, i + 1, e])
            expected += weight * (reward[s, i, e] + bootstrap - value[s, i, e])
            weight *= gamma * gae_lambda
            if done[s, i, e]:
                break
        assert advantage[s, t, e].item() == pytest.approx(expected, abs=1e-9)


def test_returns_telescope_though_the_statistics_move():
    """With lambda = 1 the return is that of the rewards and of the last value alone, whatever is thought between."""
    agent = make_agent(seeds=1, gae_lambda=1.0, num_envs=1, gamma=0.9)
    obs, steps = torch.randn(1, 21, 1, 4) * torch.linspace(1, 30, 21)[None, :, None, None], []
    for t in range(20):
        drawn = agent.draw(obs[:, t], torch.randn(1, 1, 3, 2), torch.rand(1, 1, 3))
        steps.append(torch.cat([drawn, obs[:, t + 1], torch.ones(1, 1, 1), torch.zeros(1, 1, 2)], -1))
    returns = agent.rollout(torch.stack(steps, 1))[0][0, :, -1]
    reward = agent.returns.normalize(torch.ones(1, 1, 1), centered=False).item()
    expected = agent.vf(agent.actor.statistics.normalize(obs[:, 20])).item()
    for value in returns.flip(0):
        expected = reward + 0.9 * expected
        assert value.item() == pytest.approx(expected, rel=1e-4)


class PlainPPO:
    """Proximal policy optimisation with torch's own layers, distributions, optimiser and gradient clipping."""

    def __init__(self, agent, ent_coef):
        fc1, fc2, mean = (self.copy(x) for x in (agent.actor.fc1, agent.actor.fc2, agent.actor.mean))
        self.policy = nn.Sequential(fc1, nn.Tanh(), fc2, nn.Tanh(), mean)
        self.log_std = nn.Parameter(agent.actor.log_std[0, 0].detach().clone())
        self.value = nn.Sequential(*(self.copy(x) if isinstance(x, Linear) else nn.Tanh() for x in agent.vf))
        self.parameters = [*self.policy.parameters(), self.log_std, *self.value.parameters()]
        self.adam, self.ent_coef = torch.optim.Adam(self.parameters, 0.01, eps=1e-5), ent_coef

    @staticmethod
    def copy(layer):
        linear = nn.Linear(*layer.weight.shape[1:], dtype=layer.weight.dtype)
        linear.load_state_dict({"weight": layer.weight[0].T.clone(), "bias": layer.bias[0, 0].clone()})
        return linear

    def update(self, obs, action, old_log_prob, advantage, returns):
        normal = D.Normal(self.policy(obs), self.log_std.exp())
        ratio = (normal.log_prob(action).sum(-1) - old_log_prob).exp()
        advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
        policy_loss = torch.max(-advantage * ratio, -advantage * ratio.clamp(0.8, 1.2)).mean()
        value_loss = 0.5 * nn.functional.mse_loss(self.value(obs)[:, 0], returns)
        entropy = normal.entropy().sum(-1).mean()
        self.adam.zero_grad()
        (policy_loss + 0.5 * value_loss - self.ent_coef * entropy).backward()
        norm = nn.utils.clip_grad_norm_(self.parameters, 1.5)
        self.adam.step()
        clipped = ((ratio - 1).abs() > 0.2).double().mean()
        return {"losses/policy": policy_loss, "losses/value": value_loss, "losses/entropy": entropy}, clipped, norm


@BOTH
@pytest.mark.parametrize("ent_coef", [0.0, 0.05])
def test_one_primitive_is_ppo(surrogate, ent_coef):
    agent = make_agent(k=1, seeds=1, surrogate=surrogate, ent_coef=ent_coef, max_grad_norm=1.5).double()
    agent.rate.fill_(0.01)  # which was rounded to single precision
    ppo, figures = PlainPPO(agent, ent_coef), {}
    batches, norms, fractions = [batch(agent, seed=i) for i in range(5)], [], []
    for i in range(25):  # five epochs
        rows = batches[i % 5]
        figures = agent.update(rows, noise(agent, 32)[0])
        obs, action, _, *rest = (x[0] for x in split(agent, rows))
        expected, clipped, norm = ppo.update(obs, action, *(x[:, 0] for x in rest))
        norms, fractions = [*norms, norm.item()], [*fractions, clipped.item()]
        for name, x in (expected | {"losses/clip_fraction": clipped}).items():
            torch.testing.assert_close(figures[name].item(), x.item(), rtol=1e-7, atol=1e-9, msg=name)
    assert min(norms) < 1.5 < max(norms) and max(fractions) > 0.1  # clipped and not, of either kind
    for i in (0, 2, 4):
        torch.testing.assert_close(agent.vf[i].weight[0].T, ppo.value[i].weight, rtol=1e-6, atol=1e-9)
    for layer, theirs in zip((agent.actor.fc1, agent.actor.fc2, agent.actor.mean), ppo.policy[::2], strict=True):
        torch.testing.assert_close(layer.weight[0].T, theirs.weight, rtol=1e-6, atol=1e-9)
        torch.testing.assert_close(layer.bias[0, 0], theirs.bias, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(agent.actor.log_std[0, 0], ppo.log_std, rtol=1e-6, atol=1e-9)
    assert "losses/frequency" not in figures and "losses/q" not in figures


@BOTH
def test_draw_says_the_density_of_what_it_draws(surrogate):
    agent = perturb(make_agent(surrogate=surrogate).double())
    obs, action, chosen, log_prob, *_ = split(agent, batch(agent, 50))
    mixture = torch_mixture(agent, obs)
    expected = mixture.component_distribution.log_prob(action.unsqueeze(2)).gather(-1, chosen.long())
    if surrogate == "mixture":
        expected = mixture.log_prob(action).unsqueeze(-1)
    torch.testing.assert_close(log_prob, expected)
    normal, mean = noise(agent, 50)[0], mixture.component_distribution.mean
    proposed = mean + agent.actor.log_std.exp().unsqueeze(1) * normal
    assert torch.equal(action, proposed.take_along_dim(chosen.long().unsqueeze(-1), 2).squeeze(2))
    assert len(chosen.unique()) == 3


def test_draw_sees_normalized_observations_and_remembers_them():
    agent, seen = make_agent(seeds=1), []
    for i in range(3):
        seen.append(5 + 2 * torch.randn(1, 40, 4))
        obs = agent.draw(seen[-1], *noise(agent, 40))[..., :4]
        every = torch.cat(seen, 1)
        expected = (seen[-1] - every.mean(1, True)) / every.std(1, correction=0, keepdim=True)
        torch.testing.assert_close(obs, expected, rtol=1e-4, atol=1e-4)


def steps_of(agent, rows, normal):
    """(loss, {parameter: gradient}) of each call of `minimize` in an update, which changes nothing here"""
    names, steps = {id(p): name for name, p in agent.named_parameters()}, []

    def look(loss, parameters):
        gradients = torch.autograd.grad(loss.sum(), parameters, retain_graph=True)
        steps.append((loss.sum().item(), {names[id(p)]: x for p, x in zip(parameters, gradients)}))

    with patch.object(agent, "minimize", look):
        agent.update(rows, normal)
    return steps


def only(monkeypatch, kept):
    """Leaves of the policy's losses the surrogate or the frequency loss alone."""
    for name in {"surrogate_loss", "frequency_loss"} - {kept}:
        original = getattr(pmoe_ppo, name)
        monkeypatch.setattr(pmoe_ppo, name, lambda *args, original=original: 0 * original(*args))


@BOTH
def test_before_the_first_update_the_ratio_is_one_and_the_gradient_that_of_the_policy(monkeypatch, surrogate):
    only(monkeypatch, "surrogate_loss")
    agent = perturb(make_agent(surrogate=surrogate, vf_coef=0.0).double())
    rows, (normal, _) = batch(agent), noise(agent, 32)
    _, (_, gradients) = steps_of(agent, rows, normal)
    obs, action, chosen, _, advantage, _ = split(agent, rows)
    advantage = (advantage - advantage.mean(1, True)) / advantage.std(1, keepdim=True)
    mixture = torch_mixture(agent, obs)
    log_prob = mixture.log_prob(action).unsqueeze(-1)
    if surrogate == "primitive":
        log_prob = mixture.component_distribution.log_prob(action.unsqueeze(2)).gather(-1, chosen.long())
    parameters = dict(agent.actor.named_parameters())
    loss = -(advantage * log_prob).mean((1, 2)).sum()
    expected = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True, materialize_grads=True)
    for name, x in zip(parameters, expected):
        torch.testing.assert_close(gradients[f"actor.{name}"], x, rtol=1e-6, atol=1e-9, msg=name)
    figures = agent.update(rows, normal)
    for name in ("losses/policy", "losses/approx_kl", "losses/clip_fraction"):
        torch.testing.assert_close(figures[name].tolist(), [0.0, 0.0], rtol=0, atol=1e-12)


@BOTH
@pytest.mark.parametrize("detach_router", [True, False])
def test_gradient_of_the_surrogate_is_that_of_finite_differences(monkeypatch, surrogate, detach_router):
    only(monkeypatch, "surrogate_loss")
    agent = make_agent(surrogate=surrogate, vf_coef=0.0, ent_coef=0.1, detach_router=detach_router).double()
    rows, (normal, _) = batch(perturb(agent)), noise(agent, 32)
    perturb(agent, by=0.03)
    _, (_, gradients) = steps_of(agent, rows, normal)
    trunk = ("actor.fc1.", "actor.fc2.")  # what moves it moves a detached router too, which gradients do not say
    free = [x for x in agent.named_parameters() if x[0] in gradients and not (detach_router and x[0].startswith(trunk))]
    for i in range(4):
        g, step = torch.Generator().manual_seed(i), 1e-6
        directions = [torch.randn(p.shape, generator=g, dtype=p.dtype) for _, p in free]
        losses = []
        for sign in (1, -2):
            with torch.no_grad():
                for (_, p), x in zip(free, directions):
                    p += sign * step * x
            losses.append(steps_of(agent, rows, normal)[1][0])
        with torch.no_grad():
            for (_, p), x in zip(free, directions):
                p += step * x
        slope = sum((gradients[name] * x).sum().item() for (name, _), x in zip(free, directions))
        assert (losses[0] - losses[1]) / (2 * step) == pytest.approx(slope, rel=1e-5, abs=1e-6)


def reached(gradients):
    """The parts of the actor that a gradient moves"""
    return {name.split(".")[1] for name, x in gradients.items() if name.startswith("actor.") and x.any()}


@BOTH
@pytest.mark.parametrize("detach_router", [True, False])
def test_which_parameters_each_loss_reaches(monkeypatch, surrogate, detach_router):
    agent = perturb(make_agent(surrogate=surrogate, detach_router=detach_router))
    rows, (normal, _) = batch(agent), noise(agent, 32)
    (_, of_q), (_, of_all) = steps_of(agent, rows, normal)
    assert {name.split(".")[0] for name in of_q} == {"qf"} and all(x.any() for x in of_q.values())
    assert {name.split(".")[0] for name in of_all} == {"actor", "vf"} and of_all["vf.0.weight"].any()
    with monkeypatch.context() as only_one:
        only(only_one, "surrogate_loss")
        psi = {"fc1", "fc2", "mean", "log_std"}
        assert reached(steps_of(agent, rows, normal)[1][1]) == (psi | {"router"} if surrogate == "mixture" else psi)
    with monkeypatch.context() as only_one:
        only(only_one, "frequency_loss")
        trunk = set() if detach_router else {"fc1", "fc2"}
        assert reached(steps_of(agent, rows, normal)[1][1]) == {"router"} | trunk


@BOTH
def test_who_did_not_act_learns_from_the_surrogate_of_the_mixture_alone(surrogate):
    agent = perturb(make_agent(surrogate=surrogate))
    rows = batch(agent)
    rows[..., 6] = 1  # primitive 1 acted
    gradients = steps_of(agent, rows, noise(agent, 32)[0])[1][1]
    means = gradients["actor.mean.weight"].unflatten(-1, (3, 2)).abs().sum((0, 1, 3))
    stds = gradients["actor.log_std"].abs().sum((0, 2))
    assert (means > 0).tolist() == (stds > 0).tolist() == [surrogate == "mixture", True, surrogate == "mixture"]


def test_the_best_primitive_is_that_of_the_largest_q_of_its_fresh_action(monkeypatch):
    agent, seen = perturb(make_agent()), []
    loss = pmoe_ppo.frequency_loss
    monkeypatch.setattr(pmoe_ppo, "frequency_loss", lambda log_w, best: seen.append(best) or loss(log_w, best))
    rows, (normal, _) = batch(agent), noise(agent, 32, seed=7)
    steps_of(agent, rows, normal)
    obs, (mean, log_std, _) = rows[..., :4], agent.actor(rows[..., :4])
    for s, b in np.ndindex(2, 32):
        actions = mean[s, b] + log_std[s, 0].exp() * normal[s, b]  # (K, A)
        q = agent.qf(torch.cat([obs[s, b].expand(3, -1), actions], -1).expand(2, -1, -1))[s, :, 0]
        assert seen[0][s, b].item() == q.argmax().item()
    assert len(seen) == 1 and len(seen[0].unique()) == 3


@pytest.mark.parametrize("winner", [0, 1, 2])
def test_the_router_moves_to_the_primitive_that_q_likes(monkeypatch, winner):
    only(monkeypatch, "frequency_loss")
    agent = make_agent(vf_coef=0.0, learning_rate=0.05)
    with torch.no_grad():
        agent.actor.mean.bias.unflatten(-1, (3, 2))[..., winner, :] += 9
    agent.qf.forward = lambda x: x[..., 4:].sum(-1, keepdim=True) + sum(p.sum() for p in agent.qf.parameters())
    for i in range(100):
        figures = agent.update(batch(agent, seed=i), noise(agent, 32)[0])
    assert figures[f"routing/usage_{winner}"].min() > 0.9


def test_q_is_regressed_on_the_return_of_the_action_taken():
    agent = perturb(make_agent())
    rows = batch(agent)
    obs, action, _, _, _, returns = split(agent, rows)
    loss = 0.5 * (agent.qf(torch.cat([obs, action], -1)) - returns).square().mean((1, 2))
    expected = torch.autograd.grad(loss.sum(), list(agent.qf.parameters()))
    rows[..., 7:9] += 1  # the old density and the advantage have no say
    gradients = steps_of(agent, rows, noise(agent, 32)[0])[0][1]
    for name, x in zip(gradients, expected, strict=True):
        torch.testing.assert_close(gradients[name], x, msg=name)


@pytest.mark.parametrize("part", ["policy and value", "q"])
def test_each_seed_has_its_own_adam_and_gradient_norm(part):
    agent, g = make_agent(seeds=3, learning_rate=3e-3), torch.Generator().manual_seed(0)
    ours = list(agent.qf.parameters()) if part == "q" else [*agent.actor.parameters(), *agent.vf.parameters()]
    copies = [[p.detach()[s].clone().requires_grad_() for p in ours] for s in range(3)]
    adams = [torch.optim.Adam(copy, 3e-3, eps=1e-5) for copy in copies]
    for _ in range(30):
        sizes = 10 ** torch.randint(-6, 3, (3,), generator=g)  # of the seeds' gradients
        gradients = [torch.randn(p.shape, generator=g) * sizes.view(3, *[1] * (p.dim() - 1)) for p in ours]
        agent.minimize(sum((p * x).sum() for p, x in zip(ours, gradients)), ours)
        for s, (copy, adam) in enumerate(zip(copies, adams)):
            for p, x in zip(copy, gradients):
                p.grad = x[s].clone()
            nn.utils.clip_grad_norm_(copy, 0.5)
            adam.step()
    moments = dict(zip(map(id, agent.learning), agent.adam))
    for i, p in enumerate(ours):
        for s, adam in enumerate(adams):
            torch.testing.assert_close(p[s].detach(), copies[s][i].detach(), rtol=1e-4, atol=1e-6)
            state, (m, v, *_) = adam.state[copies[s][i]], moments[id(p)]
            torch.testing.assert_close(m[s].detach(), state["exp_avg"], rtol=1e-4, atol=1e-9)
            torch.testing.assert_close(v[s].detach(), state["exp_avg_sq"], rtol=1e-4, atol=1e-15)


def learnt(agent, s):
    """All that seed s learns and remembers of learning"""
    state = {name: x[s].clone() for name, x in agent.state_dict().items()}
    return {name: x for name, x in state.items() if name.split(".")[0] in ("actor", "vf", "qf", "adam")}


@pytest.mark.parametrize("far", [3, 100])  # at 100 its ratios are infinite in single precision
@pytest.mark.parametrize("begun", [True, False], ids=["later", "at its first minibatch"])
def test_a_seed_beyond_target_kl_awaits_the_next_rollout(begun, far):
    agent, alone = (make_agent(seeds=n, target_kl=0.01) for n in (3, 3))
    good, (normal, _) = batch(agent), noise(agent, 32)
    alone.actor.statistics.load_state_dict(agent.actor.statistics.state_dict())
    bad = good.clone()
    bad[1, :, 7] -= far  # seed 1 finds its own actions unlikely
    for x in (agent, alone) if begun else ():
        x.update(good, normal)
    before = learnt(agent, 1), learnt(agent, 0)
    for rows in (bad, good):  # it does not learn from the good minibatch of the same rollout either
        agent.update(rows, normal)
        assert all(torch.equal(x, before[0][name]) for name, x in learnt(agent, 1).items())
    assert not torch.equal(learnt(agent, 0)["vf.0.weight"], before[1]["vf.0.weight"])
    agent.rate.fill_(3e-4)  # as `train` does
    for x in (agent, alone):
        x.update(good, normal)
    for name, x in learnt(alone, 1).items():  # as if the bad minibatch had never been
        torch.testing.assert_close(learnt(agent, 1)[name], x, msg=name)


def test_without_target_kl_nothing_stops():
    agent = make_agent()
    rows, before = batch(agent), learnt(agent, 0)["vf.0.weight"]
    rows[..., 7] -= 3
    agent.update(rows, noise(agent, 32)[0])
    assert not torch.equal(learnt(agent, 0)["vf.0.weight"], before)


def test_learning_rate_zero_learns_nothing(tmp_path):
    (path,) = train("ppo", tmp_path, learning_rate=0.0, total_timesteps=100)
    state, before = checkpoint(path)["learnt"], make_agent(k=2, seeds=2, obs=3, actions=1).state_dict()
    for name in ("actor.mean.weight", "vf.0.weight", "qf.4.weight"):
        assert torch.equal(state[name][0], before[name][1]), name  # as the generator of seed 1 made it


@pytest.fixture
def rollouts(monkeypatch):
    """Of the runs of a test: the agent as it then was, what went into `rollout` and came out, and each `update`"""
    rollout, update, seen = Agent.rollout, Agent.update, []

    def watch_rollout(agent, steps):
        rows, explained = rollout(agent, steps)
        seen.append(SimpleNamespace(agent=deepcopy(agent), steps=steps, rows=rows, explained=explained))
        seen[-1].rates, seen[-1].batches = [], []
        return rows, explained

    def watch_update(agent, rows, normal):
        seen[-1].rates.append(agent.rate.item())
        seen[-1].batches.append(rows[0])
        return update(agent, rows, normal)

    monkeypatch.setattr(Agent, "rollout", watch_rollout)
    monkeypatch.setattr(Agent, "update", watch_update)
    return seen


def test_every_transition_is_used_in_every_epoch(tmp_path, rollouts):
    train("ppo", tmp_path, update_epochs=3, total_timesteps=100)
    assert len(rollouts) == 2
    for rollout in rollouts:
        epochs = [torch.cat(rollout.batches[i : i + 2]) for i in (0, 2, 4)]
        assert len(rollout.batches) == 6 and not torch.equal(epochs[0], epochs[1])
        for rows in epochs:
            assert torch.equal(rows.unique(dim=0), rollout.rows[0].unique(dim=0)) and len(rows.unique(dim=0)) == 50


def test_the_last_rollout_is_shorter(tmp_path, rollouts):
    (path,) = train("ppo", tmp_path, num_envs=3, total_timesteps=399)
    assert [rollout.steps.shape[1:3] for rollout in rollouts] == [(50, 3), (50, 3), (33, 3)]
    assert [len(rollout.batches) for rollout in rollouts] == [12, 12, 7]  # two epochs by 25, what is left over is left
    assert checkpoint(path)["step"] == 399 and rows_of(path / "eval.csv")[-1]["step"] == "399"


def test_a_last_rollout_smaller_than_a_minibatch_is_not_learnt_from(tmp_path, rollouts):
    (path,) = train("ppo", tmp_path, update_epochs=1, total_timesteps=110)
    assert [len(rollout.batches) for rollout in rollouts] == [2, 2, 0] and checkpoint(path)["step"] == 110


@pytest.mark.parametrize("anneal_lr", [True, False])
def test_the_learning_rate_falls_if_asked_to(tmp_path, rollouts, anneal_lr):
    train("ppo", tmp_path, anneal_lr=anneal_lr, total_timesteps=180)
    for rollout, begun in zip(rollouts, (0, 50, 100, 150), strict=True):
        assert rollout.rates == pytest.approx([3e-4 * (1 - begun / 180 * anneal_lr)] * len(rollout.batches))


def test_after_target_kl_the_next_rollout_is_learnt_from_again(tmp_path, rollouts):
    train("ppo", tmp_path, target_kl=1e-4, learning_rate=0.01, update_epochs=4)
    assert len(rollouts) == 8
    for rollout in rollouts:
        assert rollout.rates[0] == pytest.approx(0.01) and rollout.rates[-1] == 0


@pytest.mark.parametrize("env_id, terminates", [("ToyTerminates-v0", 1), ("ToyTruncates-v0", 0)])
def test_rollouts_of_a_run(tmp_path, rollouts, env_id, terminates):
    """Rewards in standard deviations of all discounted returns so far; time limits bootstrap, terminations do not."""
    train("ppo", tmp_path, env_id=env_id, num_envs=2, num_steps=33, total_timesteps=132, gamma=0.9)
    moves, discounted, every = 0, np.zeros(2), []
    for rollout in rollouts:
        agent, (steps, rows) = rollout.agent, (x.double().numpy()[0] for x in (rollout.steps, rollout.rows))
        next_obs, reward, terminated, done = (steps[..., i] for i in (6, 8, 9, 10))
        count = (moves + np.arange(33)) % 5 + 1  # the observation; no reset among them
        assert (
            (next_obs.T == count).all() and (done.T == (count == 5)).all() and (terminated == done * terminates).all()
        )
        moves += 33
        for now, end in zip(reward, done):
            discounted = now + 0.9 * discounted
            every += [discounted]
            discounted = discounted * (1 - end)
        scaled = (reward / np.std(every)).clip(-10, 10)
        with torch.no_grad():
            seen = agent.actor.statistics.normalize(rollout.steps[..., 6:8].flatten(1, 2))
            value, next_value = (agent.vf(x)[0].view(33, 2).double().numpy() for x in (rollout.rows[..., :2], seen))
        next_value[:-1] = np.where(done[:-1], next_value[:-1], value[1:])  # statistics have moved since then
        delta = scaled + 0.9 * (1 - terminated) * next_value - value
        advantage, returns = rows[:, 6:].reshape(33, 2, 2).transpose(2, 0, 1)
        later = np.concatenate([advantage[1:], np.zeros((1, 2))])
        np.testing.assert_allclose(advantage, delta + 0.9 * 0.95 * (1 - done) * later, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(returns, advantage + value, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(rollout.explained, 1 - advantage.var() / returns.var(), rtol=1e-3)


@settings(deadline=None, max_examples=50)
@given(
    cuts=st.lists(st.integers(1, 59), max_size=6),
    offset=st.floats(-1000, 1000),
    spread=st.floats(0.1, 100),
    seed=st.integers(0, 10**6),
)
def test_statistics_are_those_of_all_that_was_seen(cuts, offset, spread, seed):
    """However it is cut into batches; per seed and dimension"""
    rng, generators = np.random.default_rng(seed), [torch.Generator()] * 2
    x = (offset + spread * rng.normal(size=(2, 60, 3)) * [[[1]], [[2]]]).astype(np.float32)
    statistics = Statistics(3, generators)
    for part in np.split(x, sorted(cuts), 1):
        statistics.update(torch.tensor(part))
    mean, std = (f(x.astype(float), 1, keepdims=True) for f in (np.mean, np.std))
    for centered in (True, False):
        expected = ((x - mean * centered) / std).clip(-10, 10)
        normalized = statistics.normalize(torch.tensor(x), centered)
        np.testing.assert_allclose(normalized, expected, rtol=1e-3, atol=1e-3)
        assert normalized.dtype == torch.float32


def test_who_has_seen_nothing_acts():
    """As `pmoe eval` lets the checkpoint of step 0 do."""
    assert make_agent().actor.act(torch.randn(2, 5, 4)).isfinite().all()


def test_act_uses_the_statistics_and_routes_as_asked():
    agent, obs = perturb(make_agent(seeds=1)), 3 + 4 * torch.randn(1, 200, 4)
    agent.actor.router.bias.data.zero_()
    agent.actor.statistics.update(3 + 4 * torch.randn(1, 1000, 4))
    before = agent.actor.statistics.sums.clone()
    mean, _, log_w = agent.actor(agent.actor.statistics.normalize(obs))
    for k in range(3):
        alone = agent.actor.act(obs, lambda log_w, k=k: torch.full_like(log_w[..., :1], k, dtype=int))
        assert torch.equal(alone, mean[:, :, k])
    best = log_w.argmax(-1)[0]
    assert torch.equal(agent.actor.act(obs)[0], mean[0, torch.arange(200), best]) and len(best.unique()) > 1
    assert torch.equal(agent.actor.statistics.sums, before)


def test_entropy_is_that_of_primitive_and_action_together():
    agent = perturb(make_agent().double())
    rows = batch(agent)
    mixture = torch_mixture(agent, rows[..., :4])
    router, own = mixture.mixture_distribution, mixture.component_distribution.entropy()
    expected = (router.entropy() + (router.probs * own).sum(-1)).mean(1)
    torch.testing.assert_close(agent.update(rows, noise(agent, 32)[0])["losses/entropy"], expected)


@pytest.mark.parametrize("fan_in, fan_out", [(4, 64), (64, 4), (64, 64)])
def test_linear_starts_orthogonal_and_each_seed_alone(fan_in, fan_out):
    layer, alone = (Linear(fan_in, fan_out, 0.5, [torch.Generator().manual_seed(i) for i in x]) for x in ((5, 6), (6,)))
    assert torch.equal(layer.weight[1], alone.weight[0]) and not layer.bias.any()
    for weight in layer.weight:
        narrow = weight if fan_in <= fan_out else weight.T
        torch.testing.assert_close(narrow @ narrow.T, 0.25 * torch.eye(len(narrow)), rtol=0, atol=1e-5)


def test_gains_are_those_of_ppo():
    agent = make_agent()
    layers = [agent.actor.fc1, agent.actor.fc2, agent.actor.mean, agent.actor.router, *agent.vf[::2], *agent.qf[::2]]
    gains = [torch.linalg.svdvals(layer.weight)[0].unique() for layer in layers]
    expected = [2**0.5, 2**0.5, 0.01, 0.01, *[2**0.5, 2**0.5, 1] * 2]
    assert [x.mean().item() for x in gains] == pytest.approx(expected, rel=1e-4) and not agent.actor.log_std.any()


def test_a_checkpoint_holds_the_statistics(quick_run):
    state = checkpoint(quick_run("ppo"))["learnt"]
    assert state["actor.statistics.sums"][0, 0].tolist() == [400] * 3 and state["returns.sums"][0, 0].item() == 400
    assert state["discounted"].shape == (1, 1, 1)
