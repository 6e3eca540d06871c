"""How every figure looks: colours, dashes and markers of methods, panels and legends."""

import math
import zlib
from pathlib import Path

import numpy as np

from ..files import visible
from .runs import Run

# Okabe and Ito's colours, which the colour-blind tell apart; dashes and markers do it in black and white
STYLES = {
    "SAC": ("#000000", "-", "o"),
    "PMOE-SAC": ("#0072B2", "-", "s"),
    "Gating": ("#E69F00", "--", "^"),
    "MCP-SAC": ("#009E73", "-.", "D"),
    "Gumbel": ("#D55E00", ":", "v"),
    "REINFORCE": ("#CC79A7", "--", "P"),
    "MRP": ("#56B4E9", "-.", "X"),
    "Amortized": ("#8C8C8C", ":", "<"),
    "PPO": ("#000000", "--", "o"),
    "PMOE-PPO": ("#0072B2", "--", "s"),
    "MCP-PPO": ("#009E73", "--", "D"),
    "DAC": ("#D55E00", "-", "v"),
}
DASHES = ("-", "--", "-.", ":", (0, (6, 1, 1, 1, 1, 1)), (0, (1, 3)))
MARKERS = "s^vPXD<>*o"
SHADES = {4: 0.0, 2: -0.5, 8: 0.25, 10: 0.45, 14: 0.65, 16: 0.8}  # by K; light is below 0, dark above
WIDEST = 300  # characters of a name
FORKS = ("#7F3C8D", "#A5682A", "#6B6B6B", "#1B7C7C")


def pyplot():
    """matplotlib's, without a screen, and the look of every figure; PDFs embed their fonts as TrueType"""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    plt.rcParams |= {"pdf.fonttype": 42, "font.size": 8, "axes.spines.top": False, "axes.spines.right": False}
    return plt


def literal(text: str) -> str:
    """A text that a figure shows letter for letter: its dollars are no formula, and a `_` at its beginning
    does not keep it out of a legend; a very long one is cut, as no picture is that wide"""
    text = visible(text)
    if len(text) > WIDEST:
        text = text[: WIDEST - 1] + "…"
    text = text.replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text


def save(figure, stem: Path) -> list[Path]:
    """Writes STEM.png and STEM.pdf; returns them."""
    png = stem.with_suffix(".png")
    pdf = stem.with_suffix(".pdf")
    stem.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(png, dpi=200, bbox_inches="tight")
    # Without the time of its creation the same figure has the same bytes.
    figure.savefig(pdf, dpi=200, bbox_inches="tight", metadata={"CreationDate": None})
    pyplot().close(figure)
    return [png, pdf]


def styles(runs: list[Run]) -> dict[str, dict]:
    """Colour, dashes and marker by method. The algorithm has its colour, the same in every figure; another K
    is darker or lighter, with a dash and marker of its own; of several settings with one K, dash and shade
    say which."""
    looks = {}
    for run in runs:
        if run.base in looks:
            continue
        methods = {other.method for other in runs if other.base == run.base}
        variants = sorted(methods - {run.base})
        looks |= family_looks(run, variants)
    return looks


def family_looks(run: Run, variants: list[str]) -> dict[str, dict]:
    """The look of a run's algorithm and K, by its plain label, and of other settings of it"""
    colour, dash, marker = STYLES.get(run.name) or fork_style(run.name)
    k = run.args["k"]
    dark = 0.0
    if run.base != run.name and k != 4:
        number = list(SHADES).index(k) if k in SHADES else k
        dash = turn(DASHES, number)
        marker = turn(MARKERS, number)
        dark = SHADES.get(k, -0.25)

    looks = {run.base: {"color": shade(colour, dark), "linestyle": dash, "marker": marker}}
    for i, method in enumerate(variants, 1):
        light = 0.7 * i / (len(variants) + 1)
        looks[method] = {"color": shade(colour, dark - light), "linestyle": turn(DASHES, i), "marker": marker}
    if run.family == "PPO":
        for look in looks.values():
            look["markerfacecolor"] = "white"
    return looks


def fork_style(name: str) -> tuple:
    """Colour, dash and marker of an algorithm that is not the project's, by its name"""
    number = zlib.crc32(name.encode())
    number, colour = divmod(number, len(FORKS))
    dash = turn(DASHES, number)
    marker = turn(MARKERS, number // 8)
    return FORKS[colour], dash, marker


def turn(choices, i: int):
    """The i-th of the choices, which begin anew after the last"""
    return choices[i % len(choices)]


def shade(colour: str, dark: float) -> tuple[float, ...]:
    """A colour mixed with black (dark up to 1) or with white (down to -1)"""
    rgb = np.array(list(bytes.fromhex(colour[1:]))) / 255
    if dark > 0:
        return tuple(rgb * (1 - min(dark, 0.8)))
    return tuple(rgb - dark * (1 - rgb))


def panels(plt, legends: list[list[str]], width: float, height: float):
    """A figure with a panel for each legend's entries, at most three in a row; legends of more than four
    stand below. Returns it, the axes and what each legend takes to stand where it should."""
    columns = 2 if len(legends) == 4 else min(3, len(legends))
    rows = math.ceil(len(legends) / columns)
    places = []
    lines = 0  # of the longest legend that stands below its panel
    for entries in legends:
        place: dict = {"frameon": False, "fontsize": 7}
        if len(entries) > 4:
            long = max(map(len, entries)) > 22
            abreast = 1 if long else 2
            place |= {"loc": "upper center", "bbox_to_anchor": (0.5, -0.26), "ncols": abreast}
            lines = max(lines, math.ceil(len(entries) / abreast))
        places.append(place)

    size = (columns * width, rows * (height + 0.16 * lines))
    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained")
    used = axes.flat[: len(legends)]
    for ax in axes.flat[len(legends) :]:
        ax.remove()
    return figure, used, places
