#!/usr/bin/env bash
# spikeloom-1m variants on one CPU thread: what narrows the gap, cheaply. 0.8 M tokens, seed 0.
# usage: [STEPS=200] research/gap_1m.sh DATA_DIR OUT_DIR VARIANT...
# DATA_DIR holds train.jsonl.xz and valid.jsonl; variants are lines of research/gap_1m.txt. The run
# `dense` in OUT_DIR is the teacher of those that have one, so it comes first.
set -u
data=$1; out=$2; shift 2
export PYTHONPATH=${SRC:-src}${PYTHONPATH:+:$PYTHONPATH} PYTHONWARNINGS=ignore OMP_NUM_THREADS=1
spikeloom=${SPIKELOOM:-python3 -m spikeloom.cli}
TEACHER=$out/dense; mkdir -p "$out"
for variant in "$@"; do
  line=$(grep "^$variant |" research/gap_1m.txt) || { echo "no variant $variant"; exit 2; }
  eval "options=(${line#*|})"
  words=$(ls -d "$out"/*/tokenizer.json 2>/dev/null | head -1)
  $spikeloom train spikeloom-1m --data "$data/train.jsonl.xz" --eval-data "$data/valid.jsonl" \
    --out "$out/$variant" --max-steps "${STEPS:-200}" ${words:+--tokenizer "${words%/*}"} \
    --set training.batch_size=16 --set training.sample_every=0 --set training.checkpoint_every=100 \
    --set training.log_every=50 "${options[@]}" --json "$out/$variant.json" \
    > "$out/$variant.log" 2>&1 || echo "FAILED $variant: $(tail -1 "$out/$variant.log")"
  echo "$variant: $(tail -1 "$out/$variant.log")"
done
