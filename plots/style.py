"""How every figure looks: colours, dashes and markers of methods, panels and legends."""

import math
import textwrap
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ..files import visible
from .runs import Run, grouped, place

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
FORKS = ("#7F3C8D", "#A5682A", "#6B6B6B", "#1B7C7C")
# Other settings of a method, in colours that no method has: Tol's, and others between them
SETTINGS = ("#882255", "#999933", "#332288", "#CC6677", "#117733", "#DD3D2D", "#44AA99", "#AA4499", "#8C6D31")
WIDEST = 300  # characters of a name
LINE = 44  # characters of a line in a legend
TITLE = 40  # of a line above a panel
PIXELS = 2**16 - 1  # of a picture, at most, in each direction


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


def wrapped(text: str, width: int = LINE) -> str:
    """The same in lines of at most so many characters, broken between words, and long words after a mark"""
    text = visible(text)
    if len(text) > WIDEST:
        text = text[: WIDEST - 1] + "…"
    words = []
    for word in text.split():
        while len(word) > width:
            marks = [word.rfind(mark, 0, width) for mark in "_:/-,"]
            end = max(marks) + 1 or width
            words.append(word[:end])
            word = word[end:]
        words.append(word)
    lines = textwrap.wrap(" ".join(words), width, break_on_hyphens=False)
    return "\n".join(literal(line) for line in lines)


def save(figure, stem: Path) -> list[Path]:
    """Writes STEM.png and STEM.pdf; returns them."""
    png = stem.with_suffix(".png")
    pdf = stem.with_suffix(".pdf")
    stem.parent.mkdir(parents=True, exist_ok=True)
    dpi = min(200, PIXELS / (1 + max(figure.get_size_inches())))
    figure.savefig(png, dpi=dpi, bbox_inches="tight")
    # Without the time of its creation the same figure has the same bytes.
    figure.savefig(pdf, dpi=dpi, bbox_inches="tight", metadata={"CreationDate": None})
    pyplot().close(figure)
    return [png, pdf]


def styles(runs: list[Run]) -> dict[str, dict]:
    """Colour, dashes and marker by method, in the order of the papers' legends. The algorithm has its colour
    and marker, the same in every figure; another K is darker or lighter, with other dashes. Other settings
    than the plain one have colours, dashes and markers by their number in the figure."""
    ordered = sorted(runs, key=place)
    plain = plain_settings(ordered)
    settings = list(grouped(ordered, lambda run: (run.base, run.setting)))
    others = [pair for pair in settings if pair not in plain.items()]
    looks = {}
    for run in ordered:
        if run.method in looks:
            continue
        look = plain_look(run)
        if (run.base, run.setting) in others:
            number = others.index((run.base, run.setting))
            look["color"] = shade(turn(SETTINGS, number), 0)
            look["linestyle"] = turn(DASHES, number + 1)
            look["marker"] = turn(MARKERS, number + 1)
        if run.family == "PPO":
            look["markerfacecolor"] = "white"
        looks[run.method] = look
    return looks


def plain_settings(runs: list[Run]) -> dict[str, str]:
    """By algorithm and K the setting that looks plain: the one that needs no words, or else that of a folder
    without a tag, which has the defaults"""
    found = {}
    for run in runs:
        if not run.setting:
            found[run.base] = ""
        elif not run.tag:
            found.setdefault(run.base, run.setting)
    return found


def plain_look(run: Run) -> dict:
    """Of a run's algorithm and K"""
    colour, dash, marker = STYLES.get(run.name) or fork_style(run.name)
    k = run.args["k"]
    dark = 0.0
    if run.base != run.name and k != 4:
        number = list(SHADES).index(k) if k in SHADES else k
        # Another marker where all dashes are taken
        rounds = number // len(DASHES)
        dash = turn(DASHES, DASHES.index(dash) + number)
        marker = turn(MARKERS, MARKERS.index(marker) + rounds)
        dark = SHADES.get(k, -0.25)
    return {"color": shade(colour, dark), "linestyle": dash, "marker": marker}


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


def panels(plt, count: int, height: float):
    """A figure with so many panels of this height, at most three in a row; returns it and its axes."""
    columns = 2 if count == 4 else min(3, count)
    rows = math.ceil(count / columns)
    width = 4.8 if count == 1 else 3.4
    size = (columns * width, rows * height)
    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained")
    for ax in axes.flat[count:]:
        ax.remove()
    return figure, list(axes.flat[:count])


def legend_below(figure, handles: Sequence, title: str | None = None) -> None:
    """One legend below all panels, with as many columns as fit; the figure becomes higher by its height."""
    renderer = figure.canvas.get_renderer()
    n = len(handles)
    for columns in range(min(n, 8), 0, -1):
        rows = math.ceil(n / columns)
        if math.ceil(n / rows) < columns:
            # As many rows need fewer columns.
            continue
        place = {"loc": "outside lower center", "ncols": columns, "frameon": False, "handlelength": 3}
        legend = figure.legend(handles=handles, title=title, fontsize=7, title_fontsize=7, **place)
        box = legend.get_window_extent(renderer)
        if box.width <= figure.bbox.width or columns == 1:
            break
        legend.remove()
    width, height = figure.get_size_inches()
    figure.set_size_inches(width, height + box.height / figure.dpi)


def method_handles(plt, looks: Mapping[str, dict], numbers: Mapping[str, list[int]]) -> list:
    """What a legend says of each method: how it looks, and how many runs it has, in one panel or another"""
    handles = []
    for method, look in looks.items():
        if method not in numbers:
            continue
        fewest, most = min(numbers[method]), max(numbers[method])
        n = str(most) if fewest == most else f"{fewest} to {most}"
        label = f"{wrapped(method)} (n = {n})"
        handles.append(plt.Line2D([], [], **look, markersize=4, linewidth=1.4, label=label))
    return handles


def steps_axis(ax) -> None:
    """Environment steps along the x-axis, as 50k and 1M: a power of ten beside it would hide its label."""
    from matplotlib.ticker import EngFormatter

    ax.set_xlabel("environment steps")
    ax.xaxis.set_major_formatter(EngFormatter(sep=""))
