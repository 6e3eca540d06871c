"""What the tests of PPO and its baselines share: agents, what they draw, minibatches, a random world."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from pmoe import pmoe_ppo


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def close(a, b, rtol=1e-7, atol=1e-9) -> None:
    torch.testing.assert_close(a, b, rtol=rtol, atol=atol)


def random_normal(*shape) -> Tensor:
    return torch.randn(*shape, generator=generator(0), dtype=torch.float64)


# Agents


def make_agent(module=pmoe_ppo, k=3, seeds=(0, 1), obs_size=4, action_size=2, **fields):
    """An agent of an algorithm file of PPO's family"""
    fields = {"num_steps": 50, "minibatch_size": 25, "update_epochs": 2, **fields}
    args = module.Args(k=k, **fields)
    return module.Agent(args, obs_size, action_size, module.Philox(seeds))


def make_various(module, seeds=(0, 1), **fields):
    """The same, in double precision, with primitives that differ, which at first they hardly do"""
    agent = make_agent(module, seeds=seeds, **fields)
    generators = [generator(seed) for seed in seeds]
    for name, parameter in agent.actor.named_parameters():
        if "bias" in name:
            networks, *shape = parameter.shape
            each = networks // len(seeds)
            noise = [torch.randn(each, *shape, generator=g) for g in generators]
            parameter.data += torch.cat(noise)
    return agent.double()


def sizes_of(agent) -> tuple[int, int, torch.dtype]:
    """Seeds, size of an action, precision"""
    actor = agent.actor
    parameter = actor.log_std if hasattr(actor, "log_std") else actor.std
    seeds, _, action_size = parameter.shape
    return seeds, action_size, parameter.dtype


def noise(agent, n, seed=0) -> tuple[Tensor, Tensor]:
    """For n states of each seed: normal (S, n, J, A) and uniform (S, n, J)"""
    seeds, action_size, dtype = sizes_of(agent)
    g = generator(seed)
    normal = torch.randn(seeds, n, agent.draws, action_size, generator=g, dtype=dtype)
    uniform = torch.rand(seeds, n, agent.draws, generator=g, dtype=dtype)
    return normal, uniform


def one_of(layer, n=0) -> nn.Linear:
    """A copy, as torch's own layer, of the n-th of the layers that stand side by side"""
    _, inputs, outputs = layer.weight.shape
    linear = nn.Linear(inputs, outputs, dtype=layer.weight.dtype)
    with torch.no_grad():
        linear.weight.copy_(layer.weight[n].T)
        linear.bias.copy_(layer.bias[n, 0])
    return linear


def one_mlp(mlp, n=0) -> nn.Sequential:
    """The same of a whole network"""
    fc1, _, fc2, _, fc3 = mlp
    layers = [one_of(layer, n) for layer in (fc1, fc2, fc3)]
    return nn.Sequential(layers[0], nn.Tanh(), layers[1], nn.Tanh(), layers[2])


def same_layer(layer, linear, rtol=1e-6, atol=1e-9) -> None:
    """Asserts that the first of the layers side by side is torch's."""
    close(layer.weight[0].T, linear.weight, rtol=rtol, atol=atol)
    close(layer.bias[0, 0], linear.bias, rtol=rtol, atol=atol)


# A random world


class World(NamedTuple):
    """What a world answers in a rollout, and the noise that an agent takes; all (S, T, E, .)"""

    obs: Tensor  # at an episode's start
    next_obs: Tensor
    reward: Tensor
    terminated: Tensor
    truncated: Tensor
    normal: Tensor
    uniform: Tensor


def make_world(seeds=2, envs=2, length=16, draws=1) -> World:
    g = generator(0)
    shape = (seeds, length, envs)

    def normal(*size):
        return torch.randn(*shape, *size, generator=g, dtype=torch.float64)

    def happens():
        return (torch.rand(*shape, 1, generator=g) < 0.15).double()

    uniform = torch.rand(*shape, draws, generator=g, dtype=torch.float64)
    return World(normal(4), normal(4), normal(1), happens(), happens(), normal(draws, 2), uniform)


def of_seeds(fields, first: int, last: int):
    """The part of some seeds: of a world, rollout or batch"""
    return type(fields)(*[field[first:last] for field in fields])


def at(fields, t: int):
    """Step t of a world"""
    return type(fields)(*[field[:, t] for field in fields])


def stack(module, steps):
    """Steps (S, E, .) -> (S, T, E, .)"""
    return module.Drawn(*[torch.stack(field, 1) for field in zip(*steps)])


def collect(module, agent, world: World):
    """A rollout as `train` makes it, and the observations seen (S, T, E, O)"""
    obs = world.obs[:, 0]
    drawn = []
    seen = []
    done = world.terminated.maximum(world.truncated)
    for t in range(world.obs.shape[1]):
        now = at(world, t)
        drawn.append(agent.draw(obs, now.normal, now.uniform))
        seen.append(obs)
        if hasattr(agent, "option"):
            agent.option.masked_fill_(done[:, t] > 0, -1)
        obs = torch.where(done[:, t] > 0, now.obs, now.next_obs)
    rollout = module.Rollout(stack(module, drawn), world.next_obs, world.reward, world.terminated, done)
    return rollout, torch.stack(seen, 1)


def learn_from(module, agent, world: World):
    """The batch of a rollout in a world"""
    rollout, _ = collect(module, agent, world)
    batch, _ = agent.estimate(rollout)
    return batch


def random_minibatches(batch, n, size=16) -> list:
    """n minibatches of steps drawn at random, the same for every seed"""
    g = generator(0)
    drawn = []
    for _ in range(n):
        index = torch.randint(batch.obs.shape[1], (size,), generator=g)
        drawn.append(type(batch)(*[field[:, index] for field in batch]))
    return drawn
