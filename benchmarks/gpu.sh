#!/usr/bin/env bash
# All GPU checks and benchmarks, most wanted first, in at most 300 s; each has its own limit.
# usage: benchmarks/gpu.sh OUT_DIR [STEP...]      (from the root; PYTHON=python3; no STEP: all)
# What was measured when a limit strikes is in OUT_DIR/NAME.json, with "complete": false.
set -u
out=$1; shift
mkdir -p "$out"
python=${PYTHON:-python3}
export PYTHONPATH=src${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1
end=$((SECONDS + ${LIMIT:-300}))

step() {  # step NAME SECONDS COMMAND...: no longer than SECONDS, nor than what is left of the whole
  local name=$1 limit=$2; shift 2
  if [ -n "$wanted" ] && [[ " $wanted " != *" $name "* ]]; then return; fi
  local left=$((end - SECONDS))
  if [ "$left" -lt 5 ]; then echo "== $name: no time left"; return; fi
  if [ "$limit" -gt "$left" ]; then limit=$left; fi
  echo "== $name (at most $limit s)"
  local began=$SECONDS
  timeout -s INT -k 5 "$limit" stdbuf -oL -eL "$@" 2>&1 | tee "$out/$name.log"
  echo "== $name: exit ${PIPESTATUS[0]}, $((SECONDS - began)) s"
}
bench() {  # bench STEP SECONDS NAME OPTION...
  local name=$1 limit=$2; shift 2
  step "$name" "$limit" "$python" -W ignore -m spikeloom.cli bench "$@" --device cuda --json "$out/$name.json"
}
check() { step "$1" "$2" "$python" -m pytest -q -x -p no:cacheprovider -m gpu "${@:3}"; }

wanted=$*
bench event 25 event
bench attention 30 attention --quick
bench lif 25 lif --quick
bench scan 30 scan --quick
bench decode 60 decode --case spikeloom-15m
bench recurrent 30 recurrent
bench train-15m 60 train --case spikeloom-15m --quick
check check-recurrent 20 tests/ops/lif/test_recurrent_scan.py
check check-event 20 tests/ops/event/test_gather.py
# Only when asked for by name: what takes longer.
if [ -n "$wanted" ]; then
  step sweep-gather 40 "$python" -W ignore benchmarks/sweep_gather.py
  check check-attention 100 tests/ops/attention
  check check-neurons 60 tests/ops/lif
  bench attention-full 60 attention
  bench attention-fla 150 attention --case "B8 H12 K64 L4096" --slow-peers
  bench lif-full 60 lif
  bench lif-compiled 150 lif --slow-peers
  bench scan-full 60 scan
  check check-decode 60 tests/inference/test_graph_step.py
  bench decode-125m 120 decode --case spikeloom-125m
  bench train-125m 200 train --case spikeloom-125m
  bench train-15m-full 120 train --case spikeloom-15m
fi
