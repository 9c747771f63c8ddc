"""How prepare's time and memory grow with the number of files, and how fast the loader reads.

    PYTHONPATH=. python launch/pace.py [--subjects=25,50,100,200] [--shape=86x112x112]
        [--spacing=1.5] [--batch=1] [--steps=40] [--folder=FOLDER]

For each count, phantoms of so many subjects a modality are written and prepared: a JSON object a
line. Memory is the resident peak of prepare's own process and of its largest worker; the store's
size counts images and labels. The last line is of the loader, on the largest store: volumes a
second as a training run gets them, read, augmented and stacked, both domains counted. Compare with
`--mode=bench`: a step needs 2 * batch volumes in step_s seconds.
"""

import argparse
import dataclasses
import json
import resource
import subprocess
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path

from configs import default
from cyclesh.data.augment import Augment
from cyclesh.data.description import Description, describe, description_of
from cyclesh.data.phantom import PhantomSpec, write_phantom
from cyclesh.data.pipeline import Loader, choose_subset
from cyclesh.data.prepare import prepare
from cyclesh.data.recipe import draw_up
from cyclesh.data.store import VOLUMES, Store
from cyclesh.data.workers import available_cores
from cyclesh.runtime.memory import process_peak_bytes


def grid_of(raw: Path, args: argparse.Namespace) -> Description:
    """The phantom's description, on the grid that was asked for."""
    shape = tuple(int(side) for side in args.shape.split("x"))
    stated = describe(raw, description_of(default.fields().data))
    return dataclasses.replace(stated, shape=shape, spacing_mm=(float(args.spacing),) * 3)


def measure(raw: Path, target: Path, args: argparse.Namespace) -> dict:
    """Prepare, in a process that has done nothing else yet."""
    begin = time.perf_counter()
    store = prepare(draw_up(raw, target, grid_of(raw, args)), progress=False)
    seconds = time.perf_counter() - begin
    own = process_peak_bytes() / 2**20
    workers = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    size = sum(path.stat().st_size for path in (target / VOLUMES).iterdir())
    return {
        "volumes": len(store.volumes),
        "prepare_s": round(seconds, 2),
        "s_per_volume": round(seconds / len(store.volumes), 4),
        "own_peak_mb": round(own, 1),
        "worker_peak_mb": round(workers, 1),
        "workers": available_cores(),
        "store_mb": round(size / 2**20, 1),
    }


def loader_pace(store: Store, args: argparse.Namespace) -> dict:
    """Volumes a second, once the loader's buffer has emptied."""
    subset = choose_subset(store, (), -1, 0)
    augment = Augment(**default.fields().augment.to_dict())
    batches = Loader(store, subset, augment, args.batch, seed=0).batches()
    for _ in islice(batches, 4):  # what was read ahead
        pass
    begin = time.perf_counter()
    for _ in islice(batches, args.steps):
        pass
    seconds = time.perf_counter() - begin
    domains = 2 if subset.shared else 4
    return {
        "loader_volumes_per_s": round(domains * args.batch * args.steps / seconds, 2),
        "shape": args.shape,
        "batch": args.batch,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--subjects", default="25,50,100,200", help="of each modality")
    parser.add_argument("--shape", default="86x112x112")
    parser.add_argument("--spacing", default="1.5", help="mm")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--folder", default="", help="kept afterwards; default: a temporary one")
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)  # RAW STORE, in a child
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measure(*map(Path, args.measure), args)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(args.folder or temporary)
        for count in map(int, args.subjects.split(",")):
            raw, store = folder / f"raw-{count}", folder / f"store-{count}"
            write_phantom(PhantomSpec(subjects_ct=count, subjects_mr=count), raw, None, False)
            words = [f"--shape={args.shape}", f"--spacing={args.spacing}"]
            command = [sys.executable, __file__, *words, "--measure", str(raw), str(store)]
            subprocess.run(command, check=True)
        print(json.dumps(loader_pace(Store.open(store), args)), flush=True)


if __name__ == "__main__":
    main()
