#!/usr/bin/env bash
# A run on a Slurm cluster: `sbatch docs/slurm.sh`. One node holds the driver, the buffer and a student; the others make
# images. The environment in which raydream is installed (pip install 'raydream[all]') and the run folder are on storage
# that all nodes reach. Lines to adapt carry CHANGE. A run that ended early: the same with --resume DIR and no settings.
#SBATCH --job-name=raydream
#SBATCH --nodes=3
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --gpus-per-node=1
#SBATCH --time=08:00:00
#SBATCH --signal=B:TERM@120 # two minutes before the time is over: the run ends as on Ctrl-C, and can be resumed
set -euo pipefail
. ~/raydream/.venv/bin/activate # CHANGE
command=(raydream distill --config digits --run-dir /shared/runs/first --generators.count 2
    --generators.gpus 1 --generators.node_resource generator --student.gpus 1 --student.node_resource student) # CHANGE

export RAY_AUTH_MODE=token # only holders of the token in ~/.ray, which all nodes share, reach this Ray
export RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO=1 # a process that reserves no GPU sees none
[ -e ~/.ray/auth_token ] || (umask 077; ray get-auth-token --generate > /dev/null)
mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
address=$(srun --nodes=1 --ntasks=1 --nodelist="${nodes[0]}" hostname --ip-address | cut --delimiter=' ' --fields=1):6379
started=(--num-cpus="$SLURM_CPUS_PER_TASK" --disable-usage-stats --block)

srun --nodes=1 --ntasks=1 --nodelist="${nodes[0]}" --overlap \
    ray start --head --port=6379 --resources='{"student": 1}' "${started[@]}" &
until srun --nodes=1 --ntasks=1 --nodelist="${nodes[0]}" --overlap ray status --address="$address" &> /dev/null; do
    sleep 2
done
for node in "${nodes[@]:1}"; do
    srun --nodes=1 --ntasks=1 --nodelist="$node" --overlap \
        ray start --address="$address" --resources='{"generator": 1}' "${started[@]}" &
done

# The driver runs on this node, the first one; generators join it as their nodes do.
RAY_ADDRESS=$address "${command[@]}" &
driver=$!
trap 'kill -TERM "$driver"' TERM
status=0
wait "$driver" || status=$?
if kill -0 "$driver" 2> /dev/null; then # the wait was ended by the signal
    wait "$driver" || status=$?
fi
exit "$status"
