#!/usr/bin/env bash
# A rehearsal on eight simulated devices of this machine's CPU: SmolLM2-135M, four steps a circuit.
#
#   experiments/launch/local_mesh.sh [FLAGS of experiments/boolean_codellama.py]
#
# It goes through all that a slice goes through: weights straight into their parts, two circuits,
# four judged, a page in runs/local_mesh/results. The circuits themselves are worth nothing.
set -euo pipefail
cd "$(dirname "$0")/../.."

JAX_PLATFORMS=cpu JAX_NUM_CPU_DEVICES=8 .venv/bin/python experiments/boolean_codellama.py \
  smollm2-135m --mesh.data 2 --mesh.model 4 --config.steps 4 --config.warmup 2 \
  --examples 32 --test-examples 16 --random-circuits 1 \
  --runs runs/local_mesh --results runs/local_mesh/results "$@"
