"""What ITK's readers do not look at in MetaImage and NRRD files.

The checksums of packed voxels, and whether the header says where voxels lie.
"""

import zlib
from collections.abc import Mapping
from pathlib import Path

HEADER_BYTES = 2**16  # in which a header ends
CHUNK_BYTES = 2**20
SPACING, ORIENTATION = "spacing", "orientation"
ANY = 32 + zlib.MAX_WBITS  # zlib or gzip, as the data say


def require_whole(path: Path) -> None:
    """Raises zlib.error where a file's voxels are packed and damaged.

    Nothing is said of files that are not packed, of several files, or of no header.
    """
    with open(path, "rb") as file:
        begin = file.read(HEADER_BYTES)
    find = _of_nrrd if begin.startswith(b"NRRD") else _of_metaimage
    where, offset = find(begin, path)
    if where is None or not where.is_file():
        return
    unpack = zlib.decompressobj(ANY)
    with open(where, "rb") as file:
        file.seek(offset)
        while not unpack.eof:
            chunk = file.read(CHUNK_BYTES)
            if not chunk:
                raise zlib.error("cut off")
            while chunk and not unpack.eof:
                unpack.decompress(chunk, CHUNK_BYTES)
                chunk = unpack.unconsumed_tail


def unstated(path: Path) -> set[str]:
    """What of SPACING and ORIENTATION a header leaves open, for which ITK takes 1 mm and LPS."""
    with open(path, "rb") as file:
        begin = file.read(HEADER_BYTES)
    if begin.startswith(b"NRRD"):
        fields = _fields(begin[: min(_nrrd_ends(begin), default=(len(begin), 0))[0]], ":")
        directed = "space directions" in fields and "nan" not in fields["space directions"].lower()
        stated = {SPACING: directed or "spacings" in fields, ORIENTATION: directed}
        stated[ORIENTATION] &= "space" in fields
    else:
        fields = _fields(begin.partition(b"ElementDataFile")[0], "=")
        stated = {
            SPACING: any(key in fields for key in ("elementspacing", "elementsize")),
            ORIENTATION: any(
                key in fields for key in ("transformmatrix", "orientation", "rotation")
            ),
        }
    return {what for what, said in stated.items() if not said}


def _of_metaimage(begin: bytes, path: Path) -> tuple[Path | None, int]:
    """The file with packed voxels, and where in it they begin; None where they are not packed."""
    head, mark, rest = begin.partition(b"ElementDataFile")
    line, end, _ = rest.partition(b"\n")
    name = line.strip(b" =\r\t").decode("latin-1")
    fields = _fields(head, "=")
    if not mark or fields.get("compresseddata", "").casefold() != "true":
        return None, 0
    if fields.get("headersize", "0") != "0":  # what comes before the voxels is not ours to know
        return None, 0
    if name.casefold() == "local":
        return path, len(head) + len(mark) + len(line) + len(end)
    return path.parent / name, 0


def _of_nrrd(begin: bytes, path: Path) -> tuple[Path | None, int]:
    """As `_of_metaimage`."""
    ends = _nrrd_ends(begin)
    last, offset = min(ends, default=(len(begin), 0))
    fields = _fields(begin[:last], ":")
    skips = {fields.get(key, "0") for key in ("line skip", "lineskip", "byte skip", "byteskip")}
    if fields.get("encoding", "").casefold() not in ("gzip", "gz") or skips != {"0"}:
        return None, 0
    detached = fields.get("data file", fields.get("datafile"))
    if detached:
        return path.parent / detached, 0
    return (path, offset) if ends else (None, 0)


def _nrrd_ends(begin: bytes) -> list[tuple[int, int]]:
    """Where the header may end, and what follows it begin."""
    unix, dos = begin.find(b"\n\n"), begin.find(b"\r\n\r\n")
    return [(place, place + length) for place, length in ((unix, 2), (dos, 4)) if place >= 0]


def _fields(head: bytes, sign: str) -> Mapping[str, str]:
    lines = (line.partition(sign) for line in head.decode("latin-1").splitlines())
    return {key.strip().casefold(): value.strip() for key, _, value in lines}
