"""Compares the four networks of docs/how-to/small.md: accuracy on real test images, ONNX file size, and latency."""

import json
import sys
from pathlib import Path

import raydream
from raydream.data.digits import load_digits
from raydream.networks.export import export_onnx
from raydream.quantization.measuring import file_costs

student, pruned, int8 = map(Path, sys.argv[1:])
shape = {"input_shape": (1, 8, 8), "mean": (0.3,), "std": (0.35,), "classes": 10}
teacher = raydream.load_teacher(
    "digits", checkpoint=str(student / "teacher.safetensors"), arguments={"width": 88}, **shape
)
floats = {
    "the network, without its data": teacher,
    "distilled": raydream.load_teacher(f"run:{student}"),
    "pruned": raydream.load_teacher(f"run:{pruned}"),
}
test, rows, files = load_digits().test, {}, {}
for name, each in floats.items():
    rows[name] = raydream.accuracy(each, test.images, test.labels)
    files[name] = Path(f"{name.split(',')[0]}.onnx")
    export_onnx(each.network, shape["input_shape"], files[name])
rows["quantized to 8 bits"] = json.loads((int8 / "summary.json").read_text(encoding="utf-8"))["student_accuracy"]
files["quantized to 8 bits"] = int8 / "student.onnx"

print(f"{'':30} {'test accuracy':>13} {'file':>10} {'latency':>10}")
for (name, share), cost in zip(rows.items(), file_costs([*files.values()], shape["input_shape"]), strict=True):
    print(f"{name:30} {share:>11.1%} {cost.size_bytes / 1000:>9.0f} kB {cost.latencies[32].median_s * 1000:>7.2f} ms")
