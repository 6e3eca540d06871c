"""What the tests of the baselines share: agents of any algorithm file."""

import torch


def label(x) -> str:
    """How a module, or fields of Args, are called in a test's name"""
    if isinstance(x, dict):
        return "-".join(map(str, x.values()))
    return x.__name__.split(".")[-1]


def make_agent(module, k=3, seeds=(0, 1), obs_size=4, action_size=2, **fields):
    """An agent whose primitives differ, as those of PPO do not at first"""
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    args = module.Args(k=k, **fields)
    agent = module.Agent(args, obs_size, action_size, generators)
    for name, parameter in agent.actor.named_parameters():
        if "bias" in name:
            networks, *shape = parameter.shape
            each = networks // len(seeds)
            noise = [torch.randn(each, *shape, generator=generator) for generator in generators]
            parameter.data += torch.cat(noise)
    return agent


def close(a, b, rtol=1e-7, atol=1e-9) -> None:
    torch.testing.assert_close(a, b, rtol=rtol, atol=atol)
