#!/usr/bin/env bash
# A run on 32 hosts of 8 GPUs under SLURM: Ray's head on the first host, a worker on each other one, the run on the head.
#   sbatch examples/slurm.sh recipes/medium_rl_1.toml /shared/runs/medium-1
# The folder must be on a file system that every host sees: each trainer writes its part of a checkpoint there. After a crash
# or the time limit, submit the same line again: it goes on where it was.
#SBATCH --job-name=magistral-rl
#SBATCH --nodes=32
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=96
#SBATCH --exclusive
#SBATCH --mem=0
#SBATCH --time=48:00:00
set -euo pipefail
recipe=$1 out=$2
port=6379
store=320000000000 # bytes of Ray's store on each host, in /dev/shm (--dry-run says what is needed); by itself Ray takes 200 GB at most
mapfile -t hosts < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
head=$(srun --nodes=1 --ntasks=1 --nodelist="${hosts[0]}" hostname --ip-address | awk '{print $1}')

on_host() { # HOST COMMAND…
  local host=$1
  shift
  srun --nodes=1 --ntasks=1 --exact --overlap --nodelist="$host" "$@"
}

on_host "${hosts[0]}" ray start --head --node-ip-address="$head" --port=$port --object-store-memory=$store --disable-usage-stats --block &
for _ in $(seq 60); do
  on_host "${hosts[0]}" ray status --address="$head:$port" > /dev/null 2>&1 && break
  sleep 2
done
for host in "${hosts[@]:1}"; do
  on_host "$host" ray start --address="$head:$port" --object-store-memory=$store --disable-usage-stats --block &
done

# --resume starts anew where the folder holds no run yet
on_host "${hosts[0]}" magistral rl "$recipe" --out "$out" --resume --address="$head:$port"
