"""Mixture-of-experts policies for deep reinforcement learning, each algorithm in one file."""

from importlib import metadata

__version__ = metadata.version("pmoe")
