"""What `grid` and `plots` both show on a terminal: a console, a progress bar, a span of seeds."""

import sys
import time
from collections.abc import Iterable, Iterator

from rich.console import Console
from rich.progress import Progress


def console() -> Console:
    """As wide as the terminal, or wide enough where there is none"""
    return Console(width=None if sys.stdout.isatty() else 160, highlight=False, markup=False)


def tracked(items: Iterable, text: str) -> Iterator:
    """The items, with a progress bar once they take longer than a second"""
    items, began = list(items), time.monotonic()
    with Progress(console=console(), transient=True, disable=not sys.stdout.isatty()) as bar:
        task = bar.add_task(text, total=len(items), visible=False)
        for item in items:
            yield item
            bar.update(task, advance=1, visible=time.monotonic() - began > 1)


def spans(seeds: Iterable[int]) -> str:
    """1, 2, 3, 7 -> 1-3, 7"""
    text: list[list[int]] = []
    for seed in sorted(seeds):
        if text and seed == text[-1][1] + 1:
            text[-1][1] = seed
        else:
            text.append([seed, seed])
    return ", ".join(f"{a}-{b}" if b > a else f"{a}" for a, b in text)
