#!/usr/bin/env bash
# Writes what the guides show below their commands: docs/outputs/NAME.txt, the demo's picture, and
# benchmarks/results/demo.json. Each command line is that of the page which shows its output (tests/docs/test_outputs.py).
# With the environment of '.[all]' active, in the root of the repository: docs/outputs/make.sh FOLDER
# FOLDER is new, and gets the runs. The weights of a CIFAR-10 network (1 MB) are downloaded into the cache once.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
export COLUMNS=80
mkdir "$1"
cd "$1"
sed -n '/^# mine.yaml$/,/^```$/p' "$here/../quickstart.md" | sed '$d' > mine.yaml

whole() { # NAME COMMAND...: all that the command prints
    local name=$1 said
    shift
    echo "$name: $*" >&2
    said=$("$@")
    echo "$said" > "$here/$name.txt"
}
boxed() { # NAME COMMAND...: the table with which a job ends, without durations
    whole "$@"
    awk -F '│' '
        /┌/ { shown = 1 }
        { name = $2; gsub(/^ +| +$/, "", name) }
        name || !/│/ { kept = name !~ /^(seconds|reserved|a batch)$/ }
        shown && kept
        /└/ { shown = 0 }' "$here/$1.txt" > "$here/$1.new"
    mv "$here/$1.new" "$here/$1.txt"
}

boxed demo raydream demo --run-dir runs/first
boxed synthesize raydream synthesize --config mine.yaml --config preset:cifar10_pictures --images 64 --synthesis.iterations 200 --run-dir runs/mine/images
boxed doctor raydream doctor --config mine.yaml --run-dir runs/mine/doctor
boxed doctor_pixels raydream doctor --config mine.yaml --teacher.mean '[0, 0, 0]' --teacher.std '[0.0039, 0.0039, 0.0039]' --run-dir runs/mine/pixels
boxed train raydream train --config digits_teacher --training.seed 1 --run-dir runs/teacher
boxed doctor_student raydream doctor --teacher.network run:runs/first --run-dir runs/second_opinion
boxed transfer raydream transfer --images runs/first --student.network digits --student.arguments '{width: 7}' --epochs 60 --run-dir runs/small
boxed evaluate raydream evaluate --images runs/first --verifiers run:runs/teacher,run:runs/small --run-dir runs/asked
boxed prune raydream prune --images runs/first --pruning.ratio 0.5 --run-dir runs/half
boxed quantize raydream quantize --config digits_quantize --run-dir runs/int8
boxed extend raydream extend --config digits_continual --methods '[deep_inversion, finetune]' --seeds 1 --run-dir runs/wider
boxed search raydream search --config digits_poor_start --space coefficients --trials 8 --run-dir runs/search
whole runs_list raydream runs list
whole runs_verify raydream runs verify runs/first
whole runs_report raydream report runs/first runs/small --out beside.html
whole runs_prune raydream runs prune --unfinished --older-than 7

# What `raydream check` printed at the end of the run that is kept.
python - "$here/../../benchmarks/results/check_cpu.json" > "$here/check.txt" << 'END'
import json
import sys

from raydream.device_check.summary import summary

print(summary(json.load(open(sys.argv[1])), "check.json"))
END

cp runs/first/summary.json "$here/../../benchmarks/results/demo.json"
cp runs/first/images.png "$here/../demo.png"
python - > "$here/machine.txt" << 'END'
import datetime
import json

run = json.load(open("runs/first/summary.json"))
versions = ", ".join(f"{name} {version.split()[0]}" for name, version in run["versions"].items())
print(f"{run['machine']}; {versions}; {datetime.date.today()}")
END
