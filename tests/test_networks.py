"""PMOE-PPO's networks as printed, separate and released, and the options of the released code: a whole update
against one written here with torch's own layers, distributions, optimiser and gradient clipping."""

import json

import pytest
import torch
from common import MODULES, SHORT, checkpoint, rows_of, train
from ppo_agents import one_of, perturb, ppo_agent, ppo_batch, ppo_noise, steps_of
from torch import distributions as D
from torch import nn
from torch.nn.functional import mse_loss, one_hot

from pmoe import pmoe_ppo
from pmoe.algorithms import ALGORITHMS
from pmoe.baselines import mcp_ppo
from pmoe.plots.policies import make_envs, trained
from pmoe.plots.runs import find
from pmoe.pmoe_ppo import Drawn, Rollout

NETWORKS = ["printed", "separate", "released"]
each_networks = pytest.mark.parametrize("networks", NETWORKS)


def critic_of(network, printed: bool) -> nn.Module:
    if printed:
        return one_of(network)
    fc1, _, fc2, _, fc3 = network
    return nn.Sequential(one_of(fc1), nn.Tanh(), one_of(fc2), nn.Tanh(), one_of(fc3))


class Published:
    """PMOE-PPO of one seed"""

    def __init__(self, agent):
        actor = agent.actor
        self.args = agent.args
        self.printed = agent.args.networks == "printed"
        activation = nn.ReLU if self.printed else nn.Tanh
        self.trunk = nn.Sequential(one_of(actor.fc1), activation(), one_of(actor.fc2), activation())
        head = one_of(actor.mean)
        self.mean = nn.Sequential(head, nn.Tanh()) if self.printed else head
        self.router = nn.Sequential(one_of(actor.router), nn.Softmax(-1))
        self.log_std = nn.Parameter(actor.log_std[0].detach().clone())
        self.value = critic_of(agent.vf, self.printed)
        self.q = critic_of(agent.qf, self.printed)

        of_policy = nn.ModuleList([self.trunk, self.mean, self.router, self.value])
        self.learnt = [*of_policy.parameters(), self.log_std]
        of_q = list(self.q.parameters())
        groups = [self.learnt + of_q] if self.args.joint_step else [self.learnt, of_q]
        self.groups = groups
        self.adams = [torch.optim.Adam(group, 0.01, eps=1e-5) for group in groups]

    def update(self, batch, noise) -> None:
        obs, action = batch.obs[0], batch.action[0]
        advantage, returns = batch.advantage.flatten(), batch.returns.flatten()
        k = self.args.k
        x = self.trunk(obs)
        routed = obs if self.args.networks == "released" else x.detach()
        w = self.router(routed)
        mean = self.mean(x).unflatten(-1, (k, -1))
        gaussians = D.Independent(D.Normal(mean, self.log_std.exp().expand_as(mean)), 1)
        policy = D.MixtureSameFamily(D.Categorical(w), gaussians)

        ratio = (policy.log_prob(action) - batch.log_prob.flatten()).exp()
        advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
        surrogate = torch.min(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage)

        seen = x if self.printed else obs
        value_loss = 0.5 * mse_loss(self.value(seen).flatten(), returns)
        seen = seen.detach()
        q_loss = 0.5 * mse_loss(self.q(torch.cat([seen, action], -1)).flatten(), returns)
        with torch.no_grad():
            proposed = mean + self.log_std.exp() * noise[0]
            q = [self.q(torch.cat([seen, proposed[:, i]], -1)) for i in range(k)]
            best = torch.cat(q, -1).argmax(-1)
        # The released code's mean over primitives, times K
        frequency = k * mse_loss(w, one_hot(best, k).to(w.dtype))

        loss = -surrogate.mean() + 0.5 * value_loss
        if k > 1:
            loss = loss + self.args.freq_coef * frequency + q_loss
        for parameter in [*self.learnt, *self.q.parameters()]:
            parameter.grad = torch.zeros_like(parameter)
        loss.backward()
        for group, adam in zip(self.groups, self.adams):
            nn.utils.clip_grad_norm_(group, self.args.max_grad_norm)
            adam.step()


@each_networks
@pytest.mark.parametrize("joint_step", [False, True])
@pytest.mark.parametrize("k", [1, 3])
def test_an_update_is_that_of_torch(networks, k, joint_step):
    """With one primitive that is PPO's, whose router and Q learn nothing."""
    options = {"networks": networks, "joint_step": joint_step, "freq_coef": 0.7, "max_grad_norm": 1.5}
    agent = perturb(ppo_agent(k=k, seeds=1, **options).double())
    agent.rate.fill_(0.01)
    published = Published(agent)
    for seed in range(5):
        batch = ppo_batch(agent, seed=seed)
        noise, _ = ppo_noise(agent, 32, seed)
        agent.update(batch, noise)
        published.update(batch, noise)

    def same(layer, linear):
        torch.testing.assert_close(layer.weight[0].T, linear.weight, rtol=1e-6, atol=1e-9)

    actor = agent.actor
    same(actor.fc1, published.trunk[0])
    same(actor.fc2, published.trunk[2])
    same(actor.mean, published.mean[0] if networks == "printed" else published.mean)
    same(actor.router, published.router[0])
    torch.testing.assert_close(actor.log_std[0], published.log_std, rtol=1e-6, atol=1e-9)
    for ours, theirs in [(agent.vf, published.value), (agent.qf, published.q)]:
        if networks == "printed":
            same(ours, theirs)
        else:
            same(ours[0], theirs[0])
            same(ours[4], theirs[4])


def test_the_printed_value_trains_the_trunk_and_the_printed_q_only_itself():
    agent = perturb(ppo_agent(networks="printed"))
    batch = ppo_batch(agent)
    noise, _ = ppo_noise(agent, 32)
    of_q, step = steps_of(agent, batch, noise)
    assert set(of_q.gradients) == {"qf.weight", "qf.bias"}
    _, other = steps_of(agent, batch._replace(returns=batch.returns + 1), noise)
    changed = {name for name in step.gradients if not step.gradients[name].equal(other.gradients[name])}
    trunk = {f"actor.{layer}.{part}" for layer in ("fc1", "fc2") for part in ("weight", "bias")}
    assert changed == trunk | {"vf.weight", "vf.bias"}


def test_the_released_router_is_linear_in_the_observation():
    """Logits at the sum of two observations are the sum of the logits, but for the bias."""
    agent = perturb(ppo_agent(networks="released").double())
    a, b = torch.randn(2, 2, 8, 4, dtype=torch.float64)
    logits = [agent.actor(x)[2] for x in (a, b, a + b, 0 * a)]
    # Log-probabilities are logits up to a number that all primitives share.
    first, second, both, none = [x - x[..., :1] for x in logits]
    torch.testing.assert_close(first + second, both + none)


@pytest.mark.parametrize("bootstrap", [True, False])
def test_a_time_limit_counts_as_asked(monkeypatch, bootstrap):
    agent = ppo_agent(bootstrap=bootstrap)
    seen = []

    def look(reward, value, next_value, terminated, done, gamma, gae_lambda):
        seen.append(terminated)
        return torch.zeros_like(reward)

    monkeypatch.setattr(pmoe_ppo, "gae", look)
    rollout = rollout_of(agent)
    agent.estimate(rollout)
    assert seen[0].equal(rollout.terminated if bootstrap else rollout.done)
    assert not rollout.terminated.equal(rollout.done)


def rollout_of(agent):
    """Six steps of each seed's environment: one episode is terminated, another reaches its time limit"""
    generator = torch.Generator().manual_seed(1)

    def normal(width):
        return torch.randn(2, 6, 1, width, generator=generator)

    terminated = torch.zeros(2, 6, 1, 1)
    terminated[:, 1] = 1
    done = terminated.clone()
    done[:, 4] = 1
    drawn = Drawn(normal(4), normal(2), torch.zeros(2, 6, 1, 1), normal(1))
    return Rollout(drawn, normal(4), normal(1), terminated, done)


def test_with_one_primitive_q_learns_in_no_step():
    """There is nothing to route, and the joint step asks for no gradient of Q."""
    agent = ppo_agent(k=1, joint_step=True)
    before = agent.qf[0].weight.clone()
    noise, _ = ppo_noise(agent, 32)
    agent.update(ppo_batch(agent), noise)
    assert agent.qf[0].weight.equal(before)


def test_mcp_has_the_printed_networks_too():
    """A trunk of ReLU, a tanh on the means, V one layer on the trunk, which it trains"""
    args = mcp_ppo.Args(k=3, networks="printed")
    agent = perturb(mcp_ppo.Agent(args, 4, 2, mcp_ppo.Philox([1, 2])))
    actor = agent.actor
    obs = torch.randn(2, 8, 4)
    x = torch.relu(torch.baddbmm(actor.fc1.bias, obs, actor.fc1.weight))
    x = torch.relu(torch.baddbmm(actor.fc2.bias, x, actor.fc2.weight))
    mean, _, _ = actor(obs)
    head = torch.baddbmm(actor.mean.bias, x, actor.mean.weight)
    torch.testing.assert_close(mean.flatten(2), head.tanh())
    value = agent.vf(agent.critic_input(obs))
    torch.testing.assert_close(value, torch.baddbmm(agent.vf.bias, x, agent.vf.weight))
    (gradient,) = torch.autograd.grad(value.sum(), actor.fc1.weight)
    assert gradient.any()


def test_runs_that_do_not_name_their_networks_have_separate_ones(tmp_path):
    """As all had before there were others: they are evaluated, and are another method than the default's."""
    old, new = train("ppo", tmp_path / "old", networks="separate") + train("ppo", tmp_path / "new")
    config = json.loads((old / "config.json").read_text())
    del config["args"]["networks"]
    (old / "config.json").write_text(json.dumps(config))
    runs, _ = find([old, new])
    methods = [run.method for run in runs]
    assert methods == ["PMOE-PPO K=2 networks=separate", "PMOE-PPO K=2 networks=printed"]
    _, actor = trained(runs[0])
    assert actor.networks == "separate"


@pytest.mark.parametrize("algo, networks", [("ppo", "printed"), ("ppo", "released"), ("mcp-ppo", "printed")])
def test_a_run_is_evaluated_with_the_networks_it_has(tmp_path, algo, networks):
    """`pmoe eval` loads the policy anew, and gives the last evaluation again."""
    (path,) = train(algo, tmp_path, networks=networks)
    last = rows_of(path / "eval.csv")[-1]
    (run,) = find([path])[0]
    envs = make_envs(run, int(last["episodes"]))
    step, actor = trained(run)
    returns = envs.evaluate(actor.act, [run.seed], step)[0]
    assert f"{returns.mean():.4f}" == f"{float(last['return_mean']):.4f}"


@pytest.mark.parametrize("algo", ALGORITHMS)
def test_hidden_is_the_width_of_every_network(tmp_path, algo):
    steps = SHORT[algo].get("num_steps", 1)
    [path] = train(algo, tmp_path, hidden=7, total_timesteps=steps, eval_episodes=1)
    actor = MODULES[algo].load_actor(path)
    assert actor.act(torch.zeros(1, 1, 3)).shape == (1, 1, 1)
    learnt = checkpoint(path)["learnt"]
    layers = {name: x.shape[-2:] for name, x in learnt.items() if name.endswith(".weight")}
    assert len(layers) >= 5
    # An implicit policy reads 16 numbers of noise beside the state.
    widest = 19 if algo == "amortized-sac" else 8
    for name, sizes in layers.items():
        # Q of the printed networks reads the trunk and an action, of size 1.
        assert 7 in sizes or sizes == (7 + 1, 1), name
        assert max(sizes) <= widest, name
