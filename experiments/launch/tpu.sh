#!/usr/bin/env bash
# The case study on a Cloud TPU slice, from your own machine: README.md beside this file explains it.
#
#   experiments/launch/tpu.sh create | install | run [FLAGS] | log | fetch | delete
#
# Every command goes to all hosts of the slice at once; one host or many makes no difference.
set -euo pipefail
cd "$(dirname "$0")/../.."

: "${NAME:=edgeprune}"                  # of the slice, yours to choose
: "${ZONE:=us-west4-a}"                 # one in which you have quota
: "${TYPE:=v5litepod-8}"                # 8 chips of v5e in a 2 x 4 rectangle: one host
: "${VERSION:=v2-alpha-tpuv5-lite}"     # the image that belongs to that type
: "${CASE:=codellama-13b}"              # a case of experiments/boolean_codellama.py

slice() { gcloud compute tpus tpu-vm "$1" "$NAME" --zone "$ZONE" "${@:2}"; }
on_all() { slice ssh --worker=all --command "$1"; }
results="experiments/results/boolean_$CASE"

case "${1:-}" in
  create)
    slice create --accelerator-type "$TYPE" --version "$VERSION" "${@:2}" ;;
  install) # The last commit here, with its history, so that results can name it. Runs stay.
    bundle=$(mktemp -d)/edgeprune.bundle
    git bundle create --quiet "$bundle" HEAD
    gcloud compute tpus tpu-vm scp "$bundle" "$NAME:edgeprune.bundle" --zone "$ZONE" --worker=all
    # The image's Python is older than 3.11: uv brings its own.
    on_all 'set -e
      git init --quiet edgeprune_jax && cd edgeprune_jax
      git fetch --quiet ../edgeprune.bundle HEAD && git checkout --quiet --detach FETCH_HEAD
      curl -LsSf https://astral.sh/uv/install.sh | sh && PATH=$HOME/.local/bin:$PATH
      uv venv --python 3.12 .venv
      uv pip install --requirement requirements.txt "jax[tpu]==0.10.2"
      uv pip install --no-deps --editable .
      .venv/bin/edgeprune --help >/dev/null && echo "$(hostname): installed"' ;;
  run) # Goes on when this terminal is closed; given again after a stop, from the last checkpoint.
    on_all "cd edgeprune_jax
      nohup .venv/bin/python experiments/boolean_codellama.py $CASE ${*:2} \
        </dev/null >>case_study.log 2>&1 &" ;;
  log)
    slice ssh --worker=0 --command "tail -n 40 -f edgeprune_jax/case_study.log" ;;
  fetch) # The first host alone writes.
    mkdir -p experiments/results
    gcloud compute tpus tpu-vm scp --recurse "$NAME:edgeprune_jax/$results" experiments/results \
      --zone "$ZONE" --worker=0 ;;
  delete)
    slice delete "${@:2}" ;;
  *)
    sed -n '2,6s/^# \{0,1\}//p' "$0"; exit 2 ;;
esac
