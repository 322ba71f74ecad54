#!/usr/bin/env bash
# spikeloom-15m variants on one GPU: same data, tokenizer, tokens and recipe for all.
# usage: TOKENS=N SECONDS_LEFT=S [EVAL=N] [PRESET=spikeloom-6m] research/gpu_15m.sh DATA_DIR OUT_DIR VARIANT...
# DATA_DIR holds books-*.jsonl.xz, wikipedia-articles.jsonl.xz, tinystories.jsonl.xz and valid-*;
# variants are lines of research/variants.txt; EVAL tokens of each valid-* are scored at the end.
# A variant with a teacher needs that run (dense, dense-wide) before it in the same call.
# A variant starts only while there is time for one like the slowest so far.
set -u
data=$1; out=$2; shift 2
export PYTHONPATH=${SRC:-src}${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1 PYTHONWARNINGS=ignore
spikeloom=${SPIKELOOM:-python3 -m spikeloom.cli}
train=$(ls "$data"/books-*.jsonl.xz | paste -sd,),$data/wikipedia-articles.jsonl.xz,$data/tinystories.jsonl.xz
valid=$data/valid-books.jsonl.xz,$data/valid-wikipedia.jsonl.xz,$data/valid-tinystories.jsonl
runs=${RUNS:-/tmp/runs}; figures=$runs/figures; mkdir -p "$runs" "$out" "$figures"
slowest=0
for variant in "$@"; do
  if [ $((SECONDS + slowest)) -gt "$SECONDS_LEFT" ]; then echo "skipped $variant: $SECONDS s used"; continue; fi
  began=$SECONDS
  line=$(grep "^$variant |" research/variants.txt) || { echo "no variant $variant"; exit 2; }
  eval "options=(${line#*|})"
  tokenizer=$(ls -d "$runs"/*-"$TOKENS"/ 2>/dev/null | head -1)
  run=$runs/$variant-$TOKENS
  echo "== $variant at $SECONDS s"
  $spikeloom train ${PRESET:-spikeloom-15m} --data "$train" --eval-data "$valid" --out "$run" \
    --max-tokens "$TOKENS" ${tokenizer:+--tokenizer "$tokenizer"} \
    --set training.compile=${COMPILE:-true} --set training.checkpoint_every=500 \
    --set training.sample_every=1500 --set training.log_every=50 --set training.eval_tokens=131072 \
    "${options[@]}" ${EXTRA:-} --json "$figures/$variant.train.json" 2>&1 || echo "FAILED $variant"
  if [ "${EVAL:-0}" -gt 0 ]; then
    for set in books wikipedia tinystories; do
      file=$(ls "$data"/valid-$set.jsonl*)
      $spikeloom eval "$run" --data "$file" --max-tokens "$EVAL" --batch-size 32 \
        --json "$figures/$variant.$set.json" > "$run/eval.txt"; head -6 "$run/eval.txt"
    done
  fi
  cp "$run/trainer_state.json" "$figures/$variant.trainer_state.json"
  cp "$run/run.json" "$figures/$variant.run.json"
  tar -C "$figures" -czf "$out/results.tar.gz" $(cd "$figures" && ls *.json)
  [ $((SECONDS - began)) -gt "$slowest" ] && slowest=$((SECONDS - began))
done
echo "done at $SECONDS s"
