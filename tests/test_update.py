"""The update: K = 1 against a SAC written here, which loss trains what, targets, Adam, seeds side by side."""

import math

import pytest
import torch
from agents import make_constant
from common import sac_agent, sac_batch, sac_noise
from torch import nn
from torch.distributions import Normal, TanhTransform
from torch.nn.functional import mse_loss

from pmoe.pmoe_sac import Adam, Agent, Philox, frequency_loss, primitive_loss

# K = 1 is SAC


def one_of(layer, n=0) -> nn.Linear:
    """A copy, as torch's own layer, of the n-th of the layers that stand side by side"""
    _, inputs, outputs = layer.weight.shape
    linear = nn.Linear(inputs, outputs, dtype=layer.weight.dtype)
    with torch.no_grad():
        linear.weight.copy_(layer.weight[n].T)
        linear.bias.copy_(layer.bias[n, 0])
    return linear


def one_critic(critic, n) -> nn.Sequential:
    layers = [one_of(layer, n) for layer in (critic.fc1, critic.fc2, critic.fc3)]
    return nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2])


class PlainSAC:
    """Soft actor-critic as its paper has it, with torch's own layers and an Adam for each of its parts"""

    def __init__(self, agent, alpha, gamma=0.99, tau=0.005, learning_rate=1e-3):
        self.gamma = gamma
        self.tau = tau
        self.fc1 = one_of(agent.actor.fc1)
        self.fc2 = one_of(agent.actor.fc2)
        self.mean_log_std = one_of(agent.actor.mean_log_std)
        actor = nn.ModuleList([self.fc1, self.fc2, self.mean_log_std])
        self.critics = nn.ModuleList([one_critic(agent.qf, n) for n in (0, 1)])
        self.targets = nn.ModuleList([one_critic(agent.qf_target, n) for n in (0, 1)])
        self.actor_adam = torch.optim.Adam(actor.parameters(), learning_rate)
        self.critic_adam = torch.optim.Adam(self.critics.parameters(), learning_rate)

        self.tunes_alpha = alpha == "auto"
        log_alpha = 0.0 if self.tunes_alpha else math.log(alpha)
        # As precise as the agent's, which is made in float32
        self.log_alpha = torch.tensor(log_alpha, dtype=torch.float32).double().requires_grad_()
        self.alpha_adam = torch.optim.Adam([self.log_alpha], learning_rate)

    def policy(self, obs, noise):
        x = self.fc1(obs).relu()
        x = self.fc2(x).relu()
        mean, log_std = self.mean_log_std(x).chunk(2, -1)
        log_std = -5 + 3.5 * (log_std.tanh() + 1)
        normal = Normal(mean, log_std.exp())
        u = normal.loc + normal.scale * noise
        action = u.tanh()
        log_det = TanhTransform().log_abs_det_jacobian(u, action)
        log_prob = normal.log_prob(u) - log_det
        return action, log_prob.sum(-1)

    @staticmethod
    def values(critics, obs, action):
        """Of both critics, (B,) each"""
        x = torch.cat([obs, action], -1)
        return [q(x).squeeze(-1) for q in critics]

    def update(self, batch, next_noise, noise):
        obs, action, next_obs = batch.obs[0], batch.action[0], batch.next_obs[0]
        reward = batch.reward.flatten()
        terminated = batch.terminated.flatten()
        alpha = self.log_alpha.exp().item()

        # Critics
        with torch.no_grad():
            next_action, log_prob = self.policy(next_obs, next_noise)
            next_q = torch.min(*self.values(self.targets, next_obs, next_action))
            next_value = next_q - alpha * log_prob
            target = reward + self.gamma * (1 - terminated) * next_value
        q1, q2 = self.values(self.critics, obs, action)
        critic_loss = mse_loss(q1, target) + mse_loss(q2, target)
        self.critic_adam.zero_grad()
        critic_loss.backward()
        self.critic_adam.step()

        # Policy
        new_action, log_prob = self.policy(obs, noise)
        q = torch.min(*self.values(self.critics, obs, new_action))
        actor_loss = (alpha * log_prob - q).mean()
        self.actor_adam.zero_grad()
        actor_loss.backward()
        self.actor_adam.step()

        # Temperature
        if self.tunes_alpha:
            target_entropy = -2
            excess = log_prob.detach() + target_entropy
            alpha_loss = -(self.log_alpha.exp() * excess).mean()
            self.alpha_adam.zero_grad()
            alpha_loss.backward()
            self.alpha_adam.step()

        # Targets
        with torch.no_grad():
            for p, target in zip(self.critics.parameters(), self.targets.parameters()):
                target.mul_(1 - self.tau)
                target.add_(self.tau * p)
        return critic_loss.item(), actor_loss.item()


@pytest.mark.parametrize("backprop", ["max", "all"])
@pytest.mark.parametrize("entropy", ["primitive", "mixture"])
@pytest.mark.parametrize("alpha", [0.2, "auto"])
def test_one_primitive_is_sac(alpha, entropy, backprop):
    agent = sac_agent(k=1, seeds=1, alpha=alpha, entropy=entropy, backprop=backprop).double()
    sac = PlainSAC(agent, alpha)
    for i in range(25):
        batch = sac_batch(seed=i, dtype=torch.float64)
        normal, uniform = sac_noise(agent, 64, i)
        figures = agent.update(batch, normal, uniform)
        next_noise, noise = normal[0, :, 0].split(32)
        critic_loss, actor_loss = sac.update(batch, next_noise, noise)
        losses = {"losses/critic": critic_loss, "losses/actor": actor_loss, "losses/frequency": 0.0}
        for name, loss in losses.items():
            torch.testing.assert_close(figures[name].item(), loss, rtol=1e-7, atol=1e-9)

    def assert_same(layer, n, linear):
        torch.testing.assert_close(layer.weight[n].T, linear.weight, rtol=1e-6, atol=1e-9)

    assert_same(agent.actor.mean_log_std, 0, sac.mean_log_std)
    assert_same(agent.actor.fc1, 0, sac.fc1)
    for n in (0, 1):
        assert_same(agent.qf.fc2, n, sac.critics[n][2])
        assert_same(agent.qf_target.fc2, n, sac.targets[n][2])
    torch.testing.assert_close(agent.temperature.log_alpha.item(), sac.log_alpha.item(), rtol=1e-6, atol=1e-9)


# What learns from what


def learning(agent) -> set[str]:
    """The parts of an agent, or of a policy, that have parameters with a gradient"""
    names = set()
    for name, parameter in agent.named_parameters():
        if parameter.grad is not None and parameter.grad.any():
            names.add(name.partition(".")[0])
    return names


@pytest.mark.parametrize("alpha", [0.2, "auto"])
def test_parameters_are_what_is_learnt(alpha):
    """Who clips, counts or regularises agent.parameters() meets no state of an optimiser."""
    agent = sac_agent(alpha=alpha)
    learnt = {name for name, _ in agent.named_parameters()}
    expected = {"temperature.log_alpha"} if alpha == "auto" else set()
    expected |= {f"actor.{name}" for name, _ in agent.actor.named_parameters()}
    expected |= {f"qf.{name}" for name, _ in agent.qf.named_parameters()}
    assert learnt == expected
    assert all(parameter.requires_grad for parameter in agent.parameters())

    before = {name: parameter.clone() for name, parameter in agent.named_parameters()}
    agent.update(sac_batch(seeds=2), *sac_noise(agent, 64))
    moved = {name for name, parameter in agent.named_parameters() if not parameter.equal(before[name])}
    assert moved <= expected
    assert "temperature.log_alpha" in moved or alpha != "auto"


def test_the_state_of_adam_is_saved_and_brought_back():
    """In buffers, so that a checkpoint of the agent's state_dict has it"""
    agent = sac_agent(alpha="auto")
    for name in ("actor_adam", "qf_adam", "temperature.adam"):
        adam = agent.get_submodule(name)
        assert list(adam.parameters()) == []
        for buffer, _ in adam.named_buffers():
            assert f"{name}.{buffer}" in agent.state_dict()

    for i in range(3):
        agent.update(sac_batch(seeds=2, seed=i), *sac_noise(agent, 64, i))
    twin = sac_agent(alpha="auto")
    twin.load_state_dict(agent.state_dict())
    for x in (agent, twin):
        x.update(sac_batch(seeds=2, seed=3), *sac_noise(agent, 64, 3))
    state = twin.state_dict()
    for name, x in agent.state_dict().items():
        assert x.equal(state[name]), name


def what_changes_where_one_primitive_wins(winner=1, **fields) -> dict[str, torch.Tensor]:
    """What one update changes of an agent whose critic finds the winner best everywhere"""
    agent = sac_agent(k=3, seeds=1, **fields)
    with torch.no_grad():
        mean, log_std = agent.actor.mean_log_std.bias.view(2, 3, 2)
        mean[:] = -1.0
        mean[winner] = 1.5
        log_std -= 2

    def q_values(obs, action):
        q = action.sum(-1).unsqueeze(1).expand(-1, 2, -1, -1)
        # The critics' parameters have to be asked, or there is no gradient.
        asked = sum(parameter.sum() for parameter in agent.qf.parameters())
        return q + 1e-6 * asked

    agent.qf.forward = q_values
    before = {name: x.clone() for name, x in agent.state_dict().items()}
    agent.update(sac_batch(), *sac_noise(agent, 64))
    return {name: x != before[name] for name, x in agent.state_dict().items()}


def test_backprop_max_trains_the_winner_and_the_frequency_loss_the_router():
    changed = what_changes_where_one_primitive_wins(winner=1)
    for name in ("bias", "weight"):
        parameter = changed[f"actor.mean_log_std.{name}"].view(-1, 2, 3, 2)
        of_primitives = parameter.any(-1).any(0)  # of means and log sigmas (2, K)
        assert of_primitives.tolist() == [[False, True, False]] * 2
    assert changed["actor.router.weight"].any()
    assert changed["actor.fc1.weight"].any()


def test_backprop_all_trains_every_primitive():
    changed = what_changes_where_one_primitive_wins(backprop="all")
    assert changed["actor.mean_log_std.bias"].all()


@pytest.mark.parametrize("entropy", ["primitive", "mixture"])
@pytest.mark.parametrize("detach_router", [True, False])
def test_router_learns_from_the_frequency_loss_alone(detach_router, entropy):
    agent = sac_agent(k=3, seeds=1, detach_router=detach_router, entropy=entropy)
    obs = sac_batch().obs
    normal, _ = sac_noise(agent, 32)
    action, log_prob, log_w = agent.propose(obs, normal)
    q = agent.qf(obs, action).amin(1)
    best = q.argmax(-1, keepdim=True)

    loss = primitive_loss(log_prob.gather(-1, best), q.gather(-1, best), 0.2)
    loss.mean().backward(retain_graph=True)
    assert learning(agent.actor) == {"fc1", "fc2", "mean_log_std"}

    agent.zero_grad()
    frequency_loss(log_w, best).mean().backward()
    trunk = set() if detach_router else {"fc1", "fc2"}
    assert learning(agent.actor) == trunk | {"router"}


@pytest.mark.parametrize("backprop", ["max", "all"])
def test_each_loss_trains_its_part_and_no_other(monkeypatch, backprop):
    """The step of the policy leaves the critics alone, and that of the critics the policy; and so on."""
    agent = sac_agent(k=3, seeds=2, alpha="auto", backprop=backprop)
    trained = []
    step = Adam.step

    def spy(adam, loss):
        before = {name: parameter.clone() for name, parameter in agent.named_parameters()}
        step(adam, loss)
        parts = set()
        for name, parameter in agent.named_parameters():
            if not parameter.equal(before[name]):
                parts.add(name.partition(".")[0])
        trained.append(parts)

    monkeypatch.setattr(Adam, "step", spy)
    agent.update(sac_batch(seeds=2), *sac_noise(agent, 64))
    assert trained == [{"qf"}, {"actor"}, {"temperature"}]


# The losses, by hand


def test_targets_follow_by_tau():
    agent = sac_agent(seeds=1, tau=0.25)
    before = agent.qf_target.fc2.weight.clone()
    agent.update(sac_batch(), *sac_noise(agent, 64))
    expected = 0.75 * before + 0.25 * agent.qf.fc2.weight
    torch.testing.assert_close(agent.qf_target.fc2.weight, expected)


def test_frequency_loss_by_hand():
    log_w = torch.tensor([[[0.2, 0.3, 0.5]]]).log()
    best = torch.tensor([[[1]]])
    loss = frequency_loss(log_w, best)
    torch.testing.assert_close(loss.item(), 0.2**2 + 0.7**2 + 0.5**2)


def test_the_minimum_of_the_frequency_loss_is_how_often_each_primitive_is_best():
    """For Q = -(a - 1)^2 and three primitives"""
    n = 50_000
    means = torch.tensor([0.0, 0.5, 2.5])
    stds = torch.tensor([1.0, 0.2, 0.7])
    noise = torch.randn(1, n, 3, generator=torch.Generator().manual_seed(0))
    q = -(means + stds * noise - 1).square()
    best = q.argmax(-1, keepdim=True)
    share = best.flatten().bincount(minlength=3) / n
    assert share.min() > 0.05

    logits = torch.zeros(3, requires_grad=True)
    adam = torch.optim.Adam([logits], 0.05)
    for _ in range(300):
        log_w = logits.log_softmax(-1).expand(1, n, 3)
        loss = frequency_loss(log_w, best).mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
    torch.testing.assert_close(logits.softmax(-1), share, rtol=0, atol=2e-3)


def test_bellman_target_by_hand():
    """Of a transition that the time limit cut, and of one that terminated"""
    agent = sac_agent(seeds=1, gamma=0.9, alpha=0.5)
    make_constant(agent.qf, 0.0)
    make_constant(agent.qf_target, 10.0)
    terminated = torch.tensor([[[0.0], [1.0]]])
    batch = sac_batch(size=2)._replace(terminated=terminated)
    normal, uniform = sac_noise(agent, 2)
    _, log_prob = agent.draw(batch.next_obs, normal, uniform)
    cut, over = batch.reward.flatten()
    target = cut + 0.9 * (10 - 0.5 * log_prob[0, 0, 0])

    loss, _ = agent.critic_loss(batch, normal, uniform, torch.tensor(0.5))
    expected = target.square() + over.square()  # the mean over two states, summed over two critics
    torch.testing.assert_close(loss.item(), expected.item())


def test_the_target_takes_the_smaller_of_both_critics():
    agent = sac_agent(seeds=1, gamma=1.0, alpha=0.0)
    make_constant(agent.qf, 0.0)
    make_constant(agent.qf_target, 10.0)
    with torch.no_grad():
        agent.qf_target.fc3.bias[1] = -3.0
    zeros = torch.zeros(1, 2, 1)
    batch = sac_batch(size=2)._replace(reward=zeros, terminated=zeros)
    normal, uniform = sac_noise(agent, 2)
    loss, _ = agent.critic_loss(batch, normal, uniform, torch.tensor(0.0))
    torch.testing.assert_close(loss.item(), 2 * 9.0)


@pytest.mark.parametrize("argmax", ["q", "soft"])
@pytest.mark.parametrize("entropy", ["primitive", "mixture"])
def test_the_maximum_target_is_the_best_of_all_primitives(argmax, entropy):
    """One critic call for each primitive, and a loop over the states"""
    options = {"k": 3, "seeds": 1, "target": "max", "argmax": argmax, "entropy": entropy}
    agent = sac_agent(**options, gamma=0.9, alpha=2.0).double()
    make_constant(agent.qf, 0.0)
    batch = sac_batch(dtype=torch.float64)
    normal, uniform = sac_noise(agent, 32)
    alpha = torch.tensor(2.0, dtype=torch.float64)
    action, log_prob, _ = agent.propose(batch.next_obs, normal)
    of_each = []
    for k in range(3):
        twins = agent.qf_target(batch.next_obs, action[:, :, [k]])
        of_each.append(twins.amin(1))
    q = torch.cat(of_each, -1)[0]
    soft = q - 2.0 * log_prob[0]
    score = soft if argmax == "soft" else q
    values = torch.zeros(32, dtype=torch.float64)
    for i in range(32):
        winner = score[i].argmax()
        values[i] = soft[i, winner]
    discount = 0.9 * (1 - batch.terminated.flatten())
    target = batch.reward.flatten() + discount * values

    loss, _ = agent.critic_loss(batch, normal, uniform, alpha)
    torch.testing.assert_close(loss.item(), 2 * target.square().mean().item())
    # The two notions of best do not agree here, or the test would hold for either.
    assert (soft.argmax(-1) != q.argmax(-1)).any()


def test_the_soft_argmax_counts_the_entropy():
    """Where Q says nothing, the least likely action wins, as Q - alpha log p is largest there."""
    agent = sac_agent(seeds=1, argmax="soft", alpha=0.5)
    make_constant(agent.qf, 3.0)
    obs = sac_batch().obs
    normal, uniform = sac_noise(agent, 32)
    alpha = torch.tensor(0.5)
    _, log_prob, _ = agent.propose(obs, normal)
    _, of_winner, _ = agent.policy_loss(obs, normal, uniform, alpha)
    assert of_winner.squeeze(-1).equal(log_prob.amin(-1))


def test_temperature_loss_by_hand():
    """Its gradient in log alpha is alpha (entropy - target), and nothing of it reaches the policy."""
    agent = sac_agent(seeds=2, alpha="auto")
    with torch.no_grad():
        agent.temperature.log_alpha[1] = math.log(3.0)
    log_prob = torch.tensor([[[1.0], [2.0]], [[-5.0], [-7.0]]], requires_grad=True)
    loss = agent.temperature.loss(log_prob)
    target_entropy = -2
    expected = torch.tensor([-1.5 - target_entropy, 3 * (6.0 - target_entropy)])
    torch.testing.assert_close(loss, expected)
    loss.sum().backward()
    torch.testing.assert_close(agent.temperature.log_alpha.grad.flatten(), expected)
    assert log_prob.grad is None


def test_temperature_rises_where_the_entropy_is_too_low():
    agent = sac_agent(seeds=1, k=2, alpha="auto")
    with torch.no_grad():
        _, log_std = agent.actor.mean_log_std.bias.chunk(2, -1)
        # Nearly deterministic: an entropy far below -2
        log_std.sub_(10)
    agent.update(sac_batch(), *sac_noise(agent, 64))
    assert agent.temperature.log_alpha.item() > 0


def test_alpha_zero_is_no_entropy_bonus():
    agent = sac_agent(seeds=1, alpha=0.0)
    figures = agent.update(sac_batch(), *sac_noise(agent, 64))
    assert figures["losses/alpha"].item() < 1e-29
    for x in agent.state_dict().values():
        assert x.isfinite().all()


# Adam


def test_adam_is_that_of_torch():
    """Also where its gradients are of very different sizes"""
    generator = torch.Generator().manual_seed(0)
    shapes = [(2, 5, 3), (2, 1, 3), (2, 1, 1)]
    ours = [torch.randn(shape, generator=generator).requires_grad_() for shape in shapes]
    copies = [x.detach().clone().requires_grad_() for x in ours]
    adam = Adam(ours, 3e-3)
    torch_adam = torch.optim.Adam(copies, 3e-3)

    for _ in range(30):
        loss = torch.zeros(2)
        for x, copy in zip(ours, copies):
            size = 10.0 ** torch.randint(-9, 4, (1,), generator=generator)
            copy.grad = size * torch.randn(x.shape, generator=generator)
            loss = loss + (x * copy.grad).sum((1, 2))
        adam.step(loss)
        torch_adam.step()

    for i, copy in enumerate(copies):
        torch.testing.assert_close(ours[i], copy, rtol=1e-5, atol=1e-6)
        state = torch_adam.state[copy]
        mean = getattr(adam, f"mean{i}")
        square = getattr(adam, f"square{i}")
        power1, power2 = getattr(adam, f"powers{i}").tolist()
        torch.testing.assert_close(mean, state["exp_avg"], rtol=1e-4, atol=1e-9)
        torch.testing.assert_close(square, state["exp_avg_sq"], rtol=1e-4, atol=1e-18)
        assert power1 == pytest.approx(0.9**30)
        assert power2 == pytest.approx(0.999**30)


def test_adams_of_an_agent_count_their_own_steps():
    """A step of one leaves the others' state as it is; all have the agent's learning rate."""
    agent = sac_agent(seeds=1, alpha="auto", learning_rate=0.02)
    loss = agent.temperature.log_alpha.flatten()
    agent.temperature.adam.step(loss)
    agent.temperature.adam.step(loss.clone())
    torch.testing.assert_close(agent.temperature.log_alpha.item(), -0.04)
    assert agent.temperature.adam.powers0[0].item() == pytest.approx(0.81)
    for adam in (agent.actor_adam, agent.qf_adam):
        assert adam.learning_rate == 0.02
        assert adam.powers0.eq(1).all()


# Seeds side by side


@pytest.mark.parametrize(
    "fields",
    [{}, {"backprop": "all", "alpha": "auto"}, {"entropy": "mixture", "alpha": "auto"}],
    ids=str,
)
def test_a_seed_learns_the_same_alone_as_among_others(fields):
    together = sac_agent(seeds=3, **fields)
    alone = Agent(together.args, 4, 2, Philox([1]))
    for i in range(20):
        batch = sac_batch(seeds=3, seed=i)
        normal, uniform = sac_noise(together, 64, i)
        together.update(batch, normal, uniform)
        its_batch = type(batch)(*[field[1:2] for field in batch])
        alone.update(its_batch, normal[1:2], uniform[1:2])

    state = alone.state_dict()
    for name, x in together.state_dict().items():
        if x.dim() > 1:  # Adam's powers are of no seed
            x = x.unflatten(0, (3, -1))[1]
        torch.testing.assert_close(x, state[name], rtol=1e-4, atol=1e-5, msg=name)
