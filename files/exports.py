"""The curves of many runs as two small CSV files, as `pmoe export` writes them and `pmoe plot` reads them.

FILE.csv has a row for each evaluation, and FILE.runs.csv a row for each run: how far it is, what it was run
with, and its options. A return is read as it stood in eval.csv, so that figures and tables come out the
same. A run is known by its environment, algo, k, tag and seed; no two of an export have these in common.
"""

import csv
import io
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from . import CONTROL, HIGHEST, is_config, is_printable, is_time, read_text, visible

ENDING = ".runs.csv"
KEY = ("environment", "algo", "k", "tag", "seed")
CURVE = ("step", "return_mean", "return_std", "episodes")
SUCCESS = ("success", "final_success")  # where an environment tells it
STATE = ("total_timesteps", "evaluations", "finished", "wall_time", "written_utc")
RUN = (*KEY, *STATE, "device", "commit", "source", "versions", "path", "file")
OPTION = "args."  # begins the name of an option's column
# Those of the command line that have a column of their own, or are about a disk
ELSEWHERE = ("env_id", "k", "seed", "total_timesteps", "run_dir", "resume", "overwrite")
LONGEST = 2**30  # characters of a file


@dataclass
class Record:
    """What a run directory holds of its curve"""

    path: Path
    tag: str  # of the directory's name
    config: dict  # config.json
    evaluations: list[dict[str, str]]  # a row each, by column
    finished: tuple[int, float] | None  # last step and seconds
    written: float  # when eval.csv was, in seconds since 1970

    @property
    def key(self) -> list[str]:
        """Its cells below KEY"""
        args = self.config["args"]
        cells = [args["env_id"], self.config["algo"], args["k"], visible(self.tag), args["seed"]]
        return [str(cell) for cell in cells]

    @property
    def name(self) -> str:
        """As of its directory: Hopper-v4/sac-k4/seed1"""
        return name_of(self.key)

    @property
    def curve(self) -> str:
        """Its eval.csv"""
        names = list(self.evaluations[0]) if self.evaluations else list(CURVE)
        lines = [",".join(names)]
        for row in self.evaluations:
            lines.append(",".join(row.values()))
        return "\n".join(lines) + "\n"


def name_of(key: list[str]) -> str:
    environment, algo, k, tag, seed = key
    folder = f"{algo}-k{k}-{tag}".removesuffix("-")
    return f"{environment}/{folder}/seed{seed}"


def runs_file(file: Path) -> Path:
    """The file beside FILE.csv"""
    return file.with_name(file.name.removesuffix(".csv") + ENDING)


def begins_as_export(file: Path) -> bool:
    """Whether a file has the first line of one of an export's two"""
    try:
        head, *_ = read_text(file, LONGEST).split("\n", 1)
    except OSError:
        return False
    names = tuple(head.split(","))
    return names[: len(KEY)] == KEY


def exports_in(folder: Path, names: list[str]) -> list[Path]:
    """The FILE.csv of each export among the files of a folder"""
    found = []
    for name in sorted(names):
        file = name.removesuffix(ENDING) + ".csv"
        if name.endswith(ENDING) and file in names:
            found.append(folder / file)
    return found


def grid_in(folder: Path) -> Path | None:
    """The only TOML file of a folder that holds an export"""
    try:
        names = os.listdir(folder)
    except OSError:
        # What is no folder, or cannot be read, is named where runs are looked for.
        return None
    grids = [name for name in names if name.endswith(".toml")]
    if len(grids) != 1 or not exports_in(folder, names):
        return None
    return folder / grids[0]


# Evaluations


def read_rows(text: str) -> list[dict[str, str]]:
    """The rows of an eval.csv, by column; a half-written last line is left out. ValueError: why there are
    none."""
    head, _, body = text.partition("\n")
    names = head.strip().split(",")
    if not {"step", "return_mean"} <= set(names):
        raise ValueError(f"is no table of evaluations: it begins {head[:50]!r}")
    *lines, _ = body.split("\n")
    rows = []
    for number, line in enumerate(lines, 2):
        cells = line.strip().split(",")
        if len(cells) != len(names):
            raise ValueError(f"is damaged: line {number} does not have {len(names)} columns")
        known = dict(zip(names, cells))
        row = {name: known[name] for name in (*CURVE, *SUCCESS) if name in known}
        if not is_row(row):
            raise ValueError(f"is damaged: line {number} has no numbers")
        if is_number(row.get("return_std", "")):
            # No table needs it to the last digit.
            row["return_std"] = f"{float(row['return_std']):.6g}"
        rows.append(row)
    return rows


def is_row(row: dict[str, str]) -> bool:
    """Whether the cells that a curve is made of are numbers; NaN is one"""
    return is_number(row["step"]) and is_number(row["return_mean"])


def is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


# Options


def cell_of(args: dict, name: str) -> str:
    """An option as JSON, a text without its quotation marks if it is read as itself then too. Empty: there is
    no such option, or no tag."""
    value = args.get(name, "")
    if value == "" and (name == "tag" or name not in args):
        return ""
    if type(value) is str and value and not CONTROL.search(value) and value_of(value) == value:
        return value
    return json.dumps(value)


def value_of(cell: str):
    """The value of such a cell"""
    try:
        return json.loads(cell)
    except (ValueError, RecursionError):
        return cell


# Writing


def write(records: list[Record]) -> tuple[str, str]:
    """What FILE.csv and FILE.runs.csv are to hold"""
    return write_evaluations(records), write_runs(records)


def write_evaluations(records: list[Record]) -> str:
    firsts = [row for record in records for row in record.evaluations[:1]]
    told = any(SUCCESS[0] in row for row in firsts)
    columns = [*CURVE, *SUCCESS] if told else list(CURVE)
    rows = []
    for record in records:
        for row in record.evaluations:
            cells = [row.get(name, "") for name in columns]
            rows.append([*record.key, *cells])
    return as_csv([*KEY, *columns], rows)


def write_runs(records: list[Record]) -> str:
    options: dict[str, None] = {}
    for record in records:
        options |= dict.fromkeys(record.config["args"])
    names = [name for name in options if name not in ELSEWHERE]
    rows = []
    for record in records:
        cells = [cell_of(record.config["args"], name) for name in names]
        rows.append([*run_cells(record), *cells])
    titles = [OPTION + name for name in names]
    return as_csv([*RUN, *titles], rows)


def run_cells(record: Record) -> list[str]:
    """The cells of a run below RUN"""
    config = record.config
    finished, wall_time = record.finished or ("", "")
    written = datetime.fromtimestamp(record.written, timezone.utc)
    cells = [config["args"]["total_timesteps"], len(record.evaluations), finished, wall_time]
    cells.append(f"{written:%Y-%m-%d %H:%M:%S}")
    cells += [config.get(name) or "" for name in ("device", "commit", "source")]
    versions = config.get("versions") or {}
    if type(versions) is dict:
        versions = ", ".join(f"{package} {version}" for package, version in versions.items())
    cells += [versions, record.path, config.get("file") or ""]
    return record.key + [visible(str(cell)) for cell in cells]


def as_csv(head: list[str], rows: list[list[str]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(rows)
    return text.getvalue()


# Reading


def read(file: Path) -> list[Record]:
    """The runs of an export, each with its evaluations. ValueError: what is wrong with it, in one line."""
    beside = runs_file(file)
    if not begins_as_export(file) or not beside.is_file():
        raise ValueError(f"{file} is no export, which is two files, as in table.csv and table{ENDING}")
    records: dict[str, Record] = {}
    numbers = {}
    for place, row in rows_of(beside, RUN):
        record = read_record(place, row)
        if record.name in records:
            raise ValueError(f"{place}: {record.name} stands there twice")
        records[record.name] = record
        numbers[record.name] = count(place, row, "evaluations")

    for place, row in rows_of(file, (*KEY, *CURVE)):
        name = name_of([row.pop(column) for column in KEY])
        if name not in records:
            raise ValueError(f"{place}: {beside.name} has no {name}")
        if not is_row(row):
            raise ValueError(f"{place}: step or return_mean is no number")
        rows = records[name].evaluations
        # Where a run had no such column, its cells are empty.
        columns = rows[0] if rows else [column for column, cell in row.items() if cell]
        rows.append({column: row[column] for column in columns})
    for name, record in records.items():
        found = len(record.evaluations)
        if found != numbers[name]:
            raise ValueError(f"{file} has {found} of the {numbers[name]} evaluations of {name}")
    return list(records.values())


def rows_of(file: Path, columns: tuple[str, ...]) -> Iterator[tuple[str, dict[str, str]]]:
    """The rows of a CSV file that has these columns, and others behind them, each with its place in the file.
    ValueError: what is wrong with it."""
    try:
        text = read_text(file, LONGEST)
    except OSError as error:
        raise ValueError(f"{file} cannot be read ({error.strerror})") from None
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    head: list[str] = []
    try:
        for cells in reader:
            place = f"{file}:{reader.line_num}"
            if not head:
                head = cells
                if tuple(head[: len(columns)]) != columns:
                    raise ValueError(f"{place}: these are not the columns of an export")
                continue
            if len(cells) != len(head):
                raise ValueError(f"{place}: a row of {len(head)} cells has {len(cells)}")
            if any(CONTROL.search(cell) for cell in cells):
                raise ValueError(f"{place}: a control character")
            yield place, dict(zip(head, cells))
    except csv.Error as error:
        raise ValueError(f"{file}:{reader.line_num}: {error}") from None


def read_record(place: str, row: dict[str, str]) -> Record:
    """A run without its evaluations. ValueError: what of it is damaged."""
    args: dict[str, Any] = {"env_id": row["environment"], "tag": ""}
    for name in ("k", "seed", "total_timesteps"):
        args[name] = count(place, row, name)
    for column, cell in row.items():
        if column.startswith(OPTION) and cell:
            args[column.removeprefix(OPTION)] = value_of(cell)
    names = ("algo", "file", "source", "device", "commit", "versions")
    config = {name: row[name] for name in names} | {"args": args}
    if not is_config(config) or not is_printable(args):
        raise ValueError(f"{place}: this is no run")

    finished = None
    if row["finished"]:
        seconds = value_of(row["wall_time"])
        if not is_time(seconds):
            raise ValueError(f"{place}: wall_time is no number of seconds")
        finished = (count(place, row, "finished"), float(seconds))
    try:
        written = datetime.fromisoformat(row["written_utc"]).replace(tzinfo=timezone.utc).timestamp()
    except (ValueError, OverflowError):
        raise ValueError(f"{place}: written_utc is no time") from None
    return Record(Path(row["path"]), row["tag"], config, [], finished, written)


def count(place: str, row: dict[str, str], name: str) -> int:
    """A whole number of a row. ValueError: it is none."""
    cell = row[name]
    if not re.fullmatch("[0-9]{1,13}", cell) or int(cell) > HIGHEST:
        raise ValueError(f"{place}: {name} is no number")
    return int(cell)
