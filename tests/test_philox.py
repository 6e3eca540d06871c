"""Random numbers from a counter, and what a step does beside its two graphs."""

import numpy as np
import pytest
import torch
from common import train
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from test_compile import compiles
from torch.utils._python_dispatch import TorchDispatchMode

from pmoe.algorithms import load
from pmoe.pmoe_sac import Philox, ReplayBuffer, Runs, philox

FULL = 0xFFFFFFFF
# The vectors of Random123, which the paper's authors publish: counter, key, and what comes out
KNOWN = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((FULL,) * 4, (FULL, FULL), (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@pytest.mark.parametrize("counter, key, expected", KNOWN, ids=["zeros", "ones", "pi"])
def test_the_published_vectors(counter, key, expected):
    low, high = key
    rng = Philox([high << 32 | low])
    words = [torch.tensor([[word]]) for word in counter]
    assert [word.item() for word in philox(rng.keys, *words)] == list(expected)


@settings(deadline=None)
@given(seeds=st.lists(st.integers(0, 2**63 - 1), min_size=2, max_size=4, unique=True), n=st.integers(1, 40))
def test_a_seed_has_the_same_numbers_alone_as_among_others(seeds, n):
    together = Philox(seeds)
    first, second = together.words(n), together.words(n)
    for s, seed in enumerate(seeds):
        alone = Philox([seed])
        assert alone.words(n).equal(first[[s]])
        assert alone.words(n).equal(second[[s]])
    assert len({tuple(row) for row in torch.cat([first, second]).tolist()}) == 2 * len(seeds) or n < 2


def test_a_longer_draw_begins_like_a_shorter_one():
    """Words are in the counter's order."""
    assert Philox([7]).words(5).equal(Philox([7]).words(11)[:, :5])


def test_the_count_of_calls_is_all_of_the_state():
    rng = Philox([1, 2])
    rng.normal(3)
    rng.uniform(2, 2)
    state = rng.state_dict()
    assert state == {"calls": torch.tensor(2)}
    again = Philox([1, 2])
    again.load_state_dict(state)
    assert again.words(9).equal(rng.words(9))


@pytest.mark.parametrize("shape", [(1,), (7,), (3, 5), (2, 4, 3)], ids=str)
def test_shapes(shape):
    rng = Philox([1, 2, 3])
    assert rng.normal(*shape).shape == rng.uniform(*shape).shape == (3, *shape)
    normal, uniform = rng.noise(4, 3, 2)
    assert normal.shape == (3, 4, 3, 2)
    assert uniform.shape == (3, 4, 3)


def test_the_distributions():
    """By Kolmogorov and Smirnov; of both halves of Box and Muller's pairs, which are independent"""
    rng = Philox([3])
    uniform = rng.uniform(100_000)[0].double().numpy()
    normal = rng.normal(100_000)[0].double().numpy()
    cosine, sine = np.split(normal, 2)
    assert 0 <= uniform.min() < 1e-4
    assert 1 - 1e-4 < uniform.max() < 1
    assert stats.kstest(uniform, "uniform").pvalue > 0.001
    assert stats.kstest(cosine, "norm").pvalue > 0.001
    assert stats.kstest(sine, "norm").pvalue > 0.001
    assert abs(np.corrcoef(cosine, sine)[0, 1]) < 0.01
    assert abs(np.corrcoef(cosine**2, sine**2)[0, 1]) < 0.01
    assert abs(np.corrcoef(uniform[1:], uniform[:-1])[0, 1]) < 0.01


@pytest.mark.parametrize("size", [1, 6, 3000])
def test_a_batch_has_each_row_as_often(size):
    """Of the rows that there are, in a buffer that is not full"""
    buffer = ReplayBuffer(5000, 1, 1, Philox([4, 5]))
    for i in range(size):
        buffer.add(np.full(2, i), np.zeros(2), np.zeros(2), np.zeros(2), np.zeros(2))
    rows = buffer.sample(60_000).obs.long().flatten()
    assert rows.min() >= 0
    assert rows.max() < size
    bins = torch.bincount(rows * 6 // size, minlength=6)
    if size > 1:
        assert stats.chisquare(bins.numpy()).pvalue > 0.001


@compiles
def test_compiled_it_gives_the_same():
    """Whole numbers bit for bit; the last bits of a normal number are those of a logarithm and a cosine."""
    torch._dynamo.reset()
    eager = Philox([1, 2**40 + 3])
    rng = Philox([1, 2**40 + 3])

    def draw():
        return rng.words(37), rng.uniform(3, 5), rng.normal(101)

    compiled = torch.compile(draw, fullgraph=True, dynamic=False)
    for _ in range(3):
        words, uniform, normal = compiled()
        assert words.equal(eager.words(37))
        assert uniform.equal(eager.uniform(3, 5))
        torch.testing.assert_close(normal, eager.normal(101), rtol=1e-5, atol=1e-6)
    assert rng.calls == eager.calls == 9


# What a step does beside its graphs


OPTIONS = [
    ("sac", {}),
    ("sac", {"backprop": "all", "entropy": "mixture", "argmax": "soft", "target": "max"}),
    ("gating-sac", {}),
    ("mcp-sac", {}),
    ("gumbel-sac", {}),
    ("reinforce-sac", {"baseline_samples": 2}),
    ("mrp-sac", {}),
    ("mrp-sac", {"estimator": "half"}),
    ("amortized-sac", {}),
]


@pytest.mark.parametrize("algo, options", OPTIONS)
def test_nothing_in_a_step_waits_for_a_number(algo, options):
    """Tensors without content stand for a GPU's: to look at one raises, and so does one on another device."""
    module = load(algo)
    rng = module.Philox(range(2), torch.device("meta"))
    agent = module.Agent(module.Args(k=3, alpha="auto", **options), 4, 2, rng)
    buffer = module.ReplayBuffer(100, 4, 2, rng)
    figures = agent.update(buffer.sample(8), *rng.noise(16, agent.draws, 2))
    obs = torch.empty(2, 1, 4, device="meta")
    action, _ = agent.draw(obs, *rng.noise(1, agent.draws, 2))
    assert action.is_meta
    assert all(figure.is_meta for figure in figures.values())
    assert all(x.is_meta for x in agent.state_dict().values())


class Launches(TorchDispatchMode):
    """Counts operations that a GPU would launch one by one: those that are no views, while `counting`"""

    def __init__(self):
        super().__init__()
        self.counting = True
        self.names = []
        self.steps = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if self.counting and not func.is_view:
            self.names.append(func.name())
        return func(*args, **kwargs or {})

    def pause(self, function):
        def call(*inputs):
            self.counting = False
            outputs = function(*inputs)
            self.counting = True
            return outputs

        return call


@pytest.mark.parametrize("seeds", [1, 16])
@pytest.mark.parametrize("k", [1, 4])
def test_a_step_is_few_launches_whatever_seeds_and_primitives(tmp_path, monkeypatch, seeds, k):
    """Two graphs, four copies from and to the GPU and into a graph, and what is counted here: ten at most.
    Nothing waits for the GPU but the action, which the environments need."""
    launches = Launches()
    copies = []
    to_cpu = torch.Tensor.cpu
    end_of_step = Runs.end_of_step

    def look(runs, step, figures):
        launches.steps.append((step, [*launches.names], len(copies)))
        launches.pause(end_of_step)(runs, step, figures)
        launches.names.clear()
        copies.clear()

    def cpu(x):
        if launches.counting:
            copies.append(x)
        return to_cpu(x)

    monkeypatch.setattr(Runs, "compiled", lambda _, *functions: [launches.pause(f) for f in functions])
    monkeypatch.setattr(Runs, "end_of_step", look)
    monkeypatch.setattr(torch.Tensor, "cpu", cpu)
    with launches:
        train("sac", tmp_path, num_seeds=seeds, k=k, total_timesteps=200, device="cpu")
    learning = launches.steps[160:]
    assert len(learning) == 40
    for step, names, waits in learning:
        assert len(names) <= 4, (step, names)
        assert waits == 1
        assert "aten::_local_scalar_dense" not in names  # .item()
