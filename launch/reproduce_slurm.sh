#!/usr/bin/env bash
# One job of `--mode=reproduce --launch=slurm`, which submits this script itself:
#     reproduce_slurm.sh WORKDIR NAMES.txt     trial number SLURM_ARRAY_TASK_ID of the file
#     reproduce_slurm.sh WORKDIR OUTPUTS       whatever is missing of table1,table2,..., and the tables
# Partition, account, time and GPUs are taken from sbatch's own variables (SBATCH_PARTITION,
# SBATCH_ACCOUNT, SBATCH_TIMELIMIT, SBATCH_GPUS); PYTHON names the interpreter. With --dry_run first,
# the command is printed instead.
#SBATCH --requeue
#SBATCH --signal=B:TERM@120
#SBATCH --output=slurm-%x-%A_%a.out
set -uo pipefail

dry_run=
if [[ ${1:-} == --dry_run ]]; then
    dry_run=1
    shift
fi
if [[ $# -ne 2 ]]; then
    echo "reproduce_slurm.sh: give WORKDIR and NAMES.txt or OUTPUTS, and --dry_run before them to" \
        "look first; --mode=reproduce --launch=slurm submits it" >&2
    exit 2
fi

workdir=$1
if [[ -f $2 ]]; then
    name=$(sed -n "$((${SLURM_ARRAY_TASK_ID:-0} + 1))p" "$2")
    if [[ -z $name ]]; then # as for a task of an earlier submission, whose list was longer
        echo "reproduce_slurm.sh: $2 has no line for task ${SLURM_ARRAY_TASK_ID:-0}" >&2
        exit 2
    fi
    what=("--trial=$name")
else
    what=("--only=$2")
fi
command=("${PYTHON:-python}" -m cyclesh.main --mode=reproduce --workdir="$workdir" "${what[@]}")

if [[ -n $dry_run ]]; then
    printf '%q' "${command[0]}"
    printf ' %q' "${command[@]:1}"
    printf '\n'
    exit 0
fi

"${command[@]}" &
child=$!
handed_on=
trap 'handed_on=1; kill -TERM "$child"' TERM
wait "$child"
status=$?
while [[ -n $handed_on ]]; do # the trap ended the wait; how a program ended, bash remembers
    handed_on=
    wait "$child"
    status=$?
done

# 75: stopped by a signal with the state saved.
if [[ $status -eq 75 && -n ${SLURM_JOB_ID:-} ]]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
