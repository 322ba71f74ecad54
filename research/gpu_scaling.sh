#!/usr/bin/env bash
# Loss against parameters and tokens on a machine with GPUS GPUs: research/scaling.py, a share each.
# usage: SECONDS_LEFT=S [GPUS=4] [PLAN=scaling] research/gpu_scaling.sh DATA_DIR OUT_DIR
# DATA_DIR holds train-*.jsonl.xz (tinystories, wikipedia-leads, books/train-00 and -01) and valid-* (tinystories, books).
# JSONs that lie in research/runs/PLAN are not trained again; new ones come back in
# OUT_DIR/results.tar.gz.
set -u
data=$1; out=$2; plan=${PLAN:-scaling}
export PYTHONPATH=${SRC:-src}${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1 PYTHONWARNINGS=ignore
python=${PYTHON:-python3}
runs=${RUNS:-/tmp/runs/scaling}; results=$runs/results; mkdir -p "$runs" "$out" "$results"
export SPIKELOOM_CACHE=$runs/cache
cp research/runs/$plan/*.json "$results" 2>/dev/null
train=$(ls "$data"/train-*.jsonl.xz | paste -sd,)
valid=$(ls "$data"/valid-*.jsonl* | paste -sd,)
[ -f "$runs/prepared/prepared.json" ] || $python -m spikeloom.cli data prepare "$train" \
  --preset spikeloom-15m --seed 0 --out "$runs/prepared"
$python -c "
from spikeloom import tokenizers; from spikeloom.data.packing import pack
print('held out:', len(pack('$valid', tokenizers.load('$runs/prepared/tokenizer'))), 'tokens')"
echo "prepared at $SECONDS s"
for gpu in $(seq 0 $((${GPUS:-4} - 1))); do
  CUDA_VISIBLE_DEVICES=$gpu $python research/scaling.py train --plan research/$plan.yaml --data "$runs/prepared" \
    --eval-data "$valid" --runs "$runs" --out "$results" --shard $((gpu + 1))/${GPUS:-4} \
    --seconds-left $((SECONDS_LEFT - SECONDS)) ${EXTRA:-} 2>&1 | sed -u "s/^/gpu$gpu /" &
done
wait
tar -C "$results" -czf "$out/results.tar.gz" .
echo "done at $SECONDS s: $(ls "$results" | wc -l) runs"
