#!/usr/bin/env bash
# Two columns of variants on a machine with two GPUs, side by side; see gpu_15m.sh for the variables.
# usage: TOKENS=N SECONDS_LEFT=S research/gpu_pair.sh DATA_DIR OUT_DIR "VARIANT..." "VARIANT..."
set -u
data=$1; out=$2
column() {  # each has its own home, so that neither waits for the other's token cache
  mkdir -p "/tmp/home$1" "$out/gpu$1"
  CUDA_VISIBLE_DEVICES=$1 HOME=/tmp/home$1 RUNS=/tmp/runs$1 \
    research/gpu_15m.sh "$data" "$out/gpu$1" $2 2>&1 | sed -u "s/^/gpu$1 /"
}
column 0 "$3" & column 1 "$4" & wait
