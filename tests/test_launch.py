"""The launch scripts, with stand-ins for a cluster's commands on the PATH."""

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

LAUNCH = Path(__file__).parent.parent / "launch"
SLURM, TPU = LAUNCH / "slurm.sh", LAUNCH / "tpu_vm.sh"
TRIAL = LAUNCH / "reproduce_slurm.sh"
WORDS = ("--config=configs/joint.py:mmwhs,batch=8", "--workdir=/shared/a run")


@pytest.fixture
def cluster(tmp_path):
    """Makes commands that note how they were called; returns (environment, their notes)."""
    notes = tmp_path / "notes"
    notes.touch()
    (tmp_path / "bin").mkdir()

    def command(name: str, then: str = "exit 0") -> None:
        path = tmp_path / "bin" / name
        path.write_text(f'#!/bin/bash\nprintf "%s\\n" "{name} $*" >> {notes}\n{then}\n')
        path.chmod(0o755)

    for name in ("sbatch", "srun", "scontrol", "gcloud", "tar"):
        command(name)
    said = ("SLURM", "CPUS", "GPUS", "NODES", "TIME", "NAME", "PYTHON", "TPU", "ZONE", "PROJECT")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(said)}
    env = kept | {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
    return command, env, lambda: notes.read_text().splitlines()


def launch(script: Path, env: dict, *words: str, **variables: str) -> subprocess.CompletedProcess:
    command = ["bash", str(script), *words]
    return subprocess.run(command, env=env | variables, capture_output=True, text=True, timeout=30)


def test_a_dry_run_prints_the_commands_and_gives_none(cluster):
    _, env, notes = cluster
    done = launch(SLURM, env, "--dry_run", *WORDS, NODES="2", GPUS="4", NAME="mine")
    submit, train = (shlex.split(line) for line in done.stdout.splitlines())
    assert done.returncode == 0 and notes() == []
    assert submit[0] == "sbatch" and submit[-2:] == list(WORDS)
    assert {"--nodes=2", "--ntasks-per-node=4", "--gpus-per-node=4", "--requeue"} <= set(submit)
    assert {"--signal=TERM@120", "--job-name=mine"} <= set(submit)
    assert train[0] == "srun" and train[-2:] == list(WORDS)

    done = launch(TPU, env, "--dry_run", *WORDS, TPU="pod", ZONE="here", PROJECT="mine")
    lines = [shlex.split(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0 and notes() == []
    assert [line[0] for line in lines] == ["tar", "gcloud", "gcloud", "gcloud"]
    assert all({"--zone=here", "--worker=all", "--project=mine"} <= set(x) for x in lines[1:])
    remote = shlex.split(lines[-1][-1].removeprefix("--command="))
    assert remote[-3:] == ["--coordinator=auto", *WORDS]
    assert ".venv/bin/python" in remote


def test_a_host_s_python_is_checked_and_gets_an_environment(cluster, tmp_path):
    """What the script would run on a host, run here."""
    command, env, _ = cluster
    folder = tmp_path / "checkout"
    folder.mkdir()
    done = launch(TPU, env, "--dry_run", *WORDS, TPU="pod", ZONE="here", PYTHON="hosts-python")
    words = shlex.split(done.stdout.splitlines()[2])[-1].removeprefix("--command=")
    install = words.partition(" && cd cyclesh && ")[2]
    made = ".venv/bin; cp /bin/true .venv/bin/python"  # as `-m venv .venv` would
    command("hosts-python", f'[ "$1" = -c ] && exec {sys.executable} "$@"; mkdir -p {made}')
    for _ in range(2):
        assert subprocess.run(["bash", "-c", install], cwd=folder, env=env).returncode == 0
    assert (folder / ".venv/bin/python").exists()
    command("hosts-python", "echo too old >&2; exit 1")
    assert subprocess.run(["bash", "-c", install], cwd=folder, env=env).returncode == 1


def test_outside_of_a_job_it_submits_itself_and_within_it_trains(cluster):
    _, env, notes = cluster
    assert launch(SLURM, env, *WORDS).returncode == 0
    assert [note.split()[0] for note in notes()] == ["sbatch"]
    assert launch(SLURM, env, *WORDS, SLURM_JOB_ID="7", PYTHON="py").returncode == 0
    cores = {"SLURM_CPUS_PER_TASK": "5"}  # by which srun itself does not go
    assert launch(SLURM, env, *WORDS, SLURM_JOB_ID="7", PYTHON="py", **cores).returncode == 0
    for note, count in zip(notes()[1:], (8, 5), strict=True):
        start = f"srun --kill-on-bad-exit=0 --cpus-per-task={count} py -m cyclesh.main"
        assert note == f"{start} {' '.join(WORDS)}"


@pytest.mark.parametrize(
    ("status", "restarts", "requeued"),
    [
        (75, "0", True),
        (75, "9", True),
        (0, "0", False),
        (1, "0", False),
        (2, "0", False),
        (137, "", True),
        (137, "2", True),
        (137, "3", False),
    ],
)
def test_a_job_is_requeued_when_its_state_was_saved_or_a_few_times_when_it_was_killed(
    cluster, status, restarts, requeued
):
    command, env, notes = cluster
    command("srun", f"exit {status}")
    counted = {"SLURM_RESTART_COUNT": restarts} if restarts else {}
    assert launch(SLURM, env, *WORDS, SLURM_JOB_ID="7", **counted).returncode == status
    assert ("scontrol requeue 7" in notes()) == requeued


@pytest.mark.parametrize("status", [75, 0, 2, 137, 143])
def test_a_trial_is_requeued_only_when_its_state_was_saved(cluster, status):
    command, env, notes = cluster
    command("py", f"exit {status}")
    done = launch(TRIAL, env, "/a run", "table1", SLURM_JOB_ID="7", PYTHON="py")
    assert done.returncode == status
    assert ("scontrol requeue 7" in notes()) == (status == 75)


@pytest.mark.parametrize(("script", "program"), [(SLURM, "srun"), (TRIAL, "py")])
@pytest.mark.parametrize("signals", [1, 3])
def test_signals_to_the_job_reach_the_tasks_which_are_waited_for(cluster, script, program, signals):
    command, env, notes = cluster
    # A task that takes its time to save after the first signal.
    command(program, "trap 'trap : TERM; sleep 1; exit 75' TERM; while :; do sleep 0.1; done")
    words = WORDS if script == SLURM else ("/a run", "table1")
    env |= {"SLURM_JOB_ID": "7", "PYTHON": "py"}
    job = subprocess.Popen(["bash", str(script), *words], env=env)
    while not notes():
        time.sleep(0.05)
    for _ in range(signals):
        time.sleep(0.3)  # its trap is set right after its note
        job.send_signal(signal.SIGTERM)
    assert job.wait(timeout=20) == 75
    assert notes()[-1] == "scontrol requeue 7"


@pytest.mark.parametrize(("script", "program"), [(SLURM, "srun"), (TRIAL, "py")])
def test_a_task_that_ends_while_the_signal_is_handed_on_ends_as_it_says(cluster, script, program):
    """Its own status counts, not the 143 of the wait that the signal ended."""
    command, env, notes = cluster
    command(program, "trap 'exit 75' TERM; while :; do sleep 0.05; done")
    words = WORDS if script == SLURM else ("/a run", "table1")
    # The script's own `kill` takes so long that the task is gone when it returns.
    slow = '() { builtin kill "$@"; local status=$?; sleep 0.5; return $status; }'
    env |= {"SLURM_JOB_ID": "7", "PYTHON": "py", "BASH_FUNC_kill%%": slow}
    job = subprocess.Popen(["bash", str(script), *words], env=env | {"SLURM_RESTART_COUNT": "3"})
    while not notes():
        time.sleep(0.05)
    time.sleep(0.3)  # its trap is set right after its note
    job.send_signal(signal.SIGTERM)
    assert job.wait(timeout=20) == 75
    assert notes()[-1] == "scontrol requeue 7"


def test_a_trial_is_the_one_of_its_number_in_the_list(cluster, tmp_path):
    _, env, notes = cluster
    (tmp_path / "names.txt").write_text("ours-s0\nours-s1\n")
    words = ("--dry_run", "/a run")
    done = launch(TRIAL, env, *words, str(tmp_path / "names.txt"), SLURM_ARRAY_TASK_ID="1")
    assert shlex.split(done.stdout)[-2:] == ["--workdir=/a run", "--trial=ours-s1"]
    done = launch(TRIAL, env, *words, str(tmp_path / "names.txt"), SLURM_ARRAY_TASK_ID="2")
    assert done.returncode == 2 and "has no line for task 2" in done.stderr and not done.stdout
    done = launch(TRIAL, env, *words, "table1,figure4")
    assert shlex.split(done.stdout)[-2:] == ["--workdir=/a run", "--only=table1,figure4"]
    assert done.returncode == 0 and notes() == []


def test_hosts_of_a_tpu_that_saved_and_stopped_are_started_again(cluster, tmp_path):
    command, env, notes = cluster
    once = tmp_path / "once"
    stops = f'[[ "$*" == *cyclesh.main* && ! -e {once} ]] && touch {once} && exit 75; exit 0'
    command("gcloud", stops)
    assert launch(TPU, env, *WORDS, TPU="pod", ZONE="here").returncode == 0
    assert sum("cyclesh.main" in note for note in notes()) == 2


@pytest.mark.parametrize(
    ("script", "said"), [(SLURM, "--config"), (TPU, "TPU and ZONE"), (TRIAL, "WORKDIR")]
)
def test_what_is_missing_is_said(cluster, script, said):
    _, env, notes = cluster
    done = launch(script, env)
    assert done.returncode == 2 and said in done.stderr and notes() == []


def test_a_job_of_several_tasks_trains_and_nothing_else(cluster):
    _, env, notes = cluster
    words = ("--mode=evaluate", WORDS[1])
    for more in ({"GPUS": "4"}, {"NODES": "2"}):
        done = launch(SLURM, env, *words, **more)
        assert done.returncode == 2 and "--mode=evaluate runs in one process" in done.stderr
        assert launch(SLURM, env, "--mode=train", *WORDS, **more).returncode == 0
    assert len(notes()) == 2
    assert launch(SLURM, env, *words).returncode == 0


def test_the_scripts_are_clean():
    if not shutil.which("shellcheck") and not os.environ.get("CI"):
        pytest.skip("shellcheck is not installed")
    scripts = [*LAUNCH.glob("*.sh"), LAUNCH.parent / ".ci" / "run"]
    done = subprocess.run(["shellcheck", *map(str, scripts)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
