"""What TensorBoard shows of a run, read from its event files by the file format's rules.

A record is its length (8 bytes), a checksum (4), the event, a checksum (4). A session that starts
at a step makes the reader forget what was read before from that step on; the first start of all
does not (plugin_event_accumulator.py of TensorBoard).
"""

import struct
from pathlib import Path

from tensorboardX.crc32c import crc32c
from tensorboardX.proto.event_pb2 import Event, SessionLog


def events(path: Path):
    """The events of a file; one that was cut off in writing is left out."""
    content, place = path.read_bytes(), 0
    while place + 12 <= len(content):
        (length,) = struct.unpack_from("<Q", content, place)
        record = content[place + 12 : place + 12 + length]
        if place + 16 + length > len(content):
            return
        (checksum,) = struct.unpack_from("<I", content, place + 12 + length)
        assert checksum == _masked(record)
        yield Event.FromString(record)
        place += 16 + length


def shown(workdir: Path) -> dict[str, dict[int, float | None]]:
    """{tag: {step: value}}, None for a picture; no step may come twice."""
    found: dict[str, dict[int, float | None]] = {}
    begun = False
    for path in sorted((workdir / "tensorboard").iterdir()):
        for event in events(path):
            if event.session_log.status == SessionLog.START:
                for steps in found.values() if begun else ():
                    for step in [step for step in steps if step >= event.step]:
                        del steps[step]
                begun = True
            for value in event.summary.value:
                steps = found.setdefault(value.tag, {})
                assert event.step not in steps, (value.tag, event.step)
                steps[event.step] = None if value.HasField("image") else value.simple_value
    return found


def _masked(data: bytes) -> int:
    checksum = crc32c(data)
    return ((checksum >> 15 | checksum << 17 & 0xFFFFFFFF) + 0xA282EAD8) & 0xFFFFFFFF
