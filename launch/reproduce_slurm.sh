#!/usr/bin/env bash
# One job of `--mode=reproduce --launch=slurm`, which submits this script itself:
#     reproduce_slurm.sh WORKDIR NAMES.txt     trial number SLURM_ARRAY_TASK_ID of the file
#     reproduce_slurm.sh WORKDIR OUTPUTS       whatever is missing of table1,table2,..., and the tables
# Partition, account, time and GPUs are taken from sbatch's own variables (SBATCH_PARTITION,
# SBATCH_ACCOUNT, SBATCH_TIMELIMIT, SBATCH_GPUS); PYTHON names the interpreter.
#SBATCH --requeue
#SBATCH --signal=B:TERM@120
#SBATCH --output=slurm-%x-%A_%a.out
set -uo pipefail

workdir=$1
if [[ -f $2 ]]; then
    name=$(sed -n "$((SLURM_ARRAY_TASK_ID + 1))p" "$2")
    what=("--trial=$name")
else
    what=("--only=$2")
fi

"${PYTHON:-python}" -m cyclesh.main --mode=reproduce --workdir="$workdir" "${what[@]}" &
child=$!
trap 'kill -TERM "$child"' TERM
wait "$child"
status=$?
if kill -0 "$child" 2>/dev/null; then # the trap ended the first wait, not the program
    wait "$child"
    status=$?
fi

# 75: stopped by a signal with the state saved.
if [[ $status -eq 75 && -n ${SLURM_JOB_ID:-} ]]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
