"""The update: K = 1 against a SAC written here, which loss reaches which parameter, targets, seeds side by side."""

import math

import numpy as np
import pytest
import torch
from test_policy import make_agent
from torch import nn

from pmoe.pmoe_sac import bellman_target, frequency_loss, primitive_loss


def batch(seeds=1, size=32, obs=4, action=2, seed=0):
    g = torch.Generator().manual_seed(seed)
    x, y = (torch.randn(seeds, size, obs, generator=g) for _ in range(2))
    a = torch.rand(seeds, size, action, generator=g) * 2 - 1
    reward = torch.randn(seeds, size, 1, generator=g)
    return x, a, y, reward, (torch.rand(seeds, size, 1, generator=g) < 0.3).float()


class PlainSAC:
    """Soft actor-critic as its paper has it, with torch's own layers and an Adam for each of its parts."""

    def __init__(self, agent, alpha, gamma=0.99, tau=0.005, lr=1e-3):
        self.generator = torch.Generator()
        self.generator.set_state(agent.generators[0].get_state())
        self.low, self.high = agent.actor.shift - agent.actor.scale, agent.actor.shift + agent.actor.scale
        self.low, self.high = self.low.flatten(), self.high.flatten()
        self.trunk = nn.Sequential(self.copy(agent.actor.fc1), nn.ReLU(), self.copy(agent.actor.fc2), nn.ReLU())
        self.mean, self.log_std = self.copy(agent.actor.mean), self.copy(agent.actor.log_std)
        self.critics, self.targets = (
            [
                nn.Sequential(self.copy(q.fc1, i), nn.ReLU(), self.copy(q.fc2, i), nn.ReLU(), self.copy(q.fc3, i))
                for i in (0, 1)
            ]
            for q in (agent.qf, agent.qf_target)
        )
        actor = [*self.trunk.parameters(), *self.mean.parameters(), *self.log_std.parameters()]
        self.actor_adam = torch.optim.Adam(actor, lr)
        self.critic_adam = torch.optim.Adam([p for q in self.critics for p in q.parameters()], lr)
        self.log_alpha = torch.tensor(0.0 if alpha == "auto" else math.log(alpha), requires_grad=True)
        self.alpha_adam = torch.optim.Adam([self.log_alpha], lr) if alpha == "auto" else None
        self.gamma, self.tau = gamma, tau

    @staticmethod
    def copy(layer, i=0):
        linear = nn.Linear(*layer.weight.shape[1:])
        linear.load_state_dict({"weight": layer.weight[i].T.clone(), "bias": layer.bias[i, 0].clone()})
        return linear

    def policy(self, obs):
        x = self.trunk(obs)
        std = (-5 + 3.5 * (self.log_std(x).tanh() + 1)).exp()
        normal = torch.distributions.Normal(self.mean(x), std)
        u = normal.loc + normal.scale * torch.randn(len(obs), 1, 2, generator=self.generator)[:, 0]
        scale = (self.high - self.low) / 2
        log_det = torch.distributions.TanhTransform().log_abs_det_jacobian(u, u.tanh()) + scale.log()
        return (self.high + self.low) / 2 + scale * u.tanh(), (normal.log_prob(u) - log_det).sum(-1)

    def update(self, obs, action, next_obs, reward, terminated):
        alpha = self.log_alpha.exp().item()
        with torch.no_grad():
            next_action, log_prob = self.policy(next_obs)
            torch.rand(len(obs), 1, generator=self.generator)  # the draw of a primitive, of which there is one
            x = torch.cat([next_obs, next_action], -1)
            next_q = torch.min(*(q(x)[:, 0] for q in self.targets))
            target = reward + self.gamma * (1 - terminated) * (next_q - alpha * log_prob)
        x = torch.cat([obs, action], -1)
        critic_loss = sum(nn.functional.mse_loss(q(x)[:, 0], target) for q in self.critics)
        self.critic_adam.zero_grad()
        critic_loss.backward()
        self.critic_adam.step()

        new_action, log_prob = self.policy(obs)
        x = torch.cat([obs, new_action], -1)
        actor_loss = (alpha * log_prob - torch.min(*(q(x)[:, 0] for q in self.critics))).mean()
        self.actor_adam.zero_grad()
        actor_loss.backward()
        self.actor_adam.step()
        if self.alpha_adam:
            alpha_loss = -(self.log_alpha.exp() * (log_prob.detach() - 2)).mean()
            self.alpha_adam.zero_grad()
            alpha_loss.backward()
            self.alpha_adam.step()
        with torch.no_grad():
            for q, target in zip(self.critics, self.targets):
                for p, t in zip(q.parameters(), target.parameters()):
                    t.mul_(1 - self.tau).add_(self.tau * p)
        return critic_loss.item(), actor_loss.item()


@pytest.mark.parametrize("backprop", ["max", "all"])
@pytest.mark.parametrize("entropy", ["primitive", "mixture"])
@pytest.mark.parametrize("alpha", [0.2, "auto"])
def test_one_primitive_is_sac(alpha, entropy, backprop):
    agent = make_agent(k=1, seeds=1, alpha=alpha, entropy=entropy, backprop=backprop)
    sac = PlainSAC(agent, alpha)
    for i in range(25):
        data = batch(seed=i)
        figures = agent.update(*data)
        losses = sac.update(*(x[0] if j < 3 else x[0, :, 0] for j, x in enumerate(data)))
        torch.testing.assert_close(figures["losses/critic"].item(), losses[0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(figures["losses/actor"].item(), losses[1], rtol=1e-4, atol=1e-5)
        assert figures["losses/frequency"].item() == 0
    torch.testing.assert_close(agent.actor.mean.weight[0].T, sac.mean.weight, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(agent.actor.fc1.weight[0].T, sac.trunk[0].weight, rtol=1e-3, atol=1e-5)
    for i in (0, 1):
        torch.testing.assert_close(agent.qf.fc2.weight[i].T, sac.critics[i][2].weight, rtol=1e-3, atol=1e-5)
        torch.testing.assert_close(agent.qf_target.fc2.weight[i].T, sac.targets[i][2].weight, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(agent.log_alpha.item(), sac.log_alpha.item(), rtol=1e-4, atol=1e-6)


def update_where_one_primitive_wins(winner=1, **fields):
    """Updates once with a critic that finds the winner best everywhere; returns the agent, and what of it changed."""
    agent = make_agent(k=3, seeds=1, low=[-1.0, -1.0], high=[1.0, 1.0], **fields)
    with torch.no_grad():
        agent.actor.mean.bias.view(3, 2)[:] = -1.0
        agent.actor.mean.bias.view(3, 2)[winner] = 1.5
        agent.actor.log_std.bias -= 2

    def forward(obs, action):
        q = action.sum(-1).unsqueeze(1).expand(-1, 2, -1, -1)
        return q + sum(p.sum() for p in agent.qf.parameters()) * 1e-6

    agent.qf.forward = forward
    before = {name: x.clone() for name, x in agent.state_dict().items()}
    agent.update(*batch())
    return {name: x != before[name] for name, x in agent.state_dict().items()}


def test_backprop_max_trains_the_winner_and_the_frequency_loss_the_router():
    changed = update_where_one_primitive_wins(winner=1)
    for name in ("actor.mean", "actor.log_std"):
        assert changed[f"{name}.bias"].view(3, 2).any(-1).tolist() == [False, True, False]
        assert changed[f"{name}.weight"].view(256, 3, 2).any(-1).any(0).tolist() == [False, True, False]
    assert changed["actor.router.weight"].any() and changed["actor.fc1.weight"].any()


def test_backprop_all_trains_every_primitive():
    changed = update_where_one_primitive_wins(backprop="all")
    for name in ("actor.mean", "actor.log_std"):
        assert changed[f"{name}.bias"].view(3, 2).all(-1).tolist() == [True, True, True]


def gradients_of(loss, agent):
    """Names of the actor's parameters that the loss reaches"""
    names, parameters = zip(*agent.actor.named_parameters())
    grads = torch.autograd.grad(loss, parameters, allow_unused=True, retain_graph=True)
    return {name.split(".")[0] for name, grad in zip(names, grads) if grad is not None and grad.any()}


@pytest.mark.parametrize("entropy", ["primitive", "mixture"])
@pytest.mark.parametrize("detach_router", [True, False])
def test_router_learns_from_the_frequency_loss_alone(detach_router, entropy):
    agent = make_agent(k=3, seeds=1, detach_router=detach_router, entropy=entropy)
    obs = batch()[0]
    action, log_prob, log_w = agent.propose(obs)
    q = agent.qf(obs, action).amin(1)
    best = q.argmax(-1, keepdim=True)
    psi = gradients_of(primitive_loss(log_prob.gather(-1, best), q.gather(-1, best), 0.2).mean(), agent)
    theta = gradients_of(frequency_loss(log_w, best).mean(), agent)
    assert psi == {"fc1", "fc2", "mean", "log_std"}
    assert theta == ({"router"} if detach_router else {"fc1", "fc2", "router"})


def test_the_policy_step_leaves_the_critics_alone(monkeypatch):
    agent, seen = make_agent(k=3, seeds=2), []
    minimize = agent.minimize

    def spy(loss, parameters):
        before = {name: p.clone() for name, p in agent.named_parameters()}
        minimize(loss, parameters)
        seen.append({name.split(".")[0] for name, p in agent.named_parameters() if not torch.equal(p, before[name])})

    monkeypatch.setattr(agent, "minimize", spy)
    agent.update(*batch(seeds=2))
    assert seen == [{"qf"}, {"actor"}]


def test_targets_follow_by_tau():
    agent = make_agent(seeds=1, tau=0.25)
    before = agent.qf_target.fc2.weight.clone()
    agent.update(*batch())
    torch.testing.assert_close(agent.qf_target.fc2.weight, 0.75 * before + 0.25 * agent.qf.fc2.weight)


def test_frequency_loss_by_hand_and_its_minimum():
    log_w = torch.tensor([[[0.2, 0.3, 0.5]]]).log()
    loss = frequency_loss(log_w, torch.tensor([[[1]]]))
    torch.testing.assert_close(loss.item(), 0.2**2 + 0.7**2 + 0.5**2)
    # Q = -(a - 1)^2 and three primitives: its minimum is how often each of them is the best.
    noise = torch.randn(1, 50_000, 3, generator=torch.Generator().manual_seed(0))
    best = -(torch.tensor([0.0, 0.5, 2.5]) + noise * torch.tensor([1.0, 0.2, 0.7]) - 1).square()
    best = best.argmax(-1, keepdim=True)
    share = best.flatten().bincount(minlength=3) / 50_000
    logits = torch.zeros(3, requires_grad=True)
    adam = torch.optim.Adam([logits], 0.05)
    for _ in range(300):
        adam.zero_grad()
        frequency_loss(logits.log_softmax(-1).expand(1, 50_000, 3), best).mean().backward()
        adam.step()
    assert share.min() > 0.05
    torch.testing.assert_close(logits.softmax(-1), share, rtol=0, atol=2e-3)


def test_bellman_target_by_hand():
    reward, q, log_prob = torch.tensor([1.0, 1.0]), torch.tensor([10.0, 10.0]), torch.tensor([-2.0, -2.0])
    terminated = torch.tensor([0.0, 1.0])  # of a transition cut by the time limit, and of one that terminated
    target = bellman_target(reward, terminated, q, log_prob, alpha=0.5, gamma=0.9)
    torch.testing.assert_close(target, torch.tensor([1 + 0.9 * (10 + 0.5 * 2), 1.0]))


@pytest.mark.parametrize("fields", [{}, {"backprop": "all", "alpha": "auto"}, {"entropy": "mixture", "alpha": "auto"}])
def test_a_seed_learns_the_same_alone_as_among_others(fields):
    together = make_agent(seeds=3, **fields)
    alone = make_agent(seeds=3, **fields)  # its generator 1 starts as that of `together`
    alone = type(alone)(alone.args, 4, np.array([-2.0, 0.5]), np.array([1.0, 1.5]), [torch.Generator().manual_seed(1)])
    for i in range(20):
        data = batch(seeds=3, seed=i)
        together.update(*data)
        alone.update(*(x[1:2] for x in data))
    for (name, x), y in zip(together.state_dict().items(), alone.state_dict().values()):
        torch.testing.assert_close(x.unflatten(0, (3, -1))[1], y, rtol=1e-4, atol=1e-5, msg=name)


def test_temperature_rises_where_the_entropy_is_too_low():
    agent = make_agent(seeds=1, k=2, alpha="auto")
    with torch.no_grad():
        agent.actor.log_std.bias -= 10  # nearly deterministic: entropy far below -2
    agent.update(*batch())
    assert agent.log_alpha.item() > 0


def test_alpha_zero_is_no_entropy_bonus():
    agent = make_agent(seeds=1, alpha=0.0)
    figures = agent.update(*batch())
    assert figures["losses/alpha"].item() < 1e-29 and all(x.isfinite().all() for x in agent.tensors().values())
