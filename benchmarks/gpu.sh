#!/bin/sh
# Everything that docs/performance.md needs from a GPU, in at most 7 minutes: correctness of the kernels, then
# attention alone, one UNet call, one FLUX call, the tiled VAE, a whole run.
#
#   [COMMIT=abc1234] [PYTHON=python3] benchmarks/gpu.sh [FOLDER]
#
# Each part has its own limit and writes its results to FOLDER (outputs/gpu) as they come; gpu.json holds all of
# them. Afterwards: python -m benchmarks.performance --gpu FOLDER/gpu.json
# Needed beside torch: diffusers, einops, tqdm, pytest, hypothesis, httpx and the classes of ldm (see the Makefile).
set -e
case "${1:-outputs/gpu}" in
    /*) folder=$1 ;;
    *) folder=$PWD/${1:-outputs/gpu} ;;
esac
cd "$(dirname "$0")/.."
exec "${PYTHON:-python3}" -m benchmarks.gpu --out "$folder"
