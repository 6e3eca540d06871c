"""What the tests of the baselines share: agents of any algorithm file, and what is asserted of them."""

import torch
from common import sac_batch


def label(x) -> str:
    """How a module, or fields of Args, are called in a test's name"""
    if isinstance(x, dict):
        return "-".join(map(str, x.values()))
    return x.__name__.split(".")[-1]


def make_agent(module, k=3, seeds=(0, 1), obs_size=4, action_size=2, **fields):
    """An agent whose primitives differ, as those of PPO do not at first"""
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    args = module.Args(k=k, **fields)
    agent = module.Agent(args, obs_size, action_size, module.Philox(seeds))
    for name, parameter in agent.actor.named_parameters():
        if "bias" in name:
            networks, *shape = parameter.shape
            each = networks // len(seeds)
            noise = [torch.randn(each, *shape, generator=generator) for generator in generators]
            parameter.data += torch.cat(noise)
    return agent


def make_constant(critic, value):
    """A critic that finds everything worth this value"""
    with torch.no_grad():
        critic.fc3.weight.zero_()
        critic.fc3.bias.fill_(value)


def target_is(agent, batch, noise: tuple, next_value: torch.Tensor) -> None:
    """Asserts that critics which say 0 everywhere learn r + 0.9 (1 - terminated) next_value, where the target
    critics say 10; gamma is 0.9, and next_value (S, B, 1)."""
    make_constant(agent.qf, 0.0)
    make_constant(agent.qf_target, 10.0)
    target = batch.reward + 0.9 * (1 - batch.terminated) * next_value
    figures = agent.update(batch, *noise)
    close(figures["losses/critic"], 2 * target.square().mean((1, 2)), rtol=1e-6)


def is_finite(agent, loss) -> bool:
    """Whether a loss and its gradient in the whole policy are"""
    gradients = torch.autograd.grad(loss.sum(), list(agent.actor.parameters()))
    return all(x.isfinite().all() for x in [loss, *gradients])


def learning(loss, module) -> set[str]:
    """The parts of a module that a loss reaches"""
    names, parameters = zip(*module.named_parameters())
    gradients = torch.autograd.grad(loss, parameters, allow_unused=True, retain_graph=True)
    reached = set()
    for name, gradient in zip(names, gradients):
        if gradient is not None and gradient.any():
            reached.add(name.partition(".")[0])
    return reached


def learns_the_same_alone(module, draw_noise, **fields) -> None:
    """Asserts that a seed of SAC's family, updated among two others, is as when it is updated alone.
    draw_noise(agent, n, seed=) gives the noise of n states."""
    together = make_agent(module, seeds=(0, 1, 2), alpha="auto", **fields)
    alone = make_agent(module, seeds=(1,), alpha="auto", **fields)
    for i in range(10):
        batch = sac_batch(seeds=3, seed=i)
        normal, uniform = draw_noise(together, 64, seed=i)
        together.update(batch, normal, uniform)
        second = [field[1:2] for field in batch]
        alone.update(module.Batch(*second), normal[1:2], uniform[1:2])
    state = alone.state_dict()
    for name, x in together.state_dict().items():
        if x.dim() > 1:
            x = x.unflatten(0, (3, -1))[1]  # Adam's powers are those of all seeds
        torch.testing.assert_close(state[name], x, rtol=1e-4, atol=1e-5, msg=name)


def close(a, b, rtol=1e-7, atol=1e-9) -> None:
    torch.testing.assert_close(a, b, rtol=rtol, atol=atol)
