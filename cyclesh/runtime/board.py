"""TensorBoard events, written in the order they are given and on disk when `flush` returns.

tensorboardX's own SummaryWriter hands events to a thread: what that had not written yet when a run
was killed would be missing for good, for a resumed run goes on behind its last checkpoint.
"""

import time
from pathlib import Path

import numpy as np
from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog


class Board:
    """One event file of a run, which may have several: one for each time it was started."""

    def __init__(self, folder: Path, step: int):
        """`step`: after which it goes on; TensorBoard then forgets later ones of older files.

        It takes a run's first start for the beginning and only further ones for restarts, so each
        file tells of its own.
        """
        folder.mkdir(parents=True, exist_ok=True)
        # The suffix keeps files apart that are begun in one second.
        self._writer = EventsWriter(str(folder / "events"), f".{step}.{time.time_ns()}")
        self._write(Event(step=step + 1, session_log=SessionLog(status=SessionLog.START)))

    def scalar(self, name: str, value: float, step: int) -> None:
        self._write(Event(step=step, summary=summary.scalar(name, value)))

    def picture(self, name: str, pixels: np.ndarray, step: int) -> None:
        """A greyscale picture (rows, columns) in [0, 1]."""
        self._write(Event(step=step, summary=summary.image(name, pixels, dataformats="HW")))

    def flush(self) -> None:
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()

    def _write(self, event: Event) -> None:
        event.wall_time = time.time()
        self._writer.write_event(event)
