"""A maker that dies leaves a checkpoint beside the shards, from which the next one resumes the batch."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from raydream.config import SynthesisConfig
from raydream.errors import DiskFullError
from raydream.store.folders import Folder, LocalFolder
from raydream.store.records import BatchId, Order, Snapshot
from raydream.store.unfinished import Unfinished, UnfinishedBatches
from raydream.synthesis import resuming
from raydream.synthesis.batch import BatchMaker, Made
from raydream.synthesis.resuming import BatchInProgress, Checkpointing
from raydream.teachers.teacher import to_arrays
from tests.synthesis.test_batch import same
from tests.synthesis.test_checkpoint import Killed
from tests.tiny import tiny_network, tiny_student, tiny_synthesis, tiny_teacher

TEACHER = tiny_teacher()
CONFIG = tiny_synthesis(method="adaptive", iterations=12, coefficients={"competition": 500.0})
ORDER = Order(BatchId(1, 2), np.arange(8) % 10, 7)
FILE = "_unfinished-r0001-b0002.safetensors"


@pytest.fixture(autouse=True)
def at_each_update(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resuming, "MOST_SHARE", float("inf"))


@pytest.fixture(params=["disk", "store"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Folder:
    if request.param == "disk":
        return LocalFolder(tmp_path / "images")
    from pyarrow import fs

    from raydream.store.folders import RemoteFolder

    (tmp_path / "bucket").mkdir()
    return RemoteFolder("s3", fs.SubTreeFileSystem(str(tmp_path), fs.LocalFileSystem()), "bucket/images")


def snapshot(step: int = 40, seed: int = 1) -> Snapshot:
    return Snapshot(step, to_arrays(tiny_network(seed)))


def maker(
    folder: Folder | None, config: SynthesisConfig = CONFIG, lockstep: bool = True, run: str = "a run"
) -> BatchMaker:
    kept = None if folder is None else Checkpointing(UnfinishedBatches(folder), 1e-9, lockstep)
    return BatchMaker(run, TEACHER, config, tiny_student, checkpointing=kept)


def kill_at(update: int, folder: Folder, config: SynthesisConfig = CONFIG, student: Snapshot | None = None) -> None:
    """Have a maker die after so many updates."""
    dying = maker(folder, config)
    left = [update]

    def on_progress(share: float) -> None:
        if not left[0]:
            raise Killed
        left[0] -= 1

    with pytest.raises(Killed):
        dying.make(ORDER, student or snapshot(), None, on_progress)


def make(
    folder: Folder | None, student: Snapshot | None = None, order: Order = ORDER, **of: object
) -> tuple[Made, int]:
    """The batch, and the number of updates made for it here."""
    shares: list[float] = []
    made = maker(folder, **of).make(order, student or snapshot(), None, shares.append)  # type: ignore[arg-type]
    return made, len(shares)


def test_the_next_maker_resumes_to_the_same_bits_and_says_so(folder: Folder) -> None:
    kill_at(5, folder)
    assert folder.names() == [FILE]
    made, updates = make(folder)
    assert updates == 12 - 5
    assert same(made.batch, make(None)[0].batch) and made.curve == make(None)[0].curve
    assert made.notes == ("the batch resumes after update 5, which another generator made before it ended",)


@pytest.mark.parametrize("harm", ["cut", "turned", "empty", "pickle"])
def test_a_damaged_checkpoint_is_ignored_and_noted(tmp_path: Path, harm: str) -> None:
    folder = LocalFolder(tmp_path)
    kill_at(5, folder)
    content = (tmp_path / FILE).read_bytes()
    turned = content[:-100] + bytes([content[-100] ^ 1]) + content[-99:]
    (tmp_path / FILE).write_bytes({"cut": content[:-5], "turned": turned, "empty": b"", "pickle": b"\x80\x04N."}[harm])
    made, updates = make(folder)
    assert updates == 12 and same(made.batch, make(None)[0].batch)
    (note,) = made.notes
    assert note.startswith("the checkpoint of batch r0001-b0002 cannot be read")
    assert note.endswith("the batch is made from its first update")


CHANGES: dict[str, Callable[[Folder], tuple[Made, int]]] = {
    "seed": lambda folder: make(folder, order=replace(ORDER, seed=8)),
    "targets": lambda folder: make(folder, order=replace(ORDER, targets=(np.arange(8) + 1) % 10)),
    "settings": lambda folder: make(folder, config=replace(CONFIG, learning_rate=0.04)),
    "run": lambda folder: make(folder, run="another run"),
    "weights of the snapshot": lambda folder: make(folder, snapshot(40, 2)),
    "step of the snapshot": lambda folder: make(folder, snapshot(80)),
    "no snapshot": lambda folder: make(folder, config=replace(CONFIG, method="deep_inversion")),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_checkpoint_of_another_batch_is_ignored_and_noted(tmp_path: Path, change: str) -> None:
    kill_at(5, LocalFolder(tmp_path))
    made, updates = CHANGES[change](LocalFolder(tmp_path))
    assert updates == 12 and same(made.batch, CHANGES[change](LocalFolder(tmp_path / "other"))[0].batch)
    (note,) = made.notes
    assert "the checkpoint" in note and note.endswith("the batch is made from its first update")


@pytest.mark.parametrize("engine", [1, 10**6])
def test_a_checkpoint_of_another_engine_is_ignored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: int
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("raydream.synthesis.recipe.ENGINE_VERSION", engine)
        kill_at(5, LocalFolder(tmp_path))
    assert make(LocalFolder(tmp_path))[1] == 12


def test_what_a_whole_file_says_that_does_not_fit_is_ignored(tmp_path: Path) -> None:
    kill_at(5, LocalFolder(tmp_path))
    files = UnfinishedBatches(LocalFolder(tmp_path))
    found = files.read(ORDER.batch)
    assert found is not None
    for facts in ({"updates": 99}, {"curve": 7}, {"distances": ["x"]}, {"restarts": None}):
        files.write(ORDER.batch, Unfinished(found.arrays, {**found.facts, **facts}))
        assert make(LocalFolder(tmp_path))[1] == 12, facts
    files.write(ORDER.batch, Unfinished({**found.arrays, "parameter.0": np.zeros(3, np.float32)}, found.facts))
    assert make(LocalFolder(tmp_path))[1] == 12


def test_outside_of_lockstep_a_batch_continues_against_the_student_that_it_began_with(tmp_path: Path) -> None:
    kill_at(5, LocalFolder(tmp_path), student=snapshot(40, 1))
    made, updates = make(LocalFolder(tmp_path), snapshot(80, 2), lockstep=False)
    assert updates == 12 - 5 and made.batch.provenance.student_step == 40
    assert same(made.batch, make(None, snapshot(40, 1))[0].batch)


@pytest.mark.parametrize("machine", ["same", "other"])
def test_a_batch_of_two_kinds_of_machines_has_no_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, machine: str
) -> None:
    config, folder = replace(CONFIG, method="deep_inversion"), LocalFolder(tmp_path)
    with monkeypatch.context() as patch:
        if machine == "other":
            patch.setattr("raydream.synthesis.recipe.arithmetic", lambda device: {"processor": "another"})
        kill_at(4, folder, config)
    kill_at(4, folder, config)  # a checkpoint of both
    made, updates = make(folder, config=config)
    assert updates == 12 - 8 and bool(made.batch.provenance.recipe) == (machine == "same")


def test_a_state_learned_with_another_batch_is_another_beginning(tmp_path: Path) -> None:
    config = tiny_synthesis(method="dafl", iterations=12, generator={"latent": 8, "width": 4})
    folder = LocalFolder(tmp_path)
    kill_at(5, folder, config)
    assert make(folder, config=config)[1] == 12 - 5
    learned = maker(folder, config)
    learned.make(replace(ORDER, batch=BatchId(1, 1)), None, None)
    shares: list[float] = []
    learned.make(replace(ORDER, after=BatchId(1, 1)), None, None, shares.append)
    assert len(shares) == 12


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Slow(UnfinishedBatches):
    """Storage where each file takes some seconds, or has no space."""

    def __init__(self, clock: Clock, takes_s: float, full: bool = False) -> None:
        self.clock, self.takes_s, self.full, self.written = clock, takes_s, full, list[float]()

    def write(self, batch: BatchId, content: Unfinished) -> None:
        self.clock.now += self.takes_s
        self.written.append(self.clock.now)
        if self.full:
            raise DiskFullError("no space is left")


@pytest.mark.parametrize(
    ("takes_s", "full", "written"),
    [(1, False, [301, 602, 903]), (6, False, [306, 912]), (1, True, [301, 602, 903])],
    ids=["fast", "slow", "full"],
)
def test_a_checkpoint_is_written_every_so_often_and_takes_little_of_the_time(
    monkeypatch: pytest.MonkeyPatch, takes_s: float, full: bool, written: list[float]
) -> None:
    monkeypatch.setattr(resuming, "MOST_SHARE", 0.01)
    clock = Clock()
    files = Slow(clock, takes_s, full)
    progress = BatchInProgress(Checkpointing(files, 300.0), ORDER.batch, "key", clock)
    checkpoint = resuming.Checkpoint(0, resuming.Record(1, {}, []), {})  # type: ignore[attr-defined]
    while clock.now < 1000:
        progress.keep(lambda: checkpoint, None, lambda: "")
        clock.now += 1
    assert files.written == written


def test_leftovers_of_committed_batches_are_deleted(tmp_path: Path) -> None:
    files = UnfinishedBatches(LocalFolder(tmp_path))
    for index in range(3):
        files.write(BatchId(0, index), Unfinished({"x": np.zeros(2)}, {}))
    files.delete_leftovers([BatchId(0, 0), BatchId(0, 2), BatchId(0, 7)])
    assert [path.name for path in tmp_path.iterdir()] == ["_unfinished-r0000-b0001.safetensors"]
    files.delete(BatchId(0, 1))
    files.delete(BatchId(0, 1))
    assert not list(tmp_path.iterdir()) and files.read(BatchId(0, 1)) is None
