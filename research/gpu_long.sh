#!/usr/bin/env bash
# Long context: 6m models with four kinds of memory, same data, tokens and recipe, then bits per
# byte over position on whole books that no model has seen. One column of runs per GPU.
# usage: TOKENS=N SECONDS_LEFT=S [EDGES=0,64,…] research/gpu_long.sh DATA_DIR OUT_DIR "RUN..." ["RUN..." …]
# DATA_DIR holds books-*.jsonl.xz (training), valid-books.jsonl.xz (held-out loss) and
# long-*.jsonl.xz (whole books, read up to 16,384 tokens). A RUN is a file of research/long, as it
# is, or dense-FILE for its dense twin with the same mixers. A run starts only while there is time for
# one like the slowest so far. Afterwards: python research/long_picture.py OUT_DIR FILE.png
set -u
data=$1; out=$2; shift 2
export PYTHONPATH=${SRC:-src}${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1 PYTHONWARNINGS=ignore
spikeloom=${SPIKELOOM:-python3 -m spikeloom.cli}
runs=${RUNS:-/tmp/runs/long}; mkdir -p "$runs" "$out"
export SPIKELOOM_CACHE=$runs/cache

run() {  # NAME
  local name=$1 file=${1#dense-} twin=()
  [ "$name" = "$file" ] || twin=(--set model.spiking=false --set training.target_active_share=null)
  $spikeloom train "research/long/$file.yaml" --data "$runs/prepared" \
    --eval-data "$data/valid-books.jsonl.xz" --out "$runs/$name" --max-tokens "$TOKENS" \
    --set training.compile="${COMPILE:-true}" --set training.checkpoint_every=1000 \
    --set training.sample_every=0 --set training.log_every=50 --set training.eval_tokens=131072 \
    ${twin[@]+"${twin[@]}"} ${EXTRA:-} --json "$out/$name.train.json" || { echo "FAILED $name"; return; }
  $spikeloom positions "$runs/$name" --data "$(ls "$data"/long-*.jsonl.xz | paste -sd,)" \
    --batch-size 8 ${EDGES:+--edges "$EDGES"} --json "$out/$name.positions.json"
  cp "$runs/$name/run.json" "$out/$name.run.json"
}

column() {  # GPU RUN...
  local gpu=$1 slowest=0 began; shift
  for name in "$@"; do
    if [ $((SECONDS + slowest)) -gt "$SECONDS_LEFT" ]; then echo "skipped $name: $SECONDS s used"; continue; fi
    began=$SECONDS
    echo "== $name at $SECONDS s"
    CUDA_VISIBLE_DEVICES=$gpu run "$name" 2>&1
    [ $((SECONDS - began)) -gt "$slowest" ] && slowest=$((SECONDS - began))
  done
}

[ -f "$runs/prepared/prepared.json" ] || $spikeloom data prepare \
  "$(ls "$data"/books-*.jsonl.xz | paste -sd,)" --preset spikeloom-6m --seed 0 --out "$runs/prepared"
echo "prepared at $SECONDS s"
gpu=0
for names in "$@"; do column $gpu $names 2>&1 | sed -u "s/^/gpu$gpu /" & gpu=$((gpu + 1)); done
wait
tar -C "$out" -czf "$out/results.tar.gz" $(cd "$out" && ls *.json) && rm -f "$out"/*.json
echo "done at $SECONDS s"
