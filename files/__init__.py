"""What `grid`, `plots` and the commands read from a disk, whatever stands there: texts, and the JSON of run
directories. They all read it here, so that a damaged file is damaged for all of them. And how they write."""

import errno
import json
import os
import pickle
import re
import stat
import zipfile
from pathlib import Path

MOST = 16 * 2**20  # characters of a JSON or a TOML file
HIGHEST = 10**12  # step and seed, as algorithms allow them
LONGEST = 255  # characters of what names a folder
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")  # and halves of characters, which no file can hold


def visible(text: str) -> str:
    """A text in one line, control characters as Python writes them"""
    return CONTROL.sub(lambda found: ascii(found[0])[1:-1], text)


def read_text(file: Path, most: int = MOST, errors: str = "strict") -> str:
    """The text of a file without its byte order mark. OSError: it cannot be read, as it is no regular file,
    too large, not UTF-8, ..."""
    mode = os.stat(file).st_mode
    # A pipe would keep us waiting, and /dev/zero has no end. A folder cannot be opened anyway.
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise OSError(errno.EINVAL, "no regular file", str(file))
    try:
        with open(file, encoding="utf-8-sig", errors=errors) as stream:
            text = stream.read(most + 1)
    except UnicodeDecodeError:
        raise OSError(errno.EILSEQ, "not UTF-8", str(file)) from None
    if len(text) > most:
        raise OSError(errno.EINVAL, f"larger than {most // 2**20} MiB", str(file))
    return text


def read_json(file: Path):
    """What a JSON file holds. OSError: it cannot be read. ValueError: it is none."""
    try:
        content = json.loads(read_text(file))
        whole = is_printable(content)
    except RecursionError:
        raise ValueError("is nested too deeply") from None
    if not whole:
        raise ValueError("has half of a character")
    return content


def is_printable(content) -> bool:
    """Whether JSON holds whole characters: half of one can be escaped in it, and could not be printed"""
    try:
        json.dumps(content, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def read_config(file: Path) -> dict:
    """The config.json of a run. OSError: it cannot be read. ValueError: it is damaged, or of something
    else."""
    content = read_json(file)
    if not is_config(content):
        raise ValueError("is not the config.json of a run")
    return content


def is_config(content) -> bool:
    """Whether a run's config.json may hold this"""
    if type(content) is not dict or type(content.get("args")) is not dict:
        return False
    args = content["args"]
    # Older runs name no file.
    file = content.get("file") or ""
    if not is_text(file, 4096) or not is_text(args.get("tag", ""), LONGEST):
        return False
    for name in (content.get("algo"), args.get("env_id")):
        if not name or not is_text(name, LONGEST) or CONTROL.search(name):
            return False
    return is_count(args.get("k"), 1) and is_count(args.get("seed")) and is_count(args.get("total_timesteps"))


def is_text(x, most: int) -> bool:
    return type(x) is str and len(x) <= most and "\0" not in x


def is_count(x, least: int = 0) -> bool:
    # type(), as isinstance() takes True for a number.
    return type(x) is int and least <= x <= HIGHEST


def is_time(x) -> bool:
    """Whether this is a number of seconds; NaN is none"""
    return type(x) in (int, float) and 0 <= x < HIGHEST


def read_done(run_dir: Path) -> tuple[int, float] | None:
    """Last step and seconds of a finished run, None of another. ValueError: done.json is damaged, and the run
    counts as unfinished."""
    try:
        done = read_json(run_dir / "done.json")
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        done = None
    if type(done) is not dict or not is_count(done.get("step")) or not is_time(done.get("wall_time")):
        raise ValueError("done.json is damaged; taken as unfinished")
    return done["step"], float(done["wall_time"])


def checkpoints(run_dir: Path) -> dict[int, Path]:
    """A run's checkpoints by their steps: the last, and those that --keep-checkpoints keeps"""
    found = {}
    for file in run_dir.glob("checkpoint/*.pt"):
        if re.fullmatch("[0-9]{1,13}", file.stem):
            found[int(file.stem)] = file
    return found


class Numbers(pickle.Unpickler):
    """Reads what of a checkpoint is no tensor, in no time: torch itself takes seconds to be imported. Nothing
    that a file names is called."""

    def find_class(self, module: str, name: str):
        return nothing

    def persistent_load(self, pid):
        return None


def nothing(*args) -> None:
    pass


def read_speed(file: Path) -> tuple[int, float]:
    """The step of a checkpoint, and the seconds that its run had taken by then. ValueError: it is damaged."""
    try:
        with zipfile.ZipFile(file) as archive:
            (name,) = [name for name in archive.namelist() if name.endswith("/data.pkl")]
            with archive.open(name) as content:
                saved = Numbers(content).load()
        step, seconds = saved["step"], saved["wall_time"]
    # A damaged pickle may raise anything.
    except Exception as error:  # noqa: BLE001
        raise ValueError(f"{file} is damaged ({type(error).__name__})") from None
    if not is_count(step) or not is_time(seconds):
        raise ValueError(f"{file} is damaged")
    return step, seconds


def last_step(file: Path) -> int:
    """That of the last whole line of a CSV file; 0 where there is none"""
    try:
        with open(file, "rb") as stream:
            size = stream.seek(0, 2)
            start = max(0, size - 4096)
            stream.seek(start)
            *lines, _ = stream.read().split(b"\n")
    except OSError:
        return 0
    if start:
        # It may begin amid the digits of a return.
        lines = lines[1:]
    steps = [line.partition(b",")[0] for line in lines]
    known = [int(step) for step in steps if re.fullmatch(b"[0-9]{1,12}", step)]
    return max(known, default=0)


def write_whole(file: Path, content: bytes) -> None:
    """Writes a file wholly or not at all. OSError: it cannot be written."""
    temporary = file.with_name(f"{file.name}.tmp")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, file)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
