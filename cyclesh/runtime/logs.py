"""What a run says while it runs: metrics.jsonl, TensorBoard events, a live line."""

import json
import math
import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np
from tensorboardX import SummaryWriter
from tqdm import tqdm

METRICS = "metrics.jsonl"


def read_rows(workdir: Path) -> list[dict]:
    """The rows of metrics.jsonl; a last line that was cut off in writing is left out."""
    path = Path(workdir) / METRICS
    if not path.exists():
        return []
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows


class RunLog:
    """Writes rows to metrics.jsonl (the source of truth) and to TensorBoard."""

    def __init__(self, workdir: Path, step: int, writes: bool = True):
        """Goes on after ``step``; rows of later steps, of a run that was cut off, are dropped.

        One process of a run ``writes``; the others only keep the rows.
        """
        self.workdir = Path(workdir)
        self.rows = [row for row in read_rows(self.workdir) if row["step"] <= step]
        self._file = self._board = None
        if writes:
            self._open(step)

    def _open(self, step: int) -> None:
        path = self.workdir / METRICS
        partial = path.with_suffix(".partial")
        partial.write_text("".join(json.dumps(row) + "\n" for row in self.rows), encoding="utf-8")
        os.replace(partial, path)
        self._file = path.open("a", encoding="utf-8")
        self._board = SummaryWriter(
            str(self.workdir / "tensorboard"), purge_step=step + 1 if step else None, flush_secs=30
        )

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
                self._board.add_scalar(key, value, clean["step"])

    def picture(self, name: str, pixels: np.ndarray, step: int) -> None:
        """A greyscale picture (rows, columns) in [0, 1] for TensorBoard."""
        self._board.add_image(name, pixels, step, dataformats="HW")


class Progress:
    """One live line on a terminal; where there is none, a plain line each time `note` is given."""

    def __init__(self, total: int, start: int, quiet: bool):
        self._quiet = quiet
        self._live = sys.stderr.isatty() and not quiet
        self._bar = tqdm(
            total=total,
            initial=start,
            disable=not self._live,
            dynamic_ncols=True,
            bar_format="{desc} {n_fmt}/{total_fmt} |{bar:12}| {rate_fmt} ETA {remaining}{postfix}",
            unit="step",
            smoothing=0.1,
        )

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_) -> None:
        self._bar.close()

    def advance(self, phase: str, losses: str) -> None:
        self._bar.set_description_str(phase, refresh=False)
        self._bar.set_postfix_str(losses, refresh=False)
        self._bar.update()

    def note(self, text: str) -> None:
        """A line that stays."""
        if self._live:
            self._bar.write(text, file=sys.stderr)
        elif not self._quiet:
            print(text, file=sys.stderr, flush=True)


def losses_line(values: Mapping[str, float]) -> str:
    """What each kind of network descends: "G 3.210  D 0.412  S 0.523"."""
    names = {"gen": "G", "disc": "D", "seg": "S"}
    return "  ".join(
        f"{label} {values[f'{name}/total']:.3f}"
        for name, label in names.items()
        if f"{name}/total" in values
    )


def validation_line(row: Mapping, total_steps: int) -> str:
    """The line that a validation leaves: where the run is, losses, scores, time to go."""
    scores = "  ".join(
        f"{key.removeprefix('val/').replace('_', ' ')} {row[key]:.3f}"
        for key in row
        if key.startswith(("val/dice_", "val/s_score_"))
    )
    left_s = row["wall_s"] / row["step"] * (total_steps - row["step"])
    left = f"{int(left_s // 60)}:{int(left_s % 60):02d}"
    place = f"{row['phase']} {row['step']}/{total_steps}"
    return f"{place}  {losses_line(row)}  |  {scores}  |  ETA {left}"
