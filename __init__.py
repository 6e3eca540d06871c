"""Mixture-of-experts policies for deep reinforcement learning, each algorithm in one file."""

from __future__ import annotations

from importlib import metadata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from .policy import Policy

__version__ = metadata.version("pmoe")


def load_policy(run_dir: str | Path) -> Policy:
    """The policy in a run's last checkpoint, to be called with observations. FileNotFoundError: there is no
    run, or no checkpoint. ValueError: it cannot be loaded."""
    # Here, as torch takes seconds, and `import pmoe` should not.
    from .policy import load

    return load(run_dir)
