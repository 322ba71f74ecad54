#!/usr/bin/env bash
# spikeloom-15m against its dense twin and two variants on one GPU: same data, tokenizer, tokens.
# usage: research/gpu_15m.sh DATA_DIR OUT_DIR TOKENS SECONDS VARIANT...
# DATA_DIR holds books-*.jsonl.xz, wikipedia-articles.jsonl.xz, tinystories.jsonl.xz and valid-*.
# A variant starts only while enough of SECONDS is left for one like the slowest so far.
set -u
data=$1; out=$2; tokens=$3; limit=$4; shift 4
export PYTHONPATH=src PYTHONUNBUFFERED=1 PYTHONWARNINGS=ignore
spikeloom="python3 -m spikeloom.cli"
train=$(ls "$data"/books-*.jsonl.xz | paste -sd,),$data/wikipedia-articles.jsonl.xz,$data/tinystories.jsonl.xz
valid=$data/valid-books.jsonl.xz,$data/valid-wikipedia.jsonl.xz,$data/valid-tinystories.jsonl
hybrid='[{mixer: sdsa, mlp: relu2, decay: gated}, {mixer: sdsa, mlp: relu2, decay: gated}, {mixer: sdsa, mlp: relu2, decay: gated}, {mixer: attention, mlp: relu2, sliding_window: 128}]'
runs=/tmp/runs; mkdir -p "$runs" "$out"
slowest=0
for variant in "$@"; do
  if [ $((SECONDS + slowest)) -gt "$limit" ]; then echo "skipped $variant: $SECONDS s used"; continue; fi
  began=$SECONDS
  case $variant in
    fire6) options=() ;;
    dense) options=(--twin dense) ;;
    quantised) options=(--twin quantised) ;;
    fire4) options=(--set model.neurons.default.fire_level=4) ;;
    fire5) options=(--set model.neurons.default.fire_level=5) ;;
    hybrid) options=(--set "model.layers=$hybrid") ;;
    hybrid-dense) options=(--set "model.layers=$hybrid" --set training.target_active_share=null
                           --set model.neurons.default.kind=none --set model.neurons.mlp_hidden.kind=none) ;;
    *) echo "unknown variant $variant"; exit 2 ;;
  esac
  tokenizer=$(ls -d "$runs"/*/ 2>/dev/null | head -1)
  echo "== $variant at $SECONDS s"
  $spikeloom train spikeloom-15m --data "$train" --eval-data "$valid" --out "$runs/$variant" \
    --max-tokens "$tokens" ${tokenizer:+--tokenizer "$tokenizer"} \
    --set training.compile=${COMPILE:-true} --set training.checkpoint_every=500 \
    --set training.sample_every=1500 --set training.log_every=50 --set training.eval_tokens=131072 \
    "${options[@]}" ${EXTRA:-} --json "$out/$variant.train.json" 2>&1 | tr '\r' '\n' || echo "FAILED $variant"
  for set in books wikipedia tinystories; do
    file=$(ls "$data"/valid-$set.jsonl*)
    $spikeloom eval "$runs/$variant" --data "$file" --max-tokens 200000 --batch-size 32 \
      --json "$out/$variant.$set.json" | head -12
  done
  cp "$runs/$variant/trainer_state.json" "$out/$variant.trainer_state.json"
  cp "$runs/$variant/run.json" "$out/$variant.run.json"
  [ $((SECONDS - began)) -gt "$slowest" ] && slowest=$((SECONDS - began))
done
tar -C "$out" -czf "$out/results.tar.gz" $(cd "$out" && ls *.json) && rm "$out"/*.json
echo "done at $SECONDS s"
