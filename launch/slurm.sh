#!/usr/bin/env bash
# One training run on a SLURM cluster, one task a GPU, on one node or several:
#     NODES=2 GPUS=4 launch/slurm.sh --config=configs/joint.py:mmwhs,data=FOLDER,batch=8 --workdir=FOLDER
# All words go to `python -m cyclesh.main`; with --dry_run first, the commands are printed instead.
# The variables are told in launch/README.md.
set -uo pipefail

nodes=${NODES:-1} gpus=${GPUS:-1} python=${PYTHON:-python}
dry_run=
if [[ ${1:-} == --dry_run ]]; then
    dry_run=1
    shift
fi
if [[ $# -eq 0 ]]; then
    echo "slurm.sh: give --config=... and --workdir=..., and --dry_run before them to look first" >&2
    exit 2
fi

for word in "$@"; do
    if [[ $word == --mode=* && $word != --mode=train && $nodes:$gpus != 1:1 ]]; then
        echo "slurm.sh: $word runs in one process; leave NODES and GPUS at 1" >&2
        exit 2
    fi
done

# SLURM's notice goes to the tasks, which save their state. One that fails ends the others by itself;
# srun would kill them before they could say how they ended.
# And srun no longer takes the number of cores from sbatch.
train=(srun --kill-on-bad-exit=0 --cpus-per-task="${SLURM_CPUS_PER_TASK:-${CPUS:-8}}"
    "$python" -m cyclesh.main "$@")
submit=(sbatch
    --job-name="${NAME:-cyclesh}"
    --nodes="$nodes" --ntasks-per-node="$gpus" --gpus-per-node="$gpus"
    --cpus-per-task="${CPUS:-8}" --time="${TIME:-24:00:00}"
    --signal="TERM@${NOTICE_S:-120}" --requeue --open-mode=append --output="%x-%j.out"
    --export=ALL "$0" "$@")

if [[ -n $dry_run ]]; then
    printf '%q ' "${submit[@]}"
    printf '\n%q' "${train[0]}"
    printf ' %q' "${train[@]:1}"
    printf '\n'
    exit 0
fi
if [[ -z ${SLURM_JOB_ID:-} ]]; then
    exec "${submit[@]}"
fi

# Within the job. A SIGTERM that reaches this shell is handed on, and the tasks are waited for.
"${train[@]}" &
child=$!
handed_on=
trap 'handed_on=1; kill -TERM "$child"' TERM
wait "$child"
status=$?
while [[ -n $handed_on ]]; do # the trap ended the wait; how tasks ended, bash remembers
    handed_on=
    wait "$child"
    status=$?
done

# 75: stopped with the state saved. From 128 on: a task was killed, for want of memory or by a node's
# fault; that may pass, and may not.
if [[ $status -eq 75 || ($status -ge 128 && ${SLURM_RESTART_COUNT:-0} -lt 3) ]]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
