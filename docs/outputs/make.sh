#!/usr/bin/env bash
# Writes what the quickstart shows of `raydream demo`, its picture and benchmarks/results/demo.json; runs it in a folder
# that it makes. With the environment active, in the root of the repository: docs/outputs/make.sh FOLDER
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
mkdir "$1"
cd "$1"
raydream demo --run-dir runs/first | sed -n '/┌/,/└/p' > "$here/demo.txt"
cp runs/first/summary.json "$here/../../benchmarks/results/demo.json"
cp runs/first/images.png "$here/../demo.png"
