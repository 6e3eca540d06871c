"""The update: K = 1 against a SAC written here, which loss reaches which parameter, targets, seeds side by side."""

import math

import numpy as np
import pytest
import torch
from test_policy import make_agent, noise
from torch import nn

from pmoe.pmoe_sac import frequency_loss, primitive_loss


def batch(seeds=1, size=32, obs=4, action=2, seed=0):
    g = torch.Generator().manual_seed(seed)
    x, y = (torch.randn(seeds, size, obs, generator=g) for _ in range(2))
    a = torch.rand(seeds, size, action, generator=g) * 2 - 1
    reward = torch.randn(seeds, size, 1, generator=g)
    return x, a, y, reward, (torch.rand(seeds, size, 1, generator=g) < 0.3).float()


class PlainSAC:
    """Soft actor-critic as its paper has it, with torch's own layers and an Adam for each of its parts."""

    def __init__(self, agent, alpha, gamma=0.99, tau=0.005, lr=1e-3):
        self.low, self.high = agent.actor.shift - agent.actor.scale, agent.actor.shift + agent.actor.scale
        self.low, self.high = self.low.flatten(), self.high.flatten()
        self.trunk = nn.Sequential(self.copy(agent.actor.fc1), nn.ReLU(), self.copy(agent.actor.fc2), nn.ReLU())
        self.mean_log_std = self.copy(agent.actor.mean_log_std)
        self.critics, self.targets = (
            [
                nn.Sequential(self.copy(q.fc1, i), nn.ReLU(), self.copy(q.fc2, i), nn.ReLU(), self.copy(q.fc3, i))
                for i in (0, 1)
            ]
            for q in (agent.qf, agent.qf_target)
        )
        actor = [*self.trunk.parameters(), *self.mean_log_std.parameters()]
        self.actor_adam = torch.optim.Adam(actor, lr)
        self.critic_adam = torch.optim.Adam([p for q in self.critics for p in q.parameters()], lr)
        self.log_alpha = torch.tensor(0.0 if alpha == "auto" else math.log(alpha)).to(agent.log_alpha).requires_grad_()
        self.alpha_adam = torch.optim.Adam([self.log_alpha], lr) if alpha == "auto" else None
        self.gamma, self.tau = gamma, tau

    @staticmethod
    def copy(layer, i=0):
        linear = nn.Linear(*layer.weight.shape[1:], dtype=layer.weight.dtype)
        linear.load_state_dict({"weight": layer.weight[i].T.clone(), "bias": layer.bias[i, 0].clone()})
        return linear

    def policy(self, obs, noise):
        mean, log_std = self.mean_log_std(self.trunk(obs)).chunk(2, -1)
        normal = torch.distributions.Normal(mean, (-5 + 3.5 * (log_std.tanh() + 1)).exp())
        u = normal.loc + normal.scale * noise
        scale = (self.high - self.low) / 2
        log_det = torch.distributions.TanhTransform().log_abs_det_jacobian(u, u.tanh()) + scale.log()
        return (self.high + self.low) / 2 + scale * u.tanh(), (normal.log_prob(u) - log_det).sum(-1)

    def update(self, obs, action, next_obs, reward, terminated, next_noise, noise):
        alpha = self.log_alpha.exp().item()
        with torch.no_grad():
            next_action, log_prob = self.policy(next_obs, next_noise)
            x = torch.cat([next_obs, next_action], -1)
            next_q = torch.min(*(q(x)[:, 0] for q in self.targets))
            target = reward + self.gamma * (1 - terminated) * (next_q - alpha * log_prob)
        x = torch.cat([obs, action], -1)
        critic_loss = sum(nn.functional.mse_loss(q(x)[:, 0], target) for q in self.critics)
        self.critic_adam.zero_grad()
        critic_loss.backward()
        self.critic_adam.step()

        new_action, log_prob = self.policy(obs, noise)
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
    agent = make_agent(k=1, seeds=1, alpha=alpha, entropy=entropy, backprop=backprop).double()
    sac = PlainSAC(agent, alpha)
    for i in range(25):
        data, (normal, uniform) = [x.double() for x in batch(seed=i)], noise(agent, 64, i)
        figures = agent.update(*data, normal, uniform)
        losses = sac.update(*(x[0] if j < 3 else x[0, :, 0] for j, x in enumerate(data)), *normal[0, :, 0].split(32))
        torch.testing.assert_close(figures["losses/critic"].item(), losses[0], rtol=1e-7, atol=1e-9)
        torch.testing.assert_close(figures["losses/actor"].item(), losses[1], rtol=1e-7, atol=1e-9)
        assert figures["losses/frequency"].item() == 0
    torch.testing.assert_close(agent.actor.mean_log_std.weight[0].T, sac.mean_log_std.weight, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(agent.actor.fc1.weight[0].T, sac.trunk[0].weight, rtol=1e-6, atol=1e-9)
    for i in (0, 1):
        torch.testing.assert_close(agent.qf.fc2.weight[i].T, sac.critics[i][2].weight, rtol=1e-6, atol=1e-9)
        torch.testing.assert_close(agent.qf_target.fc2.weight[i].T, sac.targets[i][2].weight, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(agent.log_alpha.item(), sac.log_alpha.item(), rtol=1e-6, atol=1e-9)


def update_where_one_primitive_wins(winner=1, **fields):
    """Updates once with a critic that finds the winner best everywhere; returns the agent, and what of it changed."""
    agent = make_agent(k=3, seeds=1, low=[-1.0, -1.0], high=[1.0, 1.0], **fields)
    with torch.no_grad():
        mean, log_std = agent.actor.mean_log_std.bias.view(2, 3, 2)
        mean[:] = -1.0
        mean[winner] = 1.5
        log_std -= 2

    def forward(obs, action):
        q = action.sum(-1).unsqueeze(1).expand(-1, 2, -1, -1)
        return q + sum(p.sum() for p in agent.qf.parameters()) * 1e-6

    agent.qf.forward = forward
    before = {name: x.clone() for name, x in agent.state_dict().items()}
    agent.update(*batch(), *noise(agent, 64))
    return {name: x != before[name] for name, x in agent.state_dict().items()}


def test_backprop_max_trains_the_winner_and_the_frequency_loss_the_router():
    changed = update_where_one_primitive_wins(winner=1)
    bias, weight = (
        changed[f"actor.mean_log_std.{name}"].view(-1, 2, 3, 2).any(-1).any(0) for name in ("bias", "weight")
    )
    assert bias.tolist() == weight.tolist() == [[False, True, False]] * 2
    assert changed["actor.router.weight"].any() and changed["actor.fc1.weight"].any()


def test_backprop_all_trains_every_primitive():
    changed = update_where_one_primitive_wins(backprop="all")
    assert changed["actor.mean_log_std.bias"].all()


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
    action, log_prob, log_w = agent.propose(obs, noise(agent, 32)[0])
    q = agent.qf(obs, action).amin(1)
    best = q.argmax(-1, keepdim=True)
    psi = gradients_of(primitive_loss(log_prob.gather(-1, best), q.gather(-1, best), 0.2).mean(), agent)
    theta = gradients_of(frequency_loss(log_w, best).mean(), agent)
    assert psi == {"fc1", "fc2", "mean_log_std"}
    assert theta == ({"router"} if detach_router else {"fc1", "fc2", "router"})


def test_the_policy_step_leaves_the_critics_alone(monkeypatch):
    agent, seen = make_agent(k=3, seeds=2), []
    minimize = agent.minimize

    def spy(loss, parameters):
        before = {name: p.clone() for name, p in agent.named_parameters()}
        minimize(loss, parameters)
        changed = {name.split(".")[0] for name, p in agent.named_parameters() if not torch.equal(p, before[name])}
        seen.append(changed - {"adam"})

    monkeypatch.setattr(agent, "minimize", spy)
    agent.update(*batch(seeds=2), *noise(agent, 64))
    assert seen == [{"qf"}, {"actor"}]


def test_targets_follow_by_tau():
    agent = make_agent(seeds=1, tau=0.25)
    before = agent.qf_target.fc2.weight.clone()
    agent.update(*batch(), *noise(agent, 64))
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
    agent = make_agent(seeds=1, gamma=0.9, alpha=0.5)
    for q, value in ((agent.qf, 0.0), (agent.qf_target, 10.0)):  # critics that are constant
        q.fc3.weight.data.zero_(), q.fc3.bias.data.fill_(value)
    obs, action, next_obs, reward, _ = batch(size=2)
    terminated = torch.tensor([[[0.0], [1.0]]])  # a transition cut by the time limit, and one that terminated
    normal, uniform = noise(agent, 4)
    log_prob = agent.draw(next_obs, normal[:, :2], uniform[:, :2])[1]
    target = reward[0, :, 0] + torch.stack([0.9 * (10 - 0.5 * log_prob[0, 0, 0]), torch.tensor(0.0)])
    loss = agent.update(obs, action, next_obs, reward, terminated, normal, uniform)["losses/critic"]
    torch.testing.assert_close(loss.item(), 2 * target.square().mean().item())


def test_adam_is_that_of_torch():
    agent, g = make_agent(seeds=2, alpha="auto", learning_rate=3e-3), torch.Generator().manual_seed(0)
    groups = [list(agent.qf.parameters()), list(agent.actor.parameters()), [agent.log_alpha]]
    copies = [[p.detach().clone() for p in group] for group in groups]
    adams = [torch.optim.Adam(copy, 3e-3) for copy in copies]
    for i in range(30):
        for group, copy, adam in list(zip(groups, copies, adams))[: 3 - i % 3]:  # not each of them every time
            for x in copy:
                x.grad = 10 ** torch.randint(-9, 4, (1,), generator=g) * torch.randn(x.shape, generator=g)
            agent.minimize(sum((p * x.grad).sum() for p, x in zip(group, copy)), group)
            adam.step()
    moments = dict(zip(map(id, agent.learning), agent.adam))
    for group, copy, adam in zip(groups, copies, adams):
        for p, x in zip(group, copy):
            torch.testing.assert_close(p.detach(), x, rtol=1e-5, atol=1e-6)
            m, v, *powers = (y.detach() for y in moments[id(p)])
            powers_of_torch = [beta ** adam.state[x]["step"].double() for beta in (0.9, 0.999)]
            torch.testing.assert_close(powers, powers_of_torch)
            torch.testing.assert_close(m, adam.state[x]["exp_avg"], rtol=1e-4, atol=1e-9)
            torch.testing.assert_close(v, adam.state[x]["exp_avg_sq"], rtol=1e-4, atol=1e-18)


@pytest.mark.parametrize("fields", [{}, {"backprop": "all", "alpha": "auto"}, {"entropy": "mixture", "alpha": "auto"}])
def test_a_seed_learns_the_same_alone_as_among_others(fields):
    together = make_agent(seeds=3, **fields)
    alone = make_agent(seeds=3, **fields)  # its generator 1 starts as that of `together`
    alone = type(alone)(alone.args, 4, np.float32([-2, 0.5]), np.float32([1, 1.5]), [torch.Generator().manual_seed(1)])
    for i in range(20):
        data = *batch(seeds=3, seed=i), *noise(together, 64, i)
        together.update(*data)
        alone.update(*(x[1:2] for x in data))
    for (name, x), y in zip(together.state_dict().items(), alone.state_dict().values()):
        x = x.unflatten(0, (3, -1))[1] if x.dim() else x
        torch.testing.assert_close(x, y, rtol=1e-4, atol=1e-5, msg=name)


def test_temperature_rises_where_the_entropy_is_too_low():
    agent = make_agent(seeds=1, k=2, alpha="auto")
    with torch.no_grad():
        agent.actor.mean_log_std.bias.chunk(2, -1)[1].sub_(10)  # nearly deterministic: entropy far below -2
    agent.update(*batch(), *noise(agent, 64))
    assert agent.log_alpha.item() > 0


def test_alpha_zero_is_no_entropy_bonus():
    agent = make_agent(seeds=1, alpha=0.0)
    figures = agent.update(*batch(), *noise(agent, 64))
    assert figures["losses/alpha"].item() < 1e-29 and all(x.isfinite().all() for x in agent.state_dict().values())
