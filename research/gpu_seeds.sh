#!/usr/bin/env bash
# What the seed models want of a GPU machine; about 40 s a model where not said otherwise.
# usage: research/gpu_seeds.sh DATA OUT STEP...
#   sam        real-sam-v4 on stories and other text, then on the stories alone; 7 minutes on an H200
#   one-step   one training step of pulse-1b: memory, tokens/s
#   pulse      flow-15m, pulse-15m and pulse-v2-15m, the same steps
#   hybrids    the four questions of docs/models/hybrids.md: 11 models, shared out to all GPUs
# DATA has the files of tinystories, fairytale-qa and books in folders of these names, and for sam those of
# wikipedia-leads; OUT gets JSON and Markdown (hybrids: two files; pulse and sam: an archive each). STEPS and
# SET change the runs of pulse and hybrids, as in STEPS=20 SET="--set training.compile=false"; those of sam:
# MINUTES (of the first stage), TOKENS (of the second), SAM (settings of both) and WORDS, the text that its
# tokenizer learns from. A perplexity per token goes with a tokenizer: compare bits per byte where WORDS differ.
set -u
data=$1; out=$2; shift 2
export PYTHONPATH=${SRC:-src}${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1 PYTHONWARNINGS=ignore
python=${PYTHON:-python3}; spikeloom="$python -m spikeloom.cli"; work=${WORK:-/tmp/seeds-work}
stories=$data/tinystories; tales=$data/fairytale-qa; books=$data/books
everything=$stories/train.jsonl.xz,$tales/train-stories.jsonl.xz,$books/train-00.jsonl.xz
set_up="--set training.compile=true --set training.batch_size=64 --set training.max_steps=${STEPS:-400}
  --set training.checkpoint_every=${STEPS:-400} --set training.sample_every=0 ${SET:-}"
mkdir -p "$work" "$out"

pack() {  # one tokenizer and one stream for all; documents shuffled
  [ -e "$work/data/prepared.json" ] ||
    $spikeloom data prepare "$everything" --preset minimal-transformer --seed 0 --out "$work/data"
}

sam() {  # 4 minutes were 204.4 M tokens on an H200; 34.4 M are sixteen passes over the stories
  local words=$work/words text=$stories/train.jsonl.xz leads=$data/wikipedia-leads/train.jsonl.xz
  local mix=$text,$text,$text,$tales/train-stories.jsonl.xz,$leads,$books/train-00.jsonl.xz
  local both="--eval-data $stories/valid.jsonl --set training.batch_size=256 --set training.compile=true
    --set training.sample_every=0 --set training.log_every=100"
  [ -e "$words" ] || $spikeloom tokenizer train --out "$words" \
    --data "${WORDS:-$text}"
  $spikeloom train real-sam-v4 --tokenizer "$words" --data "$mix" --out "$work/sam-mix" $both \
    --max-minutes "${MINUTES:-4.0}" --set training.checkpoint_every=100000 ${SAM:-} \
    --json "$work/sam-mix.train.json" &&
  $spikeloom train real-sam-v4 --from "$work/sam-mix" --data "$text" --out "$work/sam" $both \
    --max-tokens "${TOKENS:-34400000}" --set training.checkpoint_every=250 \
    --set training.learning_rate=1.5e-2 --set training.weight_decay=0.4 ${SAM:-} \
    --json "$work/sam.train.json" || return
  for context in 64 256; do
    $spikeloom eval "$work/sam" --data "$stories/valid.jsonl" --context $context \
      --batch-size 256 --json "$work/sam.$context.json" > "$work/eval.txt"
    head -6 "$work/eval.txt"
  done
  $spikeloom slim "$work/sam" --out "$work/sam-slim"
  tar -C "$work" -czf "$out/sam.tar.gz" sam-slim $(cd "$work" && ls -- sam*.json)
}

one_step() {
  for rows in ${ROWS:-8}; do
    $python benchmarks/one_step.py pulse-1b --device ${DEVICE:-cuda} --set training.batch_size=$rows \
      --set training.gradient_accumulation=1 --json "$out/pulse-1b-$rows.json"
  done
}

pulse() {
  pack
  for preset in flow-15m pulse-15m pulse-v2-15m; do
    $spikeloom train $preset --data "$work/data" --out "$work/$preset" $set_up \
      --json "$work/$preset.train.json"
    for text in tinystories books; do
      $spikeloom eval "$work/$preset" --data "$data/$text"/valid.jsonl* --max-tokens 60000 \
        --batch-size 32 --json "$work/$preset.$text.json" > "$work/eval.txt"
      head -6 "$work/eval.txt"
    done
  done
  tar -C "$work" -czf "$out/pulse.tar.gz" $(cd "$work" && ls -- *.json)
}

hybrids() {
  pack
  local gpus=${GPUS:-$($python -c 'import torch; print(max(torch.cuda.device_count(), 1))')}
  for ((i = 0; i < gpus; i++)); do
    CUDA_VISIBLE_DEVICES=$i $python research/hybrids.py run "$work" --shard "$i/$gpus" $set_up \
      --text tinystories="$stories/valid.jsonl" --text fairy-tales="$tales/val-stories.jsonl.xz" \
      --text books="$books/valid.jsonl.xz" 2>&1 | sed -u "s/^/gpu$i /" &
  done
  wait
  $python research/hybrids.py report "$work" --out "$out"
}

for step in "$@"; do
  echo "== $step at $SECONDS s"
  case $step in
    sam) sam ;;
    one-step) one_step ;;
    pulse) pulse ;;
    hybrids) hybrids ;;
    *) echo "no such step: $step"; exit 2 ;;
  esac
done
echo "== done at $SECONDS s"
