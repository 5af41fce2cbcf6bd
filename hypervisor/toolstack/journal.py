"""What `--out DIR` keeps: events.jsonl and samples.jsonl, written line by line as things happen; origin.json before
them, and summary.json when all is over.

Rule: a full disk ends no run.  The first failure is noted in `problem`, and nothing more is written.
"""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

from hypervisor.toolstack.origin import ORIGIN
from shm.errors import UsageProblem


class Journal:
    """Without a folder it keeps nothing."""

    def __init__(self, folder: Path | None = None, origin: Mapping[str, Any] | None = None) -> None:
        self.problem: str | None = None
        self._folder, self._origin = folder, origin
        self._files: dict[str, TextIO] = {}

    def open(self) -> None:
        """Make the folder and the files, or raise UsageProblem."""
        if not self._folder:
            return
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            for kind in ("events", "samples"):
                self._files[kind] = (self._folder / f"{kind}.jsonl").open("w", encoding="utf-8")
            (self._folder / "summary.json").unlink(missing_ok=True)         # of another run: it is not of these lines
            if self._origin:
                (self._folder / ORIGIN).write_text(json.dumps(self._origin) + "\n", encoding="utf-8")
        except OSError as error:
            self.close()
            raise UsageProblem(f"--out: {self._folder}: {error.strerror}; give a folder that can be written") from error

    def event(self, phase: str, event: str, **facts: Any) -> None:
        self._write("events", {"time": time.time(), "phase": phase, "event": event} | facts)

    def sample(self, phase: str, kind: str, at: float, **facts: Any) -> None:
        self._write("samples", {"phase": phase, "kind": kind, "at": at} | facts)

    def summary(self, summary: dict[str, Any]) -> None:
        if self._folder and not self.problem:
            try:
                (self._folder / "summary.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
            except OSError as error:
                self._failed(error)

    def _write(self, kind: str, line: dict[str, Any]) -> None:
        file = self._files.get(kind)
        if file and not self.problem:
            try:
                file.write(json.dumps(line) + "\n")
                file.flush()
            except OSError as error:
                self._failed(error)

    def _failed(self, error: OSError) -> None:
        self.problem = f"--out: {self._folder}: {error.strerror}; the files there are incomplete"

    def close(self) -> None:
        for file in self._files.values():
            try:
                file.close()
            except OSError as error:
                self._failed(error)
