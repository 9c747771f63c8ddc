#!/usr/bin/env bash
# One training run on a Cloud TPU VM, on all its hosts:
#     TPU=NAME ZONE=us-central2-b launch/tpu_vm.sh --config=configs/joint.py:mmwhs,data=FOLDER,batch=8 \
#         --workdir=/mnt/shared/runs/joint
# All words go to `python -m cyclesh.main`; with --dry_run first, the commands are printed instead.
# The variables are told in launch/README.md.
set -euo pipefail

dry_run=
if [[ ${1:-} == --dry_run ]]; then
    dry_run=1
    shift
fi
if [[ $# -eq 0 || -z ${TPU:-} || -z ${ZONE:-} ]]; then
    echo "tpu_vm.sh: set TPU and ZONE, and give --config=... and --workdir=..." >&2
    exit 2
fi

folder=${FOLDER:-cyclesh} python=${PYTHON:-python3}
checkout=$(cd "$(dirname "$0")/.." && pwd)
archive=$(basename "$folder").tar.gz
target=("$TPU" --zone="$ZONE" --worker=all)
[[ -n ${PROJECT:-} ]] && target+=(--project="$PROJECT")

words=$(printf ' %q' --coordinator=auto "$@")
pack=(tar -C "$checkout" -czf "/tmp/$archive" --exclude=.git --exclude=runs --exclude=.venv .)
copy=(gcloud compute tpus tpu-vm scp "/tmp/$archive" "$TPU:" --zone="$ZONE" --worker=all)
[[ -n ${PROJECT:-} ]] && copy+=(--project="$PROJECT")
unpack="mkdir -p $folder && tar -C $folder -xzf $archive && cd $folder"
newer="import sys; sys.exit(sys.version_info < (3, 11) and 'the hosts need Python 3.11 or newer: set PYTHON')"
install="$python -c \"$newer\" && { .venv/bin/python -m pip --version >/dev/null 2>&1 || $python -m venv --clear .venv; }"
install+=" && .venv/bin/python -m pip install --quiet -r requirements.txt 'jax[tpu]'"
cache=${CYCLESH_CACHE:+CYCLESH_CACHE=$(printf '%q' "${CYCLESH_CACHE:-}") }
train="cd $folder && ${cache}.venv/bin/python -m cyclesh.main$words"

run() {
    if [[ -n $dry_run ]]; then
        printf '%q' "$1"
        printf ' %q' "${@:2}"
        printf '\n'
    else
        "$@"
    fi
}

on_all_hosts() {
    run gcloud compute tpus tpu-vm ssh "${target[@]}" --command="$1"
}

run "${pack[@]}"
run "${copy[@]}"
on_all_hosts "$unpack && $install"

# 75: stopped with the state saved, by a notice of maintenance or by a host that went away.
status=75
until [[ $status -ne 75 ]]; do
    status=0
    on_all_hosts "$train" || status=$?
done
exit "$status"
