"""Keeps two processes from training the same run: beside its directory a file says who does.

`seedN.claim` is created exclusively, names host and process, and is touched every BEAT seconds. It is dead when its
process is gone, as far as this host can tell, or when nobody has touched it for DEAD seconds; then it is taken over.
"""

import contextlib
import json
import os
import signal
import socket
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

BEAT, DEAD = 5.0, 120.0  # seconds


def beside(path: Path, ending: str) -> Path:
    return path.with_name(f"{path.name}.{ending}")


def read(file: Path) -> dict:
    """host, pid, token of a claim; half-written ones name nobody. FileNotFoundError: there is none."""
    try:
        return {"host": "?", "pid": 0, "token": "", **json.loads(file.read_text())}
    except ValueError:
        return {"host": "?", "pid": 0, "token": ""}


def holder(path: Path) -> dict | None:
    """Who has a claim on the run in `path`: host, pid, token, and whether it is alive; None: nobody"""
    file = beside(path, "claim")
    try:
        claim, age = read(file), time.time() - file.stat().st_mtime
    except FileNotFoundError:
        return None
    gone = False
    if claim["host"] == socket.gethostname():
        try:
            os.kill(claim["pid"], 0)
        except ProcessLookupError:
            gone = True
        except PermissionError:  # it is there, another user's
            pass
    return claim | {"alive": age < DEAD and not gone}


def take(path: Path, token: str) -> bool:
    """Claims a run for this process; False: another has it."""
    file = beside(path, "claim")
    claim = json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "token": token})
    while True:
        try:
            with open(file, "x") as new:
                new.write(claim)
            return True
        except FileExistsError:
            other = holder(path)
        if other and other["alive"]:
            return False
        if other:
            bury(path, other["token"])


def bury(path: Path, token: str) -> None:
    """Moves a dead claim out of the way, unless another process has already taken its place."""
    file, grave = beside(path, "claim"), beside(path, f"claim-{uuid.uuid4().hex}")
    with contextlib.suppress(FileNotFoundError):
        file.rename(grave)
        if read(grave)["token"] != token:  # a living one, created since it was looked at
            with contextlib.suppress(FileExistsError):
                os.link(grave, file)
        grave.unlink()


@contextlib.contextmanager
def claimed(paths: list[Path]) -> Iterator[None]:
    """Claims runs while the body trains them. Where it ends the program with status 1, `seedN.failed` stays beside the
    run. With PMOE_PARENT in the environment, the process ends as by SIGTERM when that one is gone. BlockingIOError:
    another process has a claim on one of them."""
    token, taken, made = uuid.uuid4().hex, [], []
    for folder in reversed([paths[0].parent, *paths[0].parent.parents]):
        if not folder.exists():
            folder.mkdir(exist_ok=True)
            made.append(folder)
    ended = threading.Event()
    try:
        for path in paths:
            if not take(path, token):
                other = holder(path) or {"pid": "?", "host": "?"}
                raise BlockingIOError(f"{path} is being trained by process {other['pid']} on {other['host']}")
            taken.append(path)
            beside(path, "failed").unlink(missing_ok=True)
        threading.Thread(target=beat, args=(taken, token, ended), daemon=True).start()
        yield
    except SystemExit as stop:
        for path in taken if stop.code == 1 else ():
            beside(path, "failed").touch()
        raise
    finally:
        ended.set()
        for path in taken:
            beside(path, "claim").unlink(missing_ok=True)
        for folder in reversed(made):  # what was refused leaves nothing
            with contextlib.suppress(OSError):
                folder.rmdir()


def beat(paths: list[Path], token: str, ended: threading.Event) -> None:
    """Keeps claims alive, until `ended`."""
    parent, touched = os.environ.get("PMOE_PARENT"), time.monotonic()
    while not ended.wait(0.5):
        if parent and os.getppid() != int(parent):
            os.kill(os.getpid(), signal.SIGTERM)
            parent = None
        if time.monotonic() - touched < BEAT:
            continue
        touched = time.monotonic()
        for path in paths:
            try:
                mine = read(beside(path, "claim"))["token"] == token
                os.utime(beside(path, "claim"))
            except FileNotFoundError:
                mine = False
            if not mine and not ended.is_set():  # slept for longer than DEAD: another has gone on with the run
                print(f"error: another process has taken over {path}", file=sys.stderr, flush=True)
                os._exit(1)
