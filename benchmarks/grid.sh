#!/usr/bin/env bash
# Steps a second, all in all, of `pmoe grid` with two processes and of two `pmoe run` of one thread each, in turn.
# Starting takes part in it: at 100,000 steps a run it is some seconds of a minute.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
printf 'env = "HalfCheetah-v4"\nseed = [1, 2]\ntotal_timesteps = 100_000\n[[method]]\nalgo = "ppo"\n' >"$folder/two.toml"

for _ in 1 2 3; do
  rm -rf "$folder"/{grid,runs}
  start=$(date +%s%N)
  pmoe grid "$folder/two.toml" --workers 2 --run-dir "$folder/grid" &>/dev/null
  middle=$(date +%s%N)
  for seed in 1 2; do
    OMP_NUM_THREADS=1 pmoe run ppo --env HalfCheetah-v4 --total-timesteps 100000 --seed $seed --run-dir "$folder/runs" \
      &>/dev/null &
  done
  wait
  end=$(date +%s%N)
  echo "grid $((200000000000000 / (middle - start)))  two runs $((200000000000000 / (end - middle)))" \
    " ratio $((100 * (end - middle) / (middle - start))) %"
done
