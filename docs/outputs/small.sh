#!/usr/bin/env bash
# From a float network of 4.5 MB to one of 8-bit integers, without data; writes the table of docs/how-to/small.md. With
# the environment active, in the root of the repository: docs/outputs/small.sh FOLDER
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
mkdir "$1"
cd "$1"
# commands
raydream distill --config digits --run-dir runs/student \
    --teacher.arguments "{width: 88}" --student.arguments "{width: 32}"
raydream prune --config digits_prune --run-dir runs/pruned \
    --images runs/student --teacher.network run:runs/student
raydream quantize --config digits_quantize --run-dir runs/int8 \
    --images runs/student --teacher.network run:runs/pruned
# end
python "$here/small.py" runs/student runs/pruned runs/int8 | tee "$here/small.txt"
