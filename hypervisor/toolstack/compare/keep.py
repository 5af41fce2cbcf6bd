"""What is kept of a comparison, a search for density, curves or claims.

    DIR/comparison.json      of what it is
    DIR/points/KEY.json      one finished point each

Rule 1: a file is written whole or not at all: into a temporary file beside it, fsync, rename, fsync of the folder.
Rule 2: a file is believed only if its form, its key, its identity and its checksum are right.  Anything else there,
        half-written, foreign or edited, counts as not there, and is replaced when its point has been run.
Rule 3: one at a time: the folder is locked while it is open, and the lock dies with the process.
"""

import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypervisor.toolstack.compare.identity import differences
from shm.errors import MemcommonsError, UsageProblem

SCHEMA = 1                       # of a point's body; a new form gets a new number
MANIFEST, POINTS, LOCK = "comparison.json", "points", "lock"


@dataclass(frozen=True, slots=True)
class Kept:
    """A finished point."""

    body: dict[str, Any]
    checksum: str


class Keep:
    """The folder of one of them.  One writer, the process that holds its lock."""

    def __init__(self, folder: Path, identity: Mapping[str, Any]) -> None:
        self.folder = folder
        self._identity = dict(identity)
        self._stamp = digest(self._identity)
        self._lock: int | None = None
        self._resume = False

    def open(self, resume: bool) -> None:
        """Make or take up the folder.  UsageProblem when it cannot be written, is in use, or holds something else."""
        self._resume = resume
        try:
            (self.folder / POINTS).mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self.folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._check(resume)
            write_whole(self.folder / MANIFEST, {"schema": SCHEMA, "identity": self._identity})
        except BlockingIOError:
            self.close()
            raise UsageProblem(f"--out: {self.folder}: another process is writing there; wait for its end, or give "
                               f"another folder") from None
        except OSError as error:
            self.close()
            raise UsageProblem(f"--out: {self.folder}: {error.strerror}; give a folder that can be written") from error
        except UsageProblem:
            self.close()
            raise

    def _check(self, resume: bool) -> None:
        found = read(self.folder / MANIFEST)
        if found is None:
            return
        if not resume:
            raise UsageProblem(f"--out: {self.folder} holds finished points; --resume goes on with them, or give "
                               f"another folder")
        if found.get("schema") != SCHEMA:
            raise UsageProblem(f"--resume: {self.folder} was written in another form; give another folder with --out")
        known = found.get("identity")
        different = differences(known if isinstance(known, dict) else {}, self._identity)
        if different:
            raise UsageProblem(f"--resume: {self.folder} is of something else, this differs: {'; '.join(different)}; "
                               f"give another folder with --out")

    def get(self, key: str) -> Kept | None:
        """Return a point that was finished before; None without --resume, or when there is none to be believed."""
        found = read(self.folder / POINTS / f"{key}.json") if self._resume else None
        if found is None or not isinstance(found.get("body"), dict):
            return None
        checksum = found.pop("checksum", None)
        if (found.get("schema"), found.get("key"), found.get("of")) != (SCHEMA, key, self._stamp):
            return None
        return Kept(found["body"], checksum) if checksum == digest(found) else None

    def put(self, key: str, body: dict[str, Any]) -> Kept:
        """Keep a finished point; MemcommonsError when the disk will not have it."""
        document = {"schema": SCHEMA, "key": key, "of": self._stamp, "body": body}
        checksum = digest(document)
        try:
            write_whole(self.folder / POINTS / f"{key}.json", document | {"checksum": checksum})
        except OSError as error:
            raise MemcommonsError(f"--out: {self.folder}: {error.strerror}; the points finished so far are kept, "
                                  f"--resume goes on with them") from error
        return Kept(body, checksum)

    def close(self) -> None:
        """Give up the lock; more than once is no harm."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def digest(document: Any) -> str:
    """Return the checksum of a document: of its canonical JSON, which any reader can make again."""
    return hashlib.sha256(json.dumps(document, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def read(path: Path) -> dict[str, Any] | None:
    """Return the JSON object in a file; None when there is none, whatever is there."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def write_whole(path: Path, document: Mapping[str, Any]) -> None:
    """Write a JSON file whole or not at all; what OSError comes is raised, and no temporary file stays."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(json.dumps(document) + "\n")
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
