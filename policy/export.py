"""A trained policy as one file for other programs: ONNX, or torch.export's. `pmoe export` writes them."""

import contextlib
import copy
import io
import logging
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import Dim
from torch.overrides import TorchFunctionMode

from . import Policy

NEEDED = ("onnx", "onnxscript", "onnxruntime")  # the extra `onnx`
CHECKS = 256  # random observations
STEPS = 3  # of each; a policy with a memory does something else in the second than in the first
TOLERANCE = 1e-4  # of half the distance between the bounds of an action


class ExportError(ValueError):
    """Why a policy cannot be exported, in one line"""


class Gathered(TorchFunctionMode):
    """Inside, take_along_dim is a gather: torch.export would take the size of its batch for the only one."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is not Tensor.take_along_dim:
            return function(*args, **kwargs or {})
        x, index, dim = args
        shape = list(x.shape)
        shape[dim] = index.shape[dim]
        return x.gather(dim, index.expand(shape))


class Exported(nn.Module):
    """obs (B, O) -> action (B, A), within the bounds of the environment. Of a policy with a memory obs and
    the options before (B,), -1 where an episode begins -> action, and the options now (B,)"""

    def __init__(self, policy: Policy):
        super().__init__()
        self.actor = copy.deepcopy(policy.untouched).requires_grad_(False)
        space = policy.action_space
        bounds = {"shift": policy.shift, "scale": policy.scale, "low": space.low, "high": space.high}
        for name, x in bounds.items():
            self.register_buffer(name, torch.tensor(x, dtype=torch.float32))

    def forward(self, obs: Tensor, option: Tensor | None = None):
        if option is not None:
            self.actor.option = option.reshape(1, -1, 1)
        with Gathered():
            units = self.actor.act(obs.unsqueeze(0)).squeeze(0)
        action = (self.shift + self.scale * units).clamp(self.low, self.high)
        if option is None:
            return action
        option = self.actor.option.reshape(-1)
        # torch.export takes no module that another state is left in.
        self.actor.option = None
        return action, option


def export(policy: Policy, file: Path) -> tuple[bytes, str]:
    """What a file of this name, .onnx or .pt2, is to hold, and its inputs and outputs in words. ExportError:
    it cannot be made, or does otherwise than the policy."""
    module = Exported(policy).eval()
    names = ["obs"]
    example = [torch.zeros(2, policy.obs_size)]
    outputs = ["action"]
    if policy.remembers:
        names.append("option")
        example.append(torch.full((2,), -1))
        outputs.append("next_option")
    batch = Dim("batch")
    shapes = {name: {0: batch} for name in names}
    try:
        with silence():
            program = torch.export.export(module, tuple(example), dynamic_shapes=shapes, strict=False)
            if file.suffix == ".onnx":
                content = as_onnx(program, names, outputs)
                run = onnx_runner(content)
            else:
                content = as_torch(program)
                run = torch_runner(content)
            check(policy, run)
    except ExportError:
        raise
    # The exporter raises many kinds, and a fork's actor may be any module.
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise ExportError(f"this policy cannot be exported ({type(error).__name__}: {reason})") from error
    sizes = {"obs": f" (batch, {policy.obs_size})", "action": f" (batch, {len(policy.scale)})"}
    told = [[name + sizes.get(name, " (batch,)") for name in side] for side in (names, outputs)]
    return content, " -> ".join(", ".join(side) for side in told)


@contextlib.contextmanager
def silence():
    """The exporters tell of what they do inside."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)


def as_torch(program) -> bytes:
    content = io.BytesIO()
    torch.export.save(program, content)
    return content.getvalue()


def as_onnx(program, names: list[str], outputs: list[str]) -> bytes:
    onnx = torch.onnx.export(program, input_names=names, output_names=outputs, dynamo=True, verbose=False)
    assert onnx
    # Weights and all, in one file
    return onnx.model_proto.SerializeToString()


def torch_runner(content: bytes) -> Callable:
    """A function of arrays that gives a list of arrays, by torch.export's file"""
    module = torch.export.load(io.BytesIO(content)).module()

    def run(*inputs: np.ndarray) -> list[np.ndarray]:
        outputs = module(*[torch.from_numpy(x) for x in inputs])
        outputs = [outputs] if isinstance(outputs, Tensor) else outputs
        return [x.numpy() for x in outputs]

    return run


def onnx_runner(content: bytes) -> Callable:
    """The same by an ONNX file"""
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_inputs()]

    def run(*inputs: np.ndarray) -> list[np.ndarray]:
        return session.run(None, dict(zip(names, inputs, strict=True)))

    return run


def check(policy: Policy, run: Callable) -> None:
    """ExportError: what was exported does otherwise than the policy, on random observations."""
    random = np.random.default_rng(0)
    # One observation, too: an exporter may take a size that it has seen for the only one.
    for batch_size in (CHECKS, 1):
        policy.reset()
        option = np.full(batch_size, -1)
        for _ in range(STEPS):
            size = 10 ** random.uniform(-1, 1, (batch_size, 1))
            obs = random.normal(size=(batch_size, policy.obs_size)) * size
            obs = obs.astype(np.float32)
            if policy.remembers:
                action, option = run(obs, option)
            else:
                (action,) = run(obs)
            error = np.abs(action - policy(obs)) / policy.scale
            # NaN is no small difference.
            if not (error <= TOLERANCE).all():
                differs = f"actions differ by up to {error.max():.2g} of half their range"
                raise ExportError(f"what was exported does otherwise than the policy: {differs}")
    policy.reset()
