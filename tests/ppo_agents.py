"""What the tests of pmoe_ppo.py share: agents, what they draw, and minibatches."""

from typing import NamedTuple

import pytest
import torch
from common import SHORT
from torch import Tensor, nn
from torch import distributions as D

from pmoe.pmoe_ppo import Adam, Agent, Args, Batch, Philox

BOTH = pytest.mark.parametrize("surrogate", ["mixture", "primitive"])


def ppo_agent(k=3, seeds=2, obs_size=4, action_size=2, **fields) -> Agent:
    """An agent of several seeds, 0, 1, ..., whose V and Q have networks of their own; of the printed networks
    there are tests in test_networks.py"""
    fields = {**SHORT["ppo"], "k": k, "networks": "separate", **fields}
    args = Args(**fields)
    return Agent(args, obs_size, action_size, Philox(range(seeds)))


def ppo_noise(agent, n, seed=0) -> tuple[torch.Tensor, torch.Tensor]:
    """What `Philox.noise` gives for n states of each seed: normal (S, n, K, A) and uniform (S, n, K)"""
    seeds, k, action_size = agent.actor.log_std.shape
    dtype = agent.actor.log_std.dtype
    generator = torch.Generator().manual_seed(seed)
    normal = torch.randn(seeds, n, k, action_size, generator=generator, dtype=dtype)
    uniform = torch.rand(seeds, n, k, generator=generator, dtype=dtype)
    return normal, uniform


def ppo_batch(agent, n=32, seed=0) -> Batch:
    """What the agent draws and says of random observations, with random advantages and returns"""
    seeds, obs_size, _ = agent.actor.fc1.weight.shape
    dtype = agent.actor.log_std.dtype
    generator = torch.Generator().manual_seed(seed)

    def normal(width):
        return torch.randn(seeds, n, width, generator=generator, dtype=dtype)

    obs = normal(obs_size)
    drawn = agent.draw(obs, *ppo_noise(agent, n, seed))
    advantage = 3 * normal(1)
    returns = 3 * normal(1)
    return Batch(*drawn, advantage, returns)


def perturb(agent, size=0.3) -> Agent:
    """Moves an agent from where it began, where router and means are next to 0."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in agent.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
            parameter.add_(size * noise)
    return agent


def torch_mixture(agent, obs) -> D.MixtureSameFamily:
    """The same policy built from torch.distributions, of normalised observations"""
    mean, log_std, log_w = agent.actor(obs)
    std = log_std.exp().expand_as(mean)
    gaussians = D.Independent(D.Normal(mean, std), 1)
    router = D.Categorical(logits=log_w)
    return D.MixtureSameFamily(router, gaussians)


def torch_log_prob(agent, obs, action, primitive) -> torch.Tensor:
    """What `Agent.log_prob` says, by torch.distributions: (S, B, 1)"""
    mixture = torch_mixture(agent, obs)
    if agent.args.surrogate == "mixture":
        return mixture.log_prob(action).unsqueeze(-1)
    gaussians = mixture.component_distribution
    of_primitives = gaussians.log_prob(action.unsqueeze(2))
    return of_primitives.gather(-1, primitive.long())


class Step(NamedTuple):
    """What Adam is asked to do"""

    loss: float
    gradients: dict[str, Tensor]


def steps_of(agent, batch, normal) -> tuple[Step, Step]:
    """That of Q, and that of policy and value, in an update; which changes nothing here"""
    names = {id(parameter): name for name, parameter in agent.named_parameters()}
    steps = []

    def look(adam, loss, rate):
        assert rate is agent.rate
        total = loss.sum()
        gradients = torch.autograd.grad(total, adam.learnt, retain_graph=True)
        of_names = {names[id(parameter)]: x for parameter, x in zip(adam.learnt, gradients)}
        step = Step(total.item(), of_names)
        steps.append(step)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Adam, "step", look)
        agent.update(batch, normal)
    of_q, of_policy = steps
    return of_q, of_policy


def one_of(layer) -> nn.Linear:
    """A copy, as torch's own layer, of the first of the layers that stand side by side"""
    _, inputs, outputs = layer.weight.shape
    linear = nn.Linear(inputs, outputs, dtype=layer.weight.dtype)
    with torch.no_grad():
        linear.weight.copy_(layer.weight[0].T)
        linear.bias.copy_(layer.bias[0, 0])
    return linear
