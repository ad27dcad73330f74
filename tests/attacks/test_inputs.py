"""Hostile and broken input, as `docs/security.md` promises: one sentence, at once, and nothing has begun.

Files are generated. Those that would unpack to more than the machine has are small, and are refused by what they
declare: a test that read one would be killed.
"""

import io
import json
import shutil
import sys
import time
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from torch import Tensor, nn

import raydream
from raydream import memory
from raydream.cli import parse
from raydream.config import DistillConfig, TransferConfig
from raydream.config.conversion import validate
from raydream.data import check_data, files
from raydream.errors import InputError, ShardError
from raydream.jobs.checks.networks import check_student, check_teacher
from raydream.jobs.checks.transfer import check_transfer
from raydream.networks.user_code import STATE
from raydream.runs import references as runs
from raydream.store.records import BatchId
from raydream.store.shards import ShardStore
from raydream.teachers.checkpoints import save_network
from tests.tiny import finished_images, shard_path, tiny_network

SECONDS = 20.0
"""that an answer may take on a busy machine; unpacking any of the bombs takes minutes"""


@pytest.fixture(autouse=True)
def state_is_kept() -> Iterator[None]:
    before = {name: read() for name, (read, _) in STATE.items()}
    began = time.monotonic()
    yield
    assert time.monotonic() - began < SECONDS
    assert {name: read() for name, (read, _) in STATE.items()} == before


def refusal(check: Callable[[], object]) -> InputError:
    """What is said, which is one sentence of a readable length."""
    with pytest.raises(InputError) as refused:
        check()
    said = str(refused.value)
    assert "\n" not in said and len(said) < 2000, said
    return refused.value


def distill(**sections: dict[str, object]) -> None:
    """What jobs/distill.py checks of a teacher, a student and the data, and nothing else."""
    settings = {"teacher": {"arguments": {"width": 8}}, "student": {"arguments": {"width": 8}}}
    settings |= {name: settings.get(name, {}) | section for name, section in sections.items()}
    config = validate(DistillConfig, runs.resolve(settings))
    if "teacher" in sections:
        check_teacher(config)
    if "student" in sections:
        check_student(config)
    if "data" in sections:
        check_data(config.data, config.teacher)


def transfer(folder: Path, images: Path) -> None:
    """What jobs/transfer.py checks of the images, and of the teacher of foreign ones."""
    settings = {"images": str(images), "data": {"name": "none"}, "student": {"batch_size": 8}}
    settings["teacher"] = {"network": "images"}
    if not (images / "run.json").exists():
        save_network(tiny_network(), folder / "teacher.safetensors")
        settings["teacher"] = {"arguments": {"width": 8}, "checkpoint": str(folder / "teacher.safetensors")}
    check_transfer(validate(TransferConfig, runs.resolve(settings)))


def own(factory: str, arguments: dict[str, object]) -> dict[str, object]:
    """A network of this file."""
    return {"network": f"{__name__}:{factory}", "arguments": arguments}


# Weights


def changed(name: str, change: Callable[[Tensor], Tensor]) -> Callable[[dict[str, Tensor]], object]:
    return lambda state: {**state, name: change(state[name])}


def with_value(number: float) -> Callable[[Tensor], Tensor]:
    return lambda value: value.clone().index_fill_(0, torch.tensor([1]), number)


def of_itself(state: dict[str, Tensor]) -> object:
    found: dict[str, object] = {"epoch": 3}
    found["model"] = found
    return found


def of_each_other(state: dict[str, Tensor]) -> object:
    found: dict[str, object] = {}
    found["net"] = {"state_dict": found}
    return found


def all_as(kind: torch.dtype) -> Callable[[dict[str, Tensor]], object]:
    return lambda state: {name: value.to(kind) for name, value in state.items()}


WEIGHTS: dict[str, tuple[Callable[[dict[str, Tensor]], object], str]] = {
    "NaN": (changed("0.weight", with_value(float("nan"))), "0.weight holds NaN or infinity"),
    "infinity": (changed("8.bias", with_value(-float("inf"))), "8.bias holds NaN or infinity"),
    "more than fp32 holds": (changed("8.bias", lambda v: v.double() + 1e300), "8.bias holds NaN or infinity"),
    "a NaN mean": (changed("1.running_mean", with_value(float("nan"))), "1.running_mean holds NaN"),
    "a negative variance": (changed("1.running_var", with_value(-1e-3)), "1.running_var holds negative variances"),
    "all zeros": (lambda state: {n: torch.zeros_like(v) for n, v in state.items()}, "nothing but zeros"),
    "complex": (changed("0.weight", lambda v: v.to(torch.complex64)), "0.weight complex64 for float32"),
    "int8": (all_as(torch.int8), "0.weight int8 for float32"),
    "bool": (all_as(torch.bool), "0.weight bool for float32"),
    "a quantized tensor": (
        changed("0.weight", lambda v: torch.quantize_per_tensor(v, 0.1, 0, torch.qint8)),
        "0.weight: a quantized tensor",
    ),
    "quantized by channel": (
        changed("0.weight", lambda v: torch.quantize_per_channel(v, torch.ones(8), torch.zeros(8), 0, torch.qint8)),
        "0.weight: a quantized tensor",
    ),
    "packed numbers": (
        changed("0.weight", lambda v: torch.zeros(v.shape, dtype=torch.uint8).view(torch.float4_e2m1fn_x2)),
        "0.weight float4_e2m1fn_x2 for float32",
    ),
    "a dictionary of itself": (of_itself, "model: a dictionary that it lies in"),
    "dictionaries of each other": (of_each_other, "state_dict: a dictionary that it lies in"),
}


@pytest.mark.filterwarnings("ignore:.*prototype stage")
@pytest.mark.parametrize("what", WEIGHTS)
def test_weights_that_no_network_can_have_are_refused(what: str, tmp_path: Path) -> None:
    make, says = WEIGHTS[what]
    torch.save(make(dict(tiny_network().state_dict())), tmp_path / "weights.pt")
    error = refusal(lambda: distill(teacher={"checkpoint": str(tmp_path / "weights.pt")}))
    assert error.field == "teacher.checkpoint" and says in str(error), str(error)


HARMLESS = {
    "as they are": lambda state: state,
    "a variance of zero": changed("1.running_var", with_value(0.0)),
    "a bias of zeros": changed("8.bias", torch.zeros_like),
    "counters of another type": changed("1.num_batches_tracked", lambda v: v.double()),
    "half precision": lambda state: {n: v.half() if v.is_floating_point() else v for n, v in state.items()},
    "fp8": lambda state: {n: v.to(torch.float8_e4m3fn) if v.is_floating_point() else v for n, v in state.items()},
}


@pytest.mark.parametrize("what", HARMLESS)
def test_weights_at_the_boundary_are_taken(what: str, tmp_path: Path) -> None:
    torch.save(HARMLESS[what](dict(tiny_network().state_dict())), tmp_path / "weights.pt")
    distill(teacher={"checkpoint": str(tmp_path / "weights.pt")})


class Remembering(nn.Conv2d):
    """A layer whose state is more than tensors."""

    def get_extra_state(self) -> list[int]:
        return [1]


MODULES: dict[str, tuple[Callable[[nn.Module], object], str]] = {
    "NaN": (lambda network: network[0].weight.data.fill_(float("nan")), "0.weight holds NaN or infinity"),
    "a negative variance": (lambda network: network[1].running_var.fill_(-1.0), "1.running_var holds negative"),
    "all zeros": (lambda network: [value.zero_() for value in network.state_dict().values()], "nothing but zeros"),
    "complex": (lambda network: network[0].to(torch.complex64), "0.weight is complex64"),
    "no values": (lambda network: network.to("meta"), "0.weight is a tensor without values"),
    "other things": (lambda network: setattr(network[0], "__class__", Remembering), "0._extra_state is list"),
}


@pytest.mark.filterwarnings("ignore:Complex modules")
@pytest.mark.parametrize("what", MODULES)
def test_a_module_of_such_weights_is_refused_too(what: str) -> None:
    change, says = MODULES[what]
    network = tiny_network()
    change(network)
    given = {"input_shape": (1, 8, 8), "mean": [0.3], "std": [0.35], "classes": 10, "device": "cpu"}
    assert says in str(refusal(lambda: raydream.load_teacher(network, **given)))


# Networks


class Answering(nn.Module):
    """The tiny network with something done to its images or its answer."""

    def __init__(self, after: str = "", before: str = "", statement: str = "") -> None:
        super().__init__()
        self.body, self.after, self.before, self.statement = tiny_network(), after, before, statement

    def forward(self, x: Tensor) -> object:
        exec(self.statement)
        if self.before:
            x = eval(self.before)
        x = self.body(x)
        return eval(self.after) if self.after else x


ANSWERS = {
    "NaN": ("x * float('nan')", "a probe gave NaN or infinity"),
    "infinity": ("x + float('inf')", "a probe gave NaN or infinity"),
    "NaN now and then": ("torch.where(x > x.mean(), x, float('nan'))", "a probe gave NaN or infinity"),
    "complex": ("x.to(torch.complex64)", "a probe gave complex64"),
    "whole numbers": ("x.long()", "a probe gave int64"),
    "true and false": ("x > 0", "a probe gave bool"),
    "detached": ("x.detach()", "its answer is detached from the images"),
    "computed by NumPy": ("torch.from_numpy(x.detach().numpy())", "its answer is detached from the images"),
    "steps": ("x.round()", "is zero everywhere"),
    "a gradient of NaN": ("x + (x - x).abs().sqrt()", "its gradient holds NaN or infinity"),
    "constant": ("x * 0", "is zero everywhere"),
    "batches of two alone": ("x.view(2, 10)", "a probe of one image failed"),
    "squeezed": ("x.squeeze()", "a probe of one image gave (10,)"),
    "the end of the process": ("sys.exit(0)", "it ends the process (SystemExit: 0)"),
}


@pytest.mark.parametrize("what", ANSWERS)
def test_networks_whose_answers_nothing_can_be_learned_from_are_refused(what: str, tmp_path: Path) -> None:
    after, says = ANSWERS[what]
    torch.save(Answering().state_dict(), tmp_path / "weights.pt")
    described = own("Answering", {"after": after}) | {"checkpoint": str(tmp_path / "weights.pt")}
    error = refusal(lambda: distill(teacher=described))
    assert error.field.startswith("teacher.") and says in str(error), str(error)


PUPILS = {
    "NaN": ("x * float('nan')", "a probe gave NaN or infinity"),
    "detached": ("x.detach()", "its answer is detached from its weights"),
    "squeezed": ("x.squeeze()", "a probe of one image gave (10,)"),
    "the end of the process": ("sys.exit(3)", "it ends the process (SystemExit: 3)"),
}


@pytest.mark.parametrize("what", PUPILS)
def test_students_that_cannot_learn_are_refused(what: str) -> None:
    after, says = PUPILS[what]
    error = refusal(lambda: distill(student=own("Answering", {"after": after})))
    assert error.field == "student.network" and says in str(error), str(error)


CHANGES = {
    "default dtype": "torch.set_default_dtype(torch.float64)",
    "default device": "torch.set_default_device('meta')",
    "gradient mode": "torch.set_grad_enabled(False)",
    "autocast mode": "torch.set_autocast_enabled('cpu', True)",
    "number of threads": "torch.set_num_threads(torch.get_num_threads() + 1)",
    "working directory": "__import__('os').chdir('/')",
}


def changing(statement: str) -> nn.Module:
    """A factory that does something else besides."""
    exec(statement)
    return tiny_network()


@pytest.mark.parametrize("what", CHANGES)
@pytest.mark.parametrize("how", ["as it is built", "as it runs"])
def test_networks_that_change_the_process_are_refused_and_it_is_restored(what: str, how: str) -> None:
    factory = "changing" if how == "as it is built" else "Answering"
    student = own(factory, {"statement": CHANGES[what]})
    assert f"{what} for the whole process" in str(refusal(lambda: distill(student=student)))


@pytest.mark.parametrize("code", ["sys.exit()", "raise SystemExit('usage: train.py')", "exit_now = sys.exit"])
def test_modules_and_factories_that_end_the_process_are_refused(code: str, tmp_path, monkeypatch) -> None:
    (tmp_path / "ending.py").write_text(f"import sys\n{code}\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "ending", raising=False)
    teacher = {"network": "ending:exit_now", "arguments": {}}
    assert "it ends the process (SystemExit: " in str(refusal(lambda: distill(teacher=teacher)))


def scripted(part: bool = False) -> nn.Module:
    """TorchScript, as a whole or within a network."""
    network = torch.jit.script(tiny_network())
    return nn.Sequential(nn.Identity(), network) if part else network


@pytest.mark.filterwarnings("ignore:.*torch.jit")
@pytest.mark.parametrize("part", [False, True])
def test_script_modules_are_refused(part: bool) -> None:
    assert "it is a ScriptModule" in str(refusal(lambda: distill(teacher=own("scripted", {"part": part}))))
    given = {"input_shape": (1, 8, 8), "mean": [0.3], "std": [0.35], "classes": 10, "device": "cpu"}
    assert "it is a ScriptModule" in str(refusal(lambda: raydream.load_teacher(scripted(part), **given)))


# Command line


TYPED = [
    ["--synthesis.betas", "&a [*a]"],
    ["--synthesis.betas", "&a [0.9, *a]"],
    ["--synthesis.stages", "&a [{size: *a}, {}]"],
    ["--teacher", "&a {arguments: *a}"],
    ["--teacher.arguments", "&a {k: [*a]}"],
    ["--teacher.mean", "[" * 3000],
    ["--teacher.mean", "[" * 900 + "]" * 900],
    ["--seed", "9" * 5000],
    ["--seed", "["],
    ["--config", "{seed: &a [*a]}"],
]


@pytest.mark.parametrize("options", TYPED, ids=lambda options: " ".join(options)[:40])
def test_yaml_that_nests_itself_or_without_end_is_refused(options: list[str], tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(f"{options[0].removeprefix('--')}: {options[1]}")
    for given in (options, ["--config", str(tmp_path / "mine.yaml")]):
        refusal(lambda given=given: parse(DistillConfig, "", [*given, "--run-dir", str(tmp_path / "run")]))


# Run folders that are named as run:DIR


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finished_images(tmp_path_factory.mktemp("made") / "images")


@pytest.fixture
def run_dir(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "images"))


DAMAGED: dict[str, tuple[Callable[[Path], object], str]] = {
    "text": (lambda path: (path / "network.json").write_text('"digits"'), "network.json"),
    "null": (lambda path: (path / "network.json").write_text("null"), "network.json"),
    "a list": (lambda path: (path / "network.json").write_text("[1]"), "network.json"),
    "binary": (lambda path: (path / "network.json").write_bytes(b"\xff\xfe\x00{"), "network.json"),
    "nothing": (lambda path: (path / "network.json").write_bytes(b""), "network.json"),
    "levels without end": (lambda path: (path / "network.json").write_text("[" * 100_000), "network.json"),
    "another type": (lambda path: (path / "network.json").write_text('{"network": 5, "arguments": []}'), ""),
    "no student": (lambda path: rewritten(path, student=None), "a run that trained a network"),
    "a student of text": (lambda path: rewritten(path, student="digits"), "a run that trained a network"),
    "no teacher": (lambda path: rewritten(path, teacher=None), "a run that has a teacher"),
    "a teacher of other names": (lambda path: rewritten(path, teacher={1: 2}), ""),
}


def rewritten(path: Path, **settings: object) -> None:
    config = yaml.safe_load((path / "config.yaml").read_text())
    (path / "config.yaml").write_text(yaml.safe_dump(config | settings))
    (path / "student.safetensors").write_bytes((path / "teacher.safetensors").read_bytes())


@pytest.mark.parametrize("what", DAMAGED)
def test_damaged_descriptions_of_networks_are_refused(what: str, run_dir: Path) -> None:
    damage, says = DAMAGED[what]
    damage(run_dir)
    assert says in str(refusal(lambda: distill(teacher={"network": f"run:{run_dir}"})))


# Files of images


def parquet(image: pa.Array, label: pa.Array | None = None, **metadata: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        table = pa.table({"image": image} | ({} if label is None else {"label": label}))
        table = table.replace_schema_metadata(metadata or None)
        pq.write_table(table, folder / "a.parquet", compression="zstd", store_schema=bool(metadata))
        return folder / "a.parquet"

    return write


def shared(value: bytes, rows: int, width: int | None = None) -> pa.Array:
    """Rows that all are one value, which Parquet keeps once."""
    kind = pa.binary() if width is None else pa.binary(width)
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), pa.array([value], kind))


DIGIT = bytes(64)
PNG_OF_ALL = [DIGIT] * 20
FOREIGN: dict[str, tuple[Callable[[Path], Path], str]] = {
    "whole numbers": (parquet(pa.array([5_000_000_000] * 20)), "image is int64"),
    "numbers": (parquet(pa.array([0.5] * 20)), "image is double"),
    "text": (parquet(pa.array(["a"] * 20)), "image is string"),
    "nothing": (parquet(pa.nulls(20)), "row 0 of a.parquet is no picture, and 0 bytes"),
    "dates": (parquet(pa.array([0] * 20, pa.date32())), "image is date32"),
    "a struct without bytes": (parquet(pa.array([{"path": "a"}] * 20)), "image is struct<path: string>"),
    "a struct of other bytes": (parquet(pa.array([{"bytes": 5}] * 20)), "image.bytes is int64"),
    "lists of lists": (parquet(pa.array([[[1]]] * 20)), "image is list"),
    "lists of numbers": (parquet(pa.array([[0.5] * 64] * 20)), "image is list"),
    "lists of too large numbers": (parquet(pa.array([[256] * 64] * 20)), "row 0 of a.parquet"),
    "image_shape 5": (parquet(pa.array(PNG_OF_ALL), image_shape="5"), "image_shape"),
    "image_shape null": (parquet(pa.array(PNG_OF_ALL), image_shape="null"), "image_shape"),
    "image_shape of text": (parquet(pa.array(PNG_OF_ALL), image_shape='["1", 8, 8]'), "image_shape"),
    "image_shape of fractions": (parquet(pa.array(PNG_OF_ALL), image_shape="[1, 8.0, 8]"), "image_shape"),
    "image_shape below 1": (parquet(pa.array(PNG_OF_ALL), image_shape="[1, -8, -8]"), "image_shape"),
    "image_shape of two": (parquet(pa.array(PNG_OF_ALL), image_shape="[8, 8]"), "image_shape"),
    "a deep image_shape": (parquet(pa.array(PNG_OF_ALL), image_shape="[" * 100_000), "image_shape"),
    "an image_shape in a dictionary": (parquet(pa.array(PNG_OF_ALL), image_shape='{"a": 1}'), "image_shape"),
}


@pytest.mark.parametrize("what", FOREIGN)
def test_foreign_parquet_files_of_odd_types_are_refused(what: str, tmp_path: Path) -> None:
    write, says = FOREIGN[what]
    error = refusal(lambda: transfer(tmp_path, write(tmp_path)))
    assert error.field == "images" and says in str(error), str(error)


@pytest.mark.parametrize(
    "label", [[[1]] * 20, [{"a": 1}] * 20, [True] * 20, [2**63] * 20, [-(2**40)] * 20, [b"1"] * 20]
)
def test_labels_of_odd_types_are_refused(label: list, tmp_path: Path) -> None:
    kind = pa.uint64() if label[0] == 2**63 else None
    path = parquet(pa.array(PNG_OF_ALL), pa.array(label, kind))(tmp_path)
    data = {"name": "files", "test": str(path), "validation_of": "test"}
    assert refusal(lambda: distill(data=data)).field == "data.test"


TAKEN = {
    "bytes": pa.array(PNG_OF_ALL),
    "large bytes": pa.array(PNG_OF_ALL, pa.large_binary()),
    "bytes of one width": pa.array(PNG_OF_ALL, pa.binary(64)),
    "a struct": pa.array([{"bytes": DIGIT, "path": None}] * 20),
    "shared values": shared(DIGIT, 20),
    "lists": pa.array([list(DIGIT)] * 20, pa.list_(pa.uint8())),
    "lists of wide numbers": pa.array([list(DIGIT)] * 20),
    "lists of one length": pa.array([list(DIGIT)] * 20, pa.list_(pa.uint8(), 64)),
}


@pytest.mark.parametrize("what", TAKEN)
def test_foreign_parquet_files_of_usual_types_are_taken(what: str, tmp_path: Path) -> None:
    transfer(tmp_path, parquet(TAKEN[what])(tmp_path))


# Shards


def shard(change: Callable[[pa.Table], pa.Table], **fields: object) -> Callable[[Path], object]:
    """Damages the second shard of a run, with checksums that are right."""

    def damage(run_dir: Path) -> None:
        store, batch = ShardStore(run_dir / "images"), BatchId(0, 1)
        whole = store.read(batch)
        table = change(replace(whole, **{name: make(getattr(whole, name)) for name, make in fields.items()}).to_table())
        pq.write_table(table, shard_path(store, batch), compression="zstd", write_page_checksum=True)

    return damage


def retyped(name: str, kind: pa.DataType) -> Callable[[pa.Table], pa.Table]:
    def change(table: pa.Table) -> pa.Table:
        column = table.column(name).combine_chunks()
        if pa.types.is_fixed_size_list(column.type):
            column = pa.FixedSizeListArray.from_arrays(column.flatten().cast(kind), column.type.list_size)
        else:
            column = column.cast(kind)
        return table.set_column(table.column_names.index(name), name, column)

    return change


def described_as(**changes: object) -> Callable[[pa.Table], pa.Table]:
    """The table with another description, and the digest of that."""

    def change(table: pa.Table) -> pa.Table:
        from raydream.store.records import _digest

        metadata = {key.decode(): value.decode() for key, value in table.schema.metadata.items()}
        metadata |= {key: value if isinstance(value, str) else json.dumps(value) for key, value in changes.items()}
        return table.replace_schema_metadata(metadata | {"digest": _digest(metadata)})

    return change


def same(value: object) -> object:
    return value


SHARDS: dict[str, tuple[Callable[[Path], object], str]] = {
    "pixels of int64": (shard(retyped("image", pa.int64())), "image"),
    "pixels of floats": (shard(retyped("image", pa.float32())), "image"),
    "pixels of uint16": (shard(retyped("image", pa.uint16())), "image"),
    "targets of floats": (shard(retyped("target", pa.float64())), "target"),
    "targets of int32": (shard(retyped("target", pa.int32())), "target"),
    "targets of text": (shard(retyped("target", pa.string())), "target"),
    "logits of doubles": (shard(retyped("teacher_logits", pa.float64())), "teacher_logits"),
    "a target below 0": (shard(same, targets=lambda v: np.where(v == 3, -5, v)), "targets"),
    "a target beyond the logits": (shard(same, targets=lambda v: np.where(v == 3, 99, v)), "targets"),
    "logits of NaN": (shard(same, teacher_logits=lambda v: v * np.float32("nan")), "NaN"),
    "three logits": (shard(same, teacher_logits=lambda v: v[:, :3], targets=lambda v: v % 3), "logits"),
    "no column of targets": (shard(lambda table: table.drop_columns(["target"])), "target"),
    "a column too many": (shard(lambda table: table.append_column("more", table.column("row"))), "more"),
    "pixels that are missing": (
        shard(lambda table: table.set_column(2, "image", pa.array([None] * 20, table.column("image").type))),
        "",
    ),
    "an image_shape of 5": (shard(described_as(image_shape=5)), "image_shape"),
    "an image_shape of 4": (shard(described_as(image_shape=[1, 1, 8, 8])), "image_shape"),
    "a deep image_shape": (shard(described_as(image_shape="[" * 100_000)), "image_shape"),
    "a negative image_shape": (shard(described_as(image_shape=[1, -8, -8])), "image_shape"),
    "a deep provenance": (shard(described_as(provenance="[" * 100_000)), ""),
    "a provenance of text": (shard(described_as(provenance="r0000-b0001")), ""),
}


@pytest.mark.parametrize("what", SHARDS)
def test_shards_of_other_types_or_values_are_refused(what: str, run_dir: Path, tmp_path: Path) -> None:
    damage, says = SHARDS[what]
    damage(run_dir)
    error = refusal(lambda: transfer(tmp_path, run_dir))
    assert error.field == "images" and says in str(error), str(error)
    if what != "three logits":  # which are those of another teacher
        with pytest.raises(ShardError, match="r0000-b0001"):
            ShardStore(run_dir / "images").read(BatchId(0, 1))


# Files that unpack to more than there is


def bomb_of_shared_values(folder: Path) -> Path:
    """1 TB in some hundred bytes: a million rows of one value of a megabyte."""
    return parquet(shared(bytes(10**6), 10**6))(folder)


def bomb_of_shared_structs(folder: Path) -> Path:
    values = pa.StructArray.from_arrays([shared(bytes(10**6), 10**6)], ["bytes"])
    return parquet(values)(folder)


def bomb_of_large_values(folder: Path) -> Path:
    """The same by fewer rows of a larger value, whose bytes would suffice for the pixels of all rows."""
    return parquet(shared(bytes(2**24), 2**16))(folder)


def bomb_of_shared_labels(folder: Path) -> Path:
    return parquet(pa.array(PNG_OF_ALL * 10**4), shared(bytes(10**6), 20 * 10**4))(folder)


def npz_bomb(folder: Path, *shape: int, kind: str = "|u1") -> Path:
    """An array of zeros, as large as its header says, in a thousandth of that."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": kind, "fortran_order": False, "shape": shape})
    with zipfile.ZipFile(folder / "a.npz", "w", zipfile.ZIP_DEFLATED) as file, file.open("x.npy", "w") as member:
        member.write(header.getvalue() + bytes(2**24))
    return folder / "a.npz"


def pt_bomb(folder: Path, megabytes: int = 256) -> Path:
    """A checkpoint that is compressed, as torch.save never does: zeros in a thousandth of their size."""
    torch.save(OrderedDict(weight=torch.zeros(4)), folder / "whole.pt")
    with (
        zipfile.ZipFile(folder / "whole.pt") as whole,
        zipfile.ZipFile(folder / "a.pt", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file,
    ):
        for info in whole.infolist():
            content = whole.read(info)
            with file.open(info.filename, "w") as member:
                if info.filename.endswith("data/0"):
                    for _ in range(megabytes):
                        member.write(bytes(2**20))
                else:
                    member.write(content)
    return folder / "a.pt"


def hole(path: Path) -> Path:
    """A file of 1 TiB that takes no space on the disk."""
    with path.open("wb") as file:
        file.truncate(2**40)
    return path


def test_a_parquet_file_of_some_bytes_for_a_terabyte_is_refused(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(files, "UNPACKED", 2**25)  # which takes less time
    for index, write in enumerate((bomb_of_shared_values, bomb_of_shared_structs, bomb_of_large_values)):
        (tmp_path / str(index)).mkdir()
        path = write(tmp_path / str(index))
        assert path.stat().st_size < 10_000
        assert "row 0 of a.parquet" in str(refusal(lambda path=path: transfer(tmp_path, path)))


def test_labels_of_a_terabyte_are_refused(tmp_path: Path) -> None:
    path = bomb_of_shared_labels(tmp_path)
    data = {"name": "files", "test": str(path), "validation_of": "test"}
    assert "its labels are" in str(refusal(lambda: distill(data=data)))


HUGE = 2**34
"""images: 1 TiB of digits"""


@pytest.mark.parametrize("shape", [(HUGE, 8, 8), (HUGE, 8, 8, 1), (2**62, 8, 8)])
def test_an_array_larger_than_memory_is_refused(shape: tuple[int, ...], tmp_path: Path) -> None:
    path = npz_bomb(tmp_path, *shape)
    assert "of memory, of which" in str(refusal(lambda: transfer(tmp_path, path)))


OTHER_ARRAYS = [
    ((HUGE, 9, 8), "|u1", "those in a.npz are (1, 9, 8)"),
    ((HUGE, 8, 8), "<f8", f"x is float64 [{HUGE}, 8, 8]"),
    ((HUGE,), "|u1", f"x is uint8 [{HUGE}]"),
    ((), "|u1", "x is uint8 []"),
]


@pytest.mark.parametrize(("shape", "kind", "says"), OTHER_ARRAYS)
def test_an_array_of_another_shape_or_type_is_refused_before_it_is_unpacked(shape, kind, says, tmp_path: Path) -> None:
    path = npz_bomb(tmp_path, *shape, kind=kind)
    assert says in str(refusal(lambda: transfer(tmp_path, path)))


def test_a_checkpoint_that_unpacks_to_far_more_than_its_size_is_refused(tmp_path: Path) -> None:
    path = pt_bomb(tmp_path)
    assert path.stat().st_size < 2**22
    error = refusal(lambda: distill(teacher={"checkpoint": str(path)}))
    assert "it unpacks to 256 MiB" in str(error), str(error)


@pytest.mark.parametrize("name", ["a.pt", "a.safetensors", "a.npz", "a.parquet", "pictures/a.png"])
def test_a_file_larger_than_memory_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    path = hole(tmp_path / name)
    where = path if "/" not in name else path.parent
    is_checkpoint = name.endswith(("pt", "safetensors"))
    error = refusal(lambda: distill(teacher={"checkpoint": str(path)}) if is_checkpoint else transfer(tmp_path, where))
    assert "of memory, of which" in str(error) or name == "a.parquet", str(error)


def zeros(kind: str) -> pa.Array:
    """Images that take some hundred bytes in a file, and megabytes in memory."""
    if kind == "lists":
        return pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(2**22, np.uint8)), 64)
    return shared(DIGIT, 2**15, 64 if kind == "bytes of one width" else None)


@pytest.mark.parametrize("kind", ["lists", "bytes of one width", "rows"])
def test_what_a_parquet_file_says_it_holds_has_to_fit_into_memory(kind: str, tmp_path: Path, monkeypatch) -> None:
    path = parquet(zeros(kind))(tmp_path)
    assert path.stat().st_size < 2500
    monkeypatch.setattr(memory, "free_memory", lambda: 2**20)
    assert "of memory, of which 1 MiB are free" in str(refusal(lambda: transfer(tmp_path, path)))


def test_what_a_shard_says_it_holds_has_to_fit_into_memory(run_dir: Path, tmp_path: Path, monkeypatch) -> None:
    store, batch, rows = ShardStore(run_dir / "images"), BatchId(0, 1), 2**15
    large = {"images": np.zeros((rows, 1, 8, 8), np.uint8), "targets": np.zeros(rows, np.int64)}
    large["teacher_logits"] = np.zeros((rows, 10), np.float32)
    pq.write_table(replace(store.read(batch), **large).to_table(), shard_path(store, batch), compression="zstd")
    assert shard_path(store, batch).stat().st_size < 2**18
    monkeypatch.setattr(memory, "free_memory", lambda: 2**20)
    for read in (store.read, store.extent):
        with pytest.raises(ShardError, match="of memory, of which 1 MiB are free"):
            read(batch)
    assert "of memory" in str(refusal(lambda: transfer(tmp_path, run_dir)))
