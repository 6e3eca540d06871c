"""The implicit policy: what it makes of noise, its diversity against loops and differences, losses, modes."""

import math

import numpy as np
import pytest
import torch
from agents import close, is_finite, learning, learns_the_same_alone, make_agent, target_is
from common import failed, refused, sac_batch, train
from common_figures import close as near
from torch import nn
from torch.distributions import Normal

from pmoe.baselines import amortized_sac
from pmoe.baselines.amortized_sac import diversity, vectors
from pmoe.plots import modes, policies, runs


def noise_of(agent, n, action_size=2, seed=0) -> tuple[torch.Tensor, torch.Tensor]:
    """What `Philox.noise` gives for n states of each seed; of its uniform numbers none is used"""
    generator = torch.Generator().manual_seed(seed)
    seeds, _, _ = agent.temperature.log_alpha.shape
    shape = (seeds, n, agent.draws)
    dtype = agent.temperature.log_alpha.dtype
    normal = torch.randn(*shape, action_size, generator=generator, dtype=dtype)
    return normal, torch.zeros(shape)


def z_of(noise: torch.Tensor, k: int) -> torch.Tensor:
    """Of one state: uniform numbers of the normal ones (J, A), those of each of K actions side by side"""
    return Normal(0.0, 1.0).cdf(noise).reshape(k, -1)


def made_by(network, obs: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
    """Of one state (O,) and K of z (K, Z), before the tanh"""
    states = obs.expand(len(z), -1)
    x = torch.cat([states, z], -1)
    return network(x)


def plain(actor, s) -> nn.Sequential:
    """The network of seed s, as torch's own layers"""
    layers = []
    for layer in (actor.fc1, actor.fc2, actor.mean):
        _, inputs, outputs = layer.weight.shape
        linear = nn.Linear(inputs, outputs, dtype=layer.weight.dtype)
        with torch.no_grad():
            linear.weight.copy_(layer.weight[s].T)
            linear.bias.copy_(layer.bias[s, 0])
        layers += [linear, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def by_loops(actions: torch.Tensor) -> float:
    """D of K actions (K, A)"""
    actions = actions.tolist()
    logs = []
    for i in range(len(actions)):
        for j in range(i):
            distance = math.dist(actions[i], actions[j])
            logs.append(math.log(distance + 1e-5))
    return sum(logs) / len(logs)


# Diversity


@pytest.mark.parametrize("k, action_size", [(2, 1), (4, 1), (5, 3)])
def test_diversity_is_the_mean_over_all_pairs(k, action_size):
    generator = torch.Generator().manual_seed(0)
    action = torch.rand(2, 3, k, action_size, generator=generator, dtype=torch.float64)
    d = diversity(action)
    assert d.shape == (2, 3, 1)
    for s in range(2):
        for b in range(3):
            expected = by_loops(action[s, b])
            close(d[s, b, 0].item(), expected)


def test_diversity_of_corners():
    """Opposite corners are 2 sqrt(A) apart."""
    action = torch.tensor([[[[1.0, 1.0, 1.0], [-1.0, -1.0, -1.0]]]])
    assert diversity(action).exp().item() == pytest.approx(2 * math.sqrt(3), rel=1e-4)


def test_its_gradient_is_that_of_finite_differences():
    generator = torch.Generator().manual_seed(1)
    action = torch.rand(1, 1, 4, 2, generator=generator, dtype=torch.float64).requires_grad_()
    (gradient,) = torch.autograd.grad(diversity(action).sum(), action)
    step = 1e-6
    for k in range(4):
        for i in range(2):
            ends = []
            for move in (step, -step):
                moved = action[0, 0].detach().clone()
                moved[k, i] += move
                ends.append(by_loops(moved))
            difference = (ends[0] - ends[1]) / (2 * step)
            found = gradient[0, 0, k, i].item()
            assert found == pytest.approx(difference, rel=1e-5)


def test_actions_that_are_the_same_have_a_finite_gradient():
    """Where the tanh saturates, float32 knows no difference."""
    agent = make_agent(amortized_sac)
    agent.actor.mean.bias.data += 50
    loss, d, _ = agent.policy_loss(torch.randn(2, 8, 4), *noise_of(agent, 8), 0.2)
    assert d.min().item() == pytest.approx(-math.log(1e-5))
    assert is_finite(agent, loss)


# The policy


@pytest.mark.parametrize("action_size", [1, 2, 3, 16, 17])
def test_z_has_16_numbers_or_a_few_more(action_size):
    size = vectors(action_size) * action_size
    assert 16 <= size < 16 + action_size


def test_an_action_is_a_network_of_state_and_noise():
    agent = make_agent(amortized_sac, k=3).double()
    obs = torch.randn(2, 5, 4, dtype=torch.float64)
    noise, uniform = noise_of(agent, 5)
    action, _ = agent.propose(obs, noise)
    assert action.shape == (2, 5, 3, 2)
    for s in range(2):
        network = plain(agent.actor, s)
        for b in range(5):
            z = z_of(noise[s, b], 3)
            expected = made_by(network, obs[s, b], z).tanh()
            close(action[s, b], expected)
    drawn, _ = agent.draw(obs, noise, uniform)
    assert torch.equal(drawn, action[:, :, :1])


def test_evaluation_takes_the_first_z_that_is_kept_or_another():
    agent = make_agent(amortized_sac, k=3)
    obs = torch.randn(2, 5, 4)
    mean, log_std, log_w = agent.actor(obs)
    assert mean.shape == log_std.shape == (2, 5, 3, 2)
    close(log_w.exp().sum(-1), torch.ones(2, 5), rtol=1e-6)
    close(agent.actor.act(obs), mean[:, :, 0].tanh(), rtol=1e-6)

    def third(log_w):
        return torch.full_like(log_w[..., :1], 2, dtype=int)

    close(agent.actor.act(obs, third), mean[:, :, 2].tanh(), rtol=1e-6)
    for s in range(2):
        z = agent.actor.kept[s]
        assert 0 < z.min() < 0.2
        assert 0.8 < z.max() < 1
        expected = made_by(plain(agent.actor, s), obs[s, 0], z)
        close(mean[s, 0], expected, rtol=1e-5, atol=1e-6)
    learnt = dict(agent.actor.named_parameters())
    assert "kept" not in learnt


# Losses


def learn(agent, obs, updates: int) -> dict:
    """Updates of policy and temperature alone; the figures of the last"""
    _, n, _ = obs.shape
    action_size = agent.actor.mean.bias.shape[-1]
    for i in range(updates):
        noise = noise_of(agent, n, action_size, seed=i)
        alpha = agent.temperature.log_alpha.detach().exp()
        loss, minus_d, figures = agent.policy_loss(obs, *noise, alpha)
        agent.actor_adam.step(loss)
        agent.temperature.adam.step(agent.temperature.loss(minus_d))
    return figures


@torch.no_grad()
def acted(agent, obs) -> torch.Tensor:
    """New actions in these states"""
    _, n, _ = obs.shape
    action_size = agent.actor.mean.bias.shape[-1]
    noise, _ = noise_of(agent, n, action_size, seed=999)
    action, _ = agent.propose(obs, noise)
    return action


def valley(obs, action):
    """A critic whose twins differ, so that their minimum counts: (S, B, J, A) -> (S, 2, B, J)"""
    q = -(action - 0.3).square().sum(-1)
    return torch.stack([q, 2 * q], 1)


def test_the_loss_and_its_gradient_by_hand():
    agent = make_agent(amortized_sac, seeds=[0], k=4).double()
    agent.qf.forward = valley
    obs = torch.randn(1, 6, 4, dtype=torch.float64)
    noise, uniform = noise_of(agent, 6)
    loss, minus_d, figures = agent.policy_loss(obs, noise, uniform, 0.7)
    (gradient,) = torch.autograd.grad(loss.sum(), agent.actor.mean.weight)

    network = plain(agent.actor, 0)
    total = 0.0
    logs = []
    for b in range(6):
        z = z_of(noise[0, b], 4)
        action = made_by(network, obs[0, b], z).tanh()
        q = -2 * (action - 0.3).square().sum(-1)  # the lower of the twins
        distance = torch.pdist(action) + 1e-5
        d = distance.log().mean()
        total = total - (q.mean() + 0.7 * d) / 6
        logs.append(d.item())
    close(loss.squeeze(), total)
    expected = -torch.tensor(logs, dtype=torch.float64)
    close(minus_d.flatten(), expected)
    close(figures["losses/distance"].item(), math.exp(np.mean(logs)))
    (expected,) = torch.autograd.grad(total, network[-1].weight)
    close(gradient[0].T, expected)


@pytest.mark.parametrize("alpha, value", [(0.5, 0.5), ("auto", 1.0)])
def test_the_target_has_the_diversity_in_the_entropy_s_place(alpha, value):
    agent = make_agent(amortized_sac, gamma=0.9, alpha=alpha).double()
    batch = sac_batch(seeds=2, dtype=torch.float64)
    normal, uniform = noise_of(agent, 64)
    next_actions, _ = agent.propose(batch.next_obs, normal[:, :32])
    d = torch.zeros(2, 32, 1, dtype=torch.float64)
    for s in range(2):
        for b in range(32):
            d[s, b] = by_loops(next_actions[s, b])
    target_is(agent, batch, (normal, uniform), 10 + value * d)


@pytest.mark.parametrize("action_size", [1, 3])
@pytest.mark.parametrize("beta", [0.1, 0.4])
def test_alpha_rises_where_actions_are_too_near_and_falls_where_they_are_too_far(action_size, beta):
    agent = make_agent(amortized_sac, action_size=action_size, beta=beta)
    wanted = math.log(beta * math.sqrt(action_size))
    for offset in (-0.3, 0.0, 0.3):
        d = torch.full((2, 8, 1), wanted + offset)
        loss = agent.temperature.loss(-d)
        (gradient,) = torch.autograd.grad(loss.sum(), agent.temperature.log_alpha)
        # Of alpha (D - wanted), alpha = 1: its descent
        close(gradient, torch.full_like(gradient, offset), rtol=1e-4, atol=1e-6)


def test_the_temperature_holds_the_distance():
    """Against a critic that draws all actions to one place"""
    agent = make_agent(amortized_sac, seeds=[0], k=6, alpha="auto", beta=0.3, learning_rate=5e-3)
    agent.qf.forward = valley
    obs = torch.zeros(1, 16, 4)
    figures = learn(agent, obs, 400)
    distance = figures["losses/distance"].item()
    assert distance == pytest.approx(0.3 * math.sqrt(2), rel=0.15)
    action = acted(agent, obs)
    near(action.mean((0, 1, 2)), 0.3, 0.1)


def two_peaks(obs, action):
    """As good at -0.5 as at 0.5"""
    a = action.squeeze(-1)
    away = a.abs() - 0.5
    q = (-20 * away.square()).exp()
    return torch.stack([q, q], 1)


def test_it_keeps_two_modes():
    """Without a primitive for each"""
    agent = make_agent(amortized_sac, seeds=[0], k=6, action_size=1, alpha="auto", beta=0.3)
    agent.qf.forward = two_peaks
    obs = torch.zeros(1, 16, 4)
    learn(agent, obs, 500)
    a = acted(agent, obs).flatten()
    right = (a > 0.25).float().mean()
    left = (a < -0.25).float().mean()
    assert min(left, right) > 0.2
    assert left + right > 0.6


def test_the_whole_actor_learns_from_the_policy_loss():
    agent = make_agent(amortized_sac, alpha="auto")
    learnt = {name.partition(".")[0] for name, _ in agent.named_parameters()}
    assert learnt == {"actor", "qf", "temperature"}
    loss, _, figures = agent.policy_loss(torch.randn(2, 8, 4), *noise_of(agent, 8), 0.2)
    assert learning(loss.sum(), agent.actor) == {"fc1", "fc2", "mean"}
    assert {figure.shape for figure in figures.values()} == {(2,)}


def test_a_seed_learns_the_same_alone_as_among_others():
    learns_the_same_alone(amortized_sac, noise_of)


def test_beta_s_limit_is_the_distance_of_actions_of_the_arcsine_law():
    """In one dimension none that are drawn alike are farther apart: 1/2 on average."""
    generator = torch.Generator().manual_seed(0)
    angle = math.pi * torch.rand(1, 400, 200, 1, generator=generator)
    distance = diversity(angle.cos()).mean().exp().item()
    assert distance == pytest.approx(0.5, rel=0.01)


# Command line, and figures


@pytest.mark.parametrize(
    "words, message",
    [
        ("--env Pendulum-v1 --k 1", "--k must be at least 2"),
        ("--env Pendulum-v1 --beta 0", "--beta must be above 0"),
        ("--env Pendulum-v1 --beta 0.5", "--beta must be below 0.5 for actions of one number, not 0.5"),
        ("--env Bumps-v0 --beta 1.42", "--beta must be above 0 and below 1.41, not 1.42"),
        ("--env Bumps-v0 --alpha-learning-rate 2", "--alpha-learning-rate must be from 0 to 1, not 2"),
    ],
)
def test_bad_values_are_one_line(pmoe_here, tmp_path, words, message):
    refused(pmoe_here("run", "amortized-sac", *words.split()), message)
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def bandit(tmp_path_factory):
    """A run on a bandit of one dimension, and one on its like of two; not to be changed"""
    root = tmp_path_factory.mktemp("bandit")
    for env_id in ("Bimodal-v0", "Bumps-v0"):
        train("amortized-sac", root, env_id=env_id, total_timesteps=200)
    return root


@pytest.mark.parametrize("figure", ["routing", "primitives", "tsne"])
def test_figures_of_primitives_say_that_it_has_none(pmoe_here, bandit, figure):
    result = pmoe_here("plot", bandit, f"--{figure}")
    failed(result, "Amortized", "its policy is not shown, as it is implicit and has no primitives")


@pytest.mark.parametrize("words", [("--primitive", "1"), ("--routing", "sample"), ("--routing", "mean")])
def test_an_evaluation_by_primitives_is_refused(pmoe_here, bandit, words):
    result = pmoe_here("eval", bandit / "Bimodal-v0", *words, "--episodes", "2")
    refused(result, " ".join(words), "has no primitives")


def test_modes_are_those_of_its_episodes(bandit):
    for run in runs.find([bandit])[0]:
        measured, steps = modes.measure(run, 50)
        assert policies.primitive_count(run) == 0
        assert len(measured.ends) == 50
        assert len(measured.alone) == 0
        assert np.isnan([measured.information, measured.q_ratio, measured.sigma[0]]).all()
        assert len(np.unique(steps.action)) > 40  # drawn as in training


def test_modes_are_drawn_without_primitives(pmoe_here, bandit, tmp_path):
    result = pmoe_here("plot", bandit, "--modes", "--episodes", "20")
    assert result.returncode == 0, result.stderr
    assert list(tmp_path.glob("figures/modes-Bumps*.png"))
    assert "Amortized" in (tmp_path / "figures/modes.md").read_text()


def test_a_grid_knows_beta_s_range(pmoe_here, tmp_path):
    (tmp_path / "grid.toml").write_text('env = "Bumps-v0"\n[[method]]\nalgo = "amortized-sac"\nbeta = 5.0\n')
    refused(pmoe_here("grid", "grid.toml", "--dry-run"), "--beta must be above 0 and below 1.41")


def test_beta_has_no_say_where_alpha_is_fixed(tmp_path):
    (path,) = train("amortized-sac", tmp_path, env_id="Pendulum-v1", alpha=0.2, beta=0.9)
    assert (path / "done.json").exists()
