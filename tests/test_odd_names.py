"""Tags and environments may hold what figures, Markdown, LaTeX or CSV take for something else: there they are
shown letter for letter."""

import csv
import re

import numpy as np
import pytest
from common import train
from markdown_it import MarkdownIt
from matplotlib import pyplot
from matplotlib.text import Text
from runs_on_disk import make, seeds

from pmoe.plots import learning, runs, style, tables, tsne

ODD = r"_$a$ b_{^_%&<i>|#~\ `c` *d* $[e](f)"
NAMES = [
    ODD,
    "$",
    "$$",
    r"\$a$",
    "_",
    "_a_",
    "a__b",
    "a_b",
    "&lt;",
    "{",
    "[x]",
    "*x",
    "a\nb",
    "\\",
    "-5",
    "\x1b[1m",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_figure_shows_a_name_letter_for_letter(name):
    """Neither a formula nor nothing: a label that begins with _ stands in no legend."""
    figure, ax = pyplot.subplots()
    ax.plot([1, 2], label=style.literal(name))
    ax.set_title(style.literal(name))
    (entry,) = ax.legend().get_texts()
    figure.canvas.draw()
    for text in (entry, ax.title):
        shown, is_formula = text._preprocess_math(text.get_text())
        assert not is_formula
        assert shown.strip() == runs.visible(name)
    pyplot.close(figure)


def test_a_name_without_end_is_cut():
    assert len(style.literal("x" * 10_000)) == 300


@pytest.mark.parametrize("name", NAMES)
def test_markdown_shows_a_name_letter_for_letter(name):
    table = tables.markdown("t", ["method", "n"], [[name, "3"]])
    tokens = MarkdownIt("commonmark").enable("table").parse(table)
    cells = [token.children for token in tokens if token.type == "inline"]
    _, _, _, shown, three = cells
    assert {token.type for token in shown} <= {"text", "text_special"}
    assert "".join(token.content for token in shown) == runs.visible(name).strip()
    assert three[0].content == "3"


def test_markdown_leaves_numbers_and_settings_as_they_are():
    for text in ("-5.3 (-7, 1)", "PMOE-SAC K=4 learning_rate=0.001", "120 ± 3", "% of SAC (95 %)"):
        assert tables.in_markdown(text) == text


@pytest.mark.parametrize("name", NAMES)
def test_latex_stays_in_its_cell_and_its_comment(tmp_path, name):
    tables.write(tmp_path / "t", [{"method": name}], [(name, [name], [[name], [name]])], name, [name])
    lines = (tmp_path / "t.tex").read_text().splitlines()
    caption, _, head, _, first, second, _, _, _, foot, _, comment = lines
    for row in (head, first, second):
        assert row.endswith(r" \\")
        assert unescaped(row.removesuffix(r" \\")) == runs.visible(name)
        # After the end of the row above a star or a bracket would be an option of that.
        assert not row.startswith(("*", "["))
    assert unescaped(foot) == runs.visible(name)
    assert unescaped(name_in(caption)) == runs.visible(name)
    assert comment == f"% {runs.visible(name)}"
    with open(tmp_path / "t.csv", newline="") as file:
        assert [row["method"] for row in csv.DictReader(file)] == [name]


def name_in(caption: str) -> str:
    _, _, rest = caption.partition(r"\caption{")
    return rest.removesuffix(r"} \begin{tabular}{l}")


def unescaped(text: str) -> str:
    """What LaTeX sets; only letters and escaped characters may stand there."""
    letters = {tex: letter for letter, tex in tables.LATEX.items()}
    sequences = "|".join(re.escape(tex) for tex in sorted(letters, key=len, reverse=True))
    pieces = re.findall(rf"({sequences})|([\w \-/+=:,.;`()]+)", text)
    assert sum(len(tex) + len(plain) for tex, plain in pieces) == len(text)
    return "".join(letters.get(tex, "") + plain for tex, plain in pieces)


def test_curves_and_tables_of_odd_names(tmp_path, drawn):
    for tag in ("", ODD, "a\nb"):
        seeds(tmp_path, "sac", [1, 2, 3], tag=tag, env_id="Odd$x^{$_%-v4")
    seeds(tmp_path, "sac", [4, 5, 6], k=1, env_id="Odd$x^{$_%-v4")
    options = {"areas": True, "profiles": True}
    learning.report([tmp_path], tmp_path / "out", **options)
    for figure in drawn:
        figure.canvas.draw()
    titles = [ax.get_title() for ax in drawn[0].axes]
    assert titles == [r"Odd\$x^{\$_%-v4"]
    with open(tmp_path / "out/auc.csv", newline="") as file:
        methods = {row["method"] for row in csv.DictReader(file)}
    assert methods == {"SAC", "PMOE-SAC K=4", f"PMOE-SAC K=4 {ODD}", r"PMOE-SAC K=4 a\nb"}


@pytest.mark.slow
def test_figures_of_policies_of_odd_names(tmp_path, drawn):
    """Of two methods, whose tags tell them apart"""
    for tag in (ODD, "$"):
        train("sac", tmp_path / "runs", env_id="TargetReaching-v0", tag=tag, total_timesteps=160)
    names = ["routing", "primitives", "trajectories", "exploration"]
    wanted = dict.fromkeys(names, True) | {"tsne": False}
    analyses = learning.analyses(wanted, episodes=1, states=100)
    learning.report([tmp_path / "runs"], tmp_path / "out", analyses=analyses)
    found, _ = runs.find([tmp_path / "runs"])
    drawn.append(figure_of_tsne(found, tmp_path, drawn))
    assert len(drawn) == 7
    for figure in drawn:
        figure.canvas.draw()
        for text in figure.findobj(Text):
            if "PMOE-SAC" in text.get_text():
                assert not text._preprocess_math(text.get_text())[1]


def figure_of_tsne(found, folder, drawn):
    """Of states that nobody has seen"""
    generator = np.random.default_rng(0)
    points = generator.normal(size=(20, 2, 2))
    number = np.arange(20)
    where = points[:, 0]
    states = tsne.States(where, number % 2, [3, 3], where, number % tsne.CLUSTERS)
    actions = tsne.Actions(points, np.ones((2, tsne.CLUSTERS)), points)
    tsne.plot(found, states, [actions for _ in found], folder / "tsne")
    return drawn.pop()


def test_a_long_name_is_no_error(tmp_path):
    """A file's name has less room than a folder's tag and its settings together."""
    long = "x" * 200
    make(tmp_path, tag=long)
    names = {tables_stem(tmp_path, long, other) for other in ("a", "b")}
    assert len(names) == 2
    for name in names:
        (tmp_path / name).touch()


def tables_stem(folder, *words) -> str:
    from pmoe.plots.policies import stem

    return stem(folder, "routing", *words, "y" * 100).with_suffix(".png").name
