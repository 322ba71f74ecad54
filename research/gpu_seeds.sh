#!/usr/bin/env bash
# What the seed models want of a GPU machine; about 40 s a model where not said otherwise.
# usage: research/gpu_seeds.sh DATA OUT STEP...
#   sam        real-sam-v4 on tinystories alone (stories), and with other text (mixed)
#   one-step   one training step of pulse-1b: memory, tokens/s
#   pulse      flow-15m, pulse-15m and pulse-v2-15m, the same steps
#   hybrids    the four questions of docs/models/hybrids.md: 11 models, shared out to all GPUs
# DATA has the files of tinystories, fairytale-qa and books in folders of these names; OUT gets
# JSON and Markdown (hybrids: two files; pulse and sam: an archive each). STEPS and SET change the runs
# of pulse and hybrids, as in STEPS=20 SET="--set training.compile=false"; RUNS, PASSES (of the stories),
# MINUTES and SAM those of sam, as in RUNS=stories PASSES=6 SAM="--set training.learning_rate=2e-2".
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

sam() {  # PASSES times the stories' 2.15 M tokens, and as much other text if mixed
  local words=$work/words passes=${PASSES:-12}
  [ -e "$words" ] || $spikeloom tokenizer train --data "$stories/train.jsonl.xz" --out "$words"
  for name in ${RUNS:-stories mixed}; do
    local text=$stories/train.jsonl.xz tokens=${TOKENS:-$((passes * 2150000))}
    if [ $name = mixed ]; then
      for ((i = 1; i < passes / 2; i++)); do text=$text,$stories/train.jsonl.xz; done
      text=$text,$tales/train-stories.jsonl.xz,$books/train-00.jsonl.xz tokens=$((2 * tokens))
    fi
    $spikeloom train real-sam-v4 --data "$text" --eval-data "$stories/valid.jsonl" --tokenizer "$words" \
      --out "$work/sam-$name" --max-tokens $tokens --max-minutes ${MINUTES:-4} --set training.batch_size=64 \
      --set training.compile=true --set training.checkpoint_every=1000 --set training.log_every=100 \
      --set training.sample_every=0 ${SAM:-} --json "$work/sam-$name.train.json"
    for context in 64 256; do
      $spikeloom eval "$work/sam-$name" --data "$stories/valid.jsonl" --context $context \
        --batch-size 256 --json "$work/sam-$name.$context.json" > "$work/eval.txt"
      head -6 "$work/eval.txt"
    done
    cp "$work/sam-$name/trainer_state.json" "$work/sam-$name.state.json"
    $spikeloom slim "$work/sam-$name" --out "$work/sam-$name-slim"
    tar -C "$work" -czf "$out/sam-$name.tar.gz" sam-$name-slim $(cd "$work" && ls -- sam-$name.*.json)
  done
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
