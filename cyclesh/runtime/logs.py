"""What a run writes down while it runs: metrics.jsonl and TensorBoard events."""

import json
import math
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np

from cyclesh.files import write_text
from cyclesh.runtime.board import Board

METRICS = "metrics.jsonl"


def read_rows(workdir: Path, last_step: int | None = None) -> list[dict]:
    """The rows of metrics.jsonl, up to a step; a last line cut off in writing is left out."""
    path = Path(workdir) / METRICS
    if not path.exists():
        return []
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return [row for row in rows if last_step is None or row["step"] <= last_step]


class RunLog:
    """Writes rows to metrics.jsonl (the source of truth) and to TensorBoard."""

    def __init__(self, workdir: Path, step: int, writes: bool = True):
        """Goes on after ``step``; rows of later steps, of a run that was cut off, are dropped.

        One process of a run ``writes``; the others only keep the rows.
        """
        self.workdir = Path(workdir)
        self.rows = read_rows(self.workdir, step)
        self._file = self._board = None
        if writes:
            self._open(step)

    def _open(self, step: int) -> None:
        path = self.workdir / METRICS
        write_text(path, "".join(json.dumps(row) + "\n" for row in self.rows))
        self._file = path.open("a", encoding="utf-8")
        self._board = Board(self.workdir / "tensorboard", step)

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(self, *_) -> None:
        if self._file:
            self._file.close()
            with suppress(OSError):  # pictures of what metrics.jsonl holds
                self._board.close()

    def write(self, row: Mapping) -> None:
        """Append a row; non-finite numbers become null, for JSON has none."""
        clean = {
            key: None if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in row.items()
        }
        self.rows.append(clean)
        if not self._file:
            return
        self._file.write(json.dumps(clean) + "\n")
        self._file.flush()
        for key, value in clean.items():
            if "/" in key and value is not None:
                self._board.scalar(key, value, clean["step"])
        self._board.flush()

    def picture(self, name: str, pixels: np.ndarray, step: int) -> None:
        """A greyscale picture (rows, columns) in [0, 1] for TensorBoard."""
        self._board.picture(name, pixels, step)
