"""The command line: `python -m cyclesh.main --config=configs/joint.py`. Flags and modes only.

Everything that a mode does is a plain function elsewhere, callable from a notebook.
"""

import errno
import json
import os
import select
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from absl import flags, logging
from ml_collections import config_flags

from cyclesh.errors import NonFiniteError, Stopped, UserError, disk_trouble
from cyclesh.runtime.heap import keep_memory

FLAGS = flags.FLAGS
config_flags.DEFINE_config_file("config", help_string="configs/NAME.py[:PRESET][,key=value...]")
flags.DEFINE_string("mode", "train", "what to do; see the README")
flags.DEFINE_string(
    "workdir",
    "",
    "the run's folder, default runs/NAME or runs/NAME-PRESET; translate, segment: or an export",
)
flags.DEFINE_string(
    "input", "", "verify, prepare: a raw folder; translate, segment: a scan or a folder of scans"
)
flags.DEFINE_string(
    "output",
    "",
    "verify: a .json of the faults; prepare: the store; translate, segment: a .nii.gz or, for a "
    "folder, a folder; export, reproduce: a folder",
)
flags.DEFINE_string("split", "test", "evaluate: which split to score")
flags.DEFINE_string(
    "checkpoint", "best", "evaluate, translate, segment, export: best, last or a step"
)
flags.DEFINE_string("shard", "0/1", "prepare: this job's share i/n of the volumes")
flags.DEFINE_integer("fold", 0, "prepare: which of the repeated splits to draw")
flags.DEFINE_string("to", "", "translate: the modality to make, e.g. mr")
flags.DEFINE_string("modality", "", "segment: the scans' modality, e.g. ct")
flags.DEFINE_enum("grid", "input", ("input", "network"), "translate, segment: the result's grid")
flags.DEFINE_enum(
    "extent", "crop", ("crop", "whole"), "translate, segment: about the structures, or all"
)
flags.DEFINE_string("center", "", "translate, segment: x,y,z in mm (RAS+) of the crop, else found")
flags.DEFINE_bool("overwrite", False, "translate, segment: make results anew that exist")
flags.DEFINE_bool("probabilities", False, "segment: write each class's probability, too")
flags.DEFINE_bool("overlay", False, "translate, segment: write a picture of each result, too")
flags.DEFINE_integer(
    "pass_voxels", 0, "translate, segment: largest volume in one pass; 0: as memory allows", 0
)
flags.DEFINE_bool(
    "dry_run", False, "train, bench, reproduce, prepare: say what would happen, do nothing"
)
flags.DEFINE_string("compare", "", "report: the workdir of a run to put beside this one")
flags.DEFINE_bool("half", False, "export: weights as float16, of half the size")
flags.DEFINE_list("only", [], "reproduce: which tables and figures, as table1,table2; else all")
flags.DEFINE_string("trial", "", "reproduce: run this one trial of the plan that --workdir holds")
flags.DEFINE_enum("launch", "here", ("here", "slurm"), "reproduce: run here, or submit to SLURM")
flags.DEFINE_integer(
    "jobs", 1, "reproduce: trials at once, each on its share of the cores or GPUs", 1
)
flags.DEFINE_string(
    "coordinator", "", "train: HOST:PORT of process 0 of several; auto: as JAX finds it"
)
flags.DEFINE_integer("processes", 0, "train: of how many processes this is one", 0)
flags.DEFINE_integer("process", 0, "train: which of them, from 0", 0)
flags.DEFINE_bool("help", False, "list the flags, do nothing")
flags.DEFINE_bool("quiet", False, "print results only")
flags.DEFINE_bool(
    "verbose", False, "train: a line for each row of metrics.jsonl, and libraries' messages"
)


def train() -> int:
    from cyclesh import train as trainer
    from cyclesh.scoring.console import results_table

    if FLAGS.dry_run:
        from cyclesh.forecast import preview

        print(preview(need_config(), workdir()))
        return 0
    results = trainer.train(need_config(), workdir(), FLAGS.quiet, FLAGS.verbose)
    print(results_table(results))
    print(f"report: {workdir() / 'report.html'}")
    return 0


def evaluate() -> int:
    from cyclesh import train as trainer
    from cyclesh.scoring.console import results_table

    results = trainer.rescore(workdir(), FLAGS.split, FLAGS.checkpoint, FLAGS.quiet)
    print(results_table(results))
    return 0


def verify() -> int:
    from cyclesh.data.description import DATASET_JSON
    from cyclesh.data.locate import verify_for
    from cyclesh.data.nifti import publish

    if FLAGS.output and Path(FLAGS.output).suffix != ".json":
        raise UserError(f"--output={FLAGS.output}: the faults are written as JSON; name a .json")
    if FLAGS.output and Path(FLAGS.output).name == DATASET_JSON:
        raise UserError(f"--output={FLAGS.output}: describes data; name another .json")
    report = verify_for(training_config(), need("input"), progress=not FLAGS.quiet)
    print(report.to_table())
    if FLAGS.output:
        publish({Path(FLAGS.output): (json.dumps(report.to_json(), indent=2) + "\n").encode()})
    return 0 if report.ok else 2


def prepare() -> int:
    from cyclesh import settings
    from cyclesh.data import prepare as preparing
    from cyclesh.data.locate import parse_shard, recipe_of, require_sound
    from cyclesh.data.recipe import WHOLE, foretell

    config, shard = need_config(), parse_shard(FLAGS.shard)
    settings.validate(config)
    recipe = recipe_of(config, need("input"), need("output"), FLAGS.fold)
    if FLAGS.dry_run:
        print(foretell(recipe, shard))
        return 0
    if shard[0] == 0:
        require_sound(config, recipe, progress=not FLAGS.quiet, downsamplings=0)
    workers = config.data.processes or None
    store = preparing.prepare(recipe, processes=workers, progress=not FLAGS.quiet, shard=shard)
    if store is None and shard == WHOLE:
        raise UserError(
            f"{FLAGS.output}: another prepare, with other settings, works there; name another one"
        )
    print(f"{FLAGS.output}: " + (preparing.describe(store) if store else "shard done"))
    return 0


def export() -> int:
    from cyclesh import export as exporter

    size = exporter.export(workdir(), need("output"), FLAGS.checkpoint, FLAGS.half)
    print(f"{FLAGS.output}: {size / 1e6:.1f} MB")
    return 0


def infer() -> int:
    """Both translate and segment."""
    from cyclesh import infer as inference
    from cyclesh.outputs import Task

    need("to" if FLAGS.mode == "translate" else "modality", "MODALITY")
    task = Task(
        FLAGS.modality,
        FLAGS.to,
        FLAGS.grid,
        FLAGS.extent,
        inference.parse_center(FLAGS.center),
        FLAGS.probabilities,
        FLAGS.overlay,
    )
    tally = inference.run(
        workdir(),
        task,
        need("input"),
        need("output"),
        checkpoint=FLAGS.checkpoint,
        pass_voxels=FLAGS.pass_voxels,
        overwrite=FLAGS.overwrite,
        quiet=FLAGS.quiet,
    )
    print(f"{FLAGS.output}: {tally}")
    return 2 if tally.failed else 0


def bench() -> int:
    from cyclesh import bench as benchmark
    from cyclesh import forecast

    if FLAGS.dry_run:
        told = forecast.forecast(need_config())
        print(forecast.to_text(told))
    else:
        told = benchmark.bench(need_config(), (lambda _: None) if FLAGS.quiet else print)
    print(json.dumps(told))
    return 0


def report() -> int:
    from cyclesh import train as trainer

    print(f"report: {trainer.rereport(workdir(), FLAGS.compare, FLAGS.quiet)}")
    return 0


def reproduce() -> int:
    from cyclesh import experiments
    from cyclesh.evidence import conduct

    only = FLAGS.only or experiments.OUTPUTS
    if FLAGS.launch == "slurm" and FLAGS.output:
        raise UserError(
            "--output: goes with --launch=here; once the jobs have ended, give the same command "
            "with it and without --launch"
        )
    if FLAGS.launch == "slurm" and FLAGS.jobs > 1:
        raise UserError("--jobs: goes with --launch=here; on a cluster every trial is a job")
    if FLAGS.trial:
        for name in ("dry_run", "launch", "only", "output", "jobs"):
            if FLAGS[name].value != FLAGS[name].default:
                raise UserError(
                    f"{FLAGS[name].serialize()}: does not go with --trial; leave it out"
                )
        conduct.run_trial(need("workdir"), FLAGS.trial, FLAGS.quiet)
        print(f"{FLAGS.trial}: done")
        return 0
    if FLAGS.config is None and FLAGS.workdir:
        folder, config, command = Path(FLAGS.workdir), experiments.read_config(FLAGS.workdir), ""
    else:
        config, command = need_config(), command_of_plan()
        folder = Path(FLAGS.workdir) if FLAGS.workdir else default_workdir("reproduce")
    if FLAGS.dry_run:
        print(experiments.dry_run(config, folder, only, FLAGS.launch, FLAGS.jobs, FLAGS.output))
        return 0
    if FLAGS.launch == "slurm":
        print("\n".join(experiments.submit(config, folder, only, command)))
        return 0
    files = experiments.reproduce(
        config,
        folder,
        only,
        FLAGS.quiet,
        command=command,
        publish_in=FLAGS.output,
        jobs=FLAGS.jobs,
    )
    print("\n".join(map(str, files)))
    return 0


MODES = {
    "train": train,
    "evaluate": evaluate,
    "verify": verify,
    "prepare": prepare,
    "translate": infer,
    "segment": infer,
    "bench": bench,
    "report": report,
    "export": export,
    "reproduce": reproduce,
}

_SCANS = ("translate", "segment")
# Flags that change what is made or name its place, and the modes that know them: elsewhere they
# are refused.
MODES_OF_FLAGS = {
    "workdir": ("train", "evaluate", *_SCANS, "report", "export", "reproduce"),
    "input": (*_SCANS, "verify", "prepare"),
    "output": (*_SCANS, "verify", "prepare", "export", "reproduce"),
    "split": ("evaluate",),
    "checkpoint": ("evaluate", "export", *_SCANS),
    "shard": ("prepare",),
    "fold": ("prepare",),
    "to": ("translate",),
    "probabilities": ("segment",),
    **dict.fromkeys(("modality", "grid", "extent", "center"), _SCANS),
    **dict.fromkeys(("overwrite", "overlay", "pass_voxels"), _SCANS),
    "dry_run": ("train", "bench", "reproduce", "prepare"),
    "compare": ("report",),
    "half": ("export",),
    **dict.fromkeys(("only", "trial", "launch", "jobs"), ("reproduce",)),
    **dict.fromkeys(("coordinator", "processes", "process"), ("train",)),
}
# Modes that, given a workdir, go by the config in it.
OF_A_WORKDIR = ("evaluate", *_SCANS, "report", "export")
# Fields that say which config it is: they name the choice of many others, and change none of them.
NAMES_OF_CONFIGS = {"method": "--config=configs/{}.py", "preset": "--config=configs/NAME.py:{}"}
# What was probably meant by a flag of other modes.
HINTS = {("train", "input"): "; to train on it, give data={} in --config"}


def need(flag: str, what: str = "PATH") -> str:
    if not FLAGS[flag].value:
        raise UserError(f"--mode={FLAGS.mode}: needs --{flag}={what}")
    return FLAGS[flag].value


def need_config():
    if FLAGS.config is None:
        raise UserError(f"--mode={FLAGS.mode}: needs --config=configs/NAME.py (see configs/)")
    return FLAGS.config


def command_of_plan() -> str:
    """What makes the plan anew: the config as given, not what is wanted of it this time."""
    fields = config_flags.get_override_values(FLAGS["config"])
    words = [f"--config={config_flags.get_config_filename(FLAGS['config'])}"]
    words += [f"--config.{field}={value}" for field, value in fields.items()]
    return shlex.join(["python", "-m", "cyclesh.main", "--mode=reproduce", *words])


def unread_config() -> str:
    """What a mode that goes by a workdir's config does with the one that was given."""
    if FLAGS.config is None:
        return ""
    if FLAGS.workdir:
        return "is not read"
    items = config_flags.get_config_filename(FLAGS["config"]).partition(":")[2]
    changed = "=" in items or config_flags.get_override_values(FLAGS["config"])
    return f"names the folder, {workdir()}, and no more" if changed else ""


def training_config():
    """The config, or the paper's where none is given."""
    if FLAGS.config is None:
        FLAGS["config"].parse(f"{find_config('configs/joint.py')}:mmwhs")
    return FLAGS.config


def workdir() -> Path:
    if FLAGS.workdir:
        return Path(FLAGS.workdir)
    if FLAGS.mode in OF_A_WORKDIR and FLAGS.config is None:
        raise UserError(f"--mode={FLAGS.mode}: give --workdir=FOLDER of a trained run")
    need_config()
    file, _, _ = config_flags.get_config_filename(FLAGS["config"]).partition(":")
    return default_workdir(Path(file).stem)


def default_workdir(name: str) -> Path:
    preset = need_config().preset
    return Path("runs") / (f"{name}-{preset}" if preset != "phantom" else name)


def find_config(path: str) -> Path:
    """A config file of the checkout or, once installed, of the package."""
    inside = Path(__file__).parent / path
    found = Path(path) if Path(path).is_file() or not inside.is_file() else inside
    if not found.is_file():
        raise UserError(f"--config={path}: no such file; see configs/")
    sys.path.append(str(found.absolute().parent.parent))  # configs import configs.default
    return found


def parse(argv: Sequence[str]) -> None:
    """Flags as usual; every mistake in them is one line."""
    argv = _joined(argv)
    for i, word in enumerate(argv):
        if word.startswith("--config="):
            path, colon, items = word.removeprefix("--config=").partition(":")
            argv[i] = f"--config={find_config(path)}{colon}{items}"
    try:
        rest = FLAGS(argv)
    except (flags.Error, AttributeError, LookupError, TypeError, ValueError) as error:
        raise UserError(f"{_said(error, argv)}; see the README for flags and keys") from None
    if rest[1:]:
        raise UserError(f"{rest[1]}: unexpected; flags are --name=value")
    if FLAGS.mode not in MODES:
        raise UserError(f"--mode={FLAGS.mode}: unknown; use one of {', '.join(MODES)}")
    changed = {} if FLAGS.config is None else config_flags.get_override_values(FLAGS["config"])
    for field, instead in NAMES_OF_CONFIGS.items():
        if field in changed:
            raise UserError(
                f"--config.{field}={changed[field]}: would change the name alone; give "
                f"{instead.format(changed[field])}"
            )
    if FLAGS.quiet and FLAGS.verbose:
        raise UserError("--quiet and --verbose: give one of them")
    for name, modes in MODES_OF_FLAGS.items():
        if FLAGS[name].value != FLAGS[name].default and FLAGS.mode not in modes:
            hint = HINTS.get((FLAGS.mode, name), "").format(FLAGS[name].value)
            known = " or ".join(modes)
            raise UserError(f"{FLAGS[name].serialize()}: goes with --mode={known}{hint}")


def _joined(argv: Sequence[str]) -> list[str]:
    """`--config VALUE`, which is a flag as well, as one word."""
    words: list[str] = []
    for word in argv:
        if words and words[-1] == "--config":
            words[-1] = f"--config={word}"
        else:
            words.append(word)
    return words


def _said(error: Exception, argv: Sequence[str]) -> str:
    """What is wrong with the flags; of an unknown field the config says no more than its name."""
    text = str(error).splitlines()[0]
    name = text.strip("\"'")
    fields = (word.partition("=")[0] for word in argv if word.startswith("--config."))
    unknown = [field for field in fields if name in field.split(".")[1:]]
    return f"{' or '.join(unknown)}: the config has no field {name}" if unknown else text


def run(argv: Sequence[str] | None = None) -> int:
    """The whole program; returns its exit status."""

    def parsed() -> int:
        parse(sys.argv if argv is None else argv)
        # Orbax warns of what is meant to be, and logs the errors that it raises.
        logging.set_verbosity(logging.INFO if FLAGS.verbose else logging.FATAL)
        threading.excepthook = keep_threads_quiet
        return 0

    return status_of(parsed) or status_of(usage if FLAGS.help else together)


def together() -> int:
    """The mode, in one process or, for training, as one of those that were started together."""
    from cyclesh.runtime import distributed

    if FLAGS.mode == "train":
        joined = (FLAGS.coordinator, FLAGS.processes, FLAGS.process)
        if place := distributed.find_place(*joined, os.environ):
            return distributed.together(place, lambda: status_of(train))
    if FLAGS.mode in OF_A_WORKDIR and not FLAGS.quiet and (unread := unread_config()):
        text = f"--config {unread}: --mode={FLAGS.mode} goes by the workdir's own config"
        print(f"cyclesh: {text}", file=sys.stderr)
    with distributed.ended_by_signals():
        return MODES[FLAGS.mode]()


def usage() -> int:
    print(
        "python -m cyclesh.main --config=configs/NAME.py[:PRESET][,key=value...] [--mode=MODE]\n"
        f"modes: {', '.join(MODES)}; README.md has configs, presets and keys\n"
        f"{FLAGS.main_module_help()}"
    )
    return 0


def status_of(work: Callable[[], int]) -> int:
    """The exit status of ``work``; how it ended otherwise is one line on stderr."""
    try:
        return work()
    except (UserError, NonFiniteError, Stopped) as error:
        print(f"cyclesh: {error}", file=sys.stderr)
        statuses = {UserError: 2, NonFiniteError: 3, Stopped: 75}
        return next(status for kind, status in statuses.items() if isinstance(error, kind))
    except KeyboardInterrupt:  # before signals have their handlers
        print("cyclesh: stopped by SIGINT before anything was begun", file=sys.stderr)
        return 75
    except PermissionError as error:
        what = f"{error.filename}: {error.strerror}; name another place, or change who may use it"
        print(f"cyclesh: {what}", file=sys.stderr)
        return 2
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            print(
                f"cyclesh: {error.filename}: {error.strerror}; use a shorter one", file=sys.stderr
            )
            return 2
        if disk_trouble(error) is None:
            raise
        what = error.filename or "the disk"
        room = "make room there, and the same command goes on"
        advice = "name another place" if error.errno == errno.EROFS else room
        print(f"cyclesh: {what}: cannot be written ({error.strerror}); {advice}", file=sys.stderr)
        return 2


def keep_threads_quiet(failed: threading.ExceptHookArgs) -> None:
    """Threads that log and save need not tell of a full disk, too: `status_of` does."""
    if disk_trouble(failed.exc_value) is None:
        threading.__excepthook__(failed)


def reader_has_gone() -> bool:
    """Whether stdout is a pipe from which nobody reads any more."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def command() -> None:
    """`run` as a program of its own: with memory that is kept, ended by its exit status."""
    keep_memory()
    if sys.stdout is not None:  # closed, as by what starts daemons
        sys.stdout.reconfigure(errors="backslashreplace")  # files' names may be of any bytes
    try:
        exit_status = run()
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        if not reader_has_gone():
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        exit_status = 128 + signal.SIGPIPE  # as of any program whose output `head` has cut
    if exit_status:  # at once: what is called at exit would fail again, and say so
        for stream in filter(None, (sys.stdout, sys.stderr)):
            stream.flush()
        os._exit(exit_status)


if __name__ == "__main__":
    command()
