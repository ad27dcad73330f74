"""Each table as a grid, what its cells are filled with at the smallest size, and what is kept of them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from raydream.applications.continual.course import load_groups
from raydream.config import METHODS, DistillConfig, PruneConfig, ReproduceConfig, TransferConfig
from raydream.config.conversion import as_dict, validate
from raydream.data import load_data
from raydream.data.digits import load_digits
from raydream.data.splits import Split
from raydream.errors import DivergenceError, InputError
from raydream.jobs.checks.reproduce import bases_of, check_table
from raydream.jobs.reproduce import library_of
from raydream.networks.digits import digits_network
from raydream.reproduction.cells import Filled, Given, _best, run_cell
from raydream.reproduction.estimate import PlannedWork, estimated, work_of_cell, work_of_set
from raydream.reproduction.paper import paper_figures
from raydream.reproduction.results import CellResults, as_frame, in_summary, rows_of, shown, shown_table
from raydream.reproduction.scales import SCALES, defaults_for, settings_of
from raydream.reproduction.sets import REAL, content_of, key_of, make_set, making
from raydream.reproduction.tables import MADE, Cell, cells_of
from raydream.runs import run_folder
from raydream.search.space import merged
from raydream.store.folders import LocalFolder
from raydream.store.shards import ShardStore
from raydream.teachers.teacher import make_teacher
from tests.tiny import tiny_teacher

TINY = yaml.safe_load(Path(__file__).with_name("tiny_table.yaml").read_text())
ROOT = Path(__file__).parents[2]
DIGITS = load_digits().train.images


def tiny(table: int, **changes: object) -> ReproduceConfig:
    return validate(ReproduceConfig, merged(merged(settings_of(table, "digits"), TINY), {"table": table, **changes}))


def given(config: ReproduceConfig, folder: Path) -> Given:
    teacher = tiny_teacher()
    if config.table == 7:
        teacher = make_teacher(digits_network(classes=7, width=8), config.teacher)
    verifiers = [tiny_teacher(seed) for seed in range(1, 4)] if config.table in (2, 3) else []
    real = load_data(config.data, config.teacher)
    assert real is not None
    last = cells_of(config)[-1].run
    groups = load_groups(last) if config.table == 7 else []
    return Given(teacher, verifiers, real, groups, "data", LocalFolder(folder / "images"))


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("table", range(1, 8))
def test_every_table_has_settings_at_every_scale(table: int, scale: str) -> None:
    settings = settings_of(table, scale)
    if (table, scale) == (7, "paper"):
        settings = merged(
            settings, {"steps": [{"name": "files", "test": "cub.parquet", "train": "cub", "classes": [0]}]}
        )
    config = validate(ReproduceConfig, {**settings, "table": table, "scale": scale})
    assert len({cell.key(tiny_teacher(), [], "data") for cell in cells_of(config)}) == len(cells_of(config))


SAME = {
    "digits_methods.yaml": (1, ["synthesis", "student", "rounds", "buffer", "teacher"]),
    "digits_prune.yaml": (4, ["synthesis", "student", "teacher", "new_images"]),
    "digits_transfer.yaml": (6, ["student", "teacher"]),
    "digits_continual.yaml": (7, ["synthesis", "student", "teacher", "data", "steps", "images_per_class", "epochs"]),
}


@pytest.mark.parametrize("name", SAME)
def test_the_settings_of_digits_are_those_of_the_configurations(name: str) -> None:
    table, fields = SAME[name]
    theirs, ours = yaml.safe_load((ROOT / "configs" / name).read_text()), settings_of(table, "digits")
    for field in fields:
        same = [ours[field]] if not isinstance(theirs[field], dict) else [ours[field].get(key) for key in theirs[field]]
        expected = [theirs[field]] if not isinstance(theirs[field], dict) else [*theirs[field].values()]
        for one, other in zip(same, expected, strict=True):
            if isinstance(other, dict):
                assert one is not None and other.items() <= one.items(), (field, one, other)
            elif field != "student" or one is not None:
                assert one == other, (field, one, other)


def test_grids_have_a_cell_for_each_row_column_and_seed() -> None:
    assert [str(cell) for cell in cells_of(tiny(1))][:2] == ["noise (seed 0)", "deepdream (seed 0)"]
    assert len(cells_of(tiny(1))) == len(METHODS) * 2
    pruned = cells_of(tiny(4, seeds=1, sources={"faces": "faces.parquet"}))
    assert len(pruned) == (len(MADE) + 3) * 2 and {cell.column for cell in pruned} == {"−50% filters", "−20% filters"}
    assert {cell.images for cell in pruned if cell.row == "faces"} == {"faces.parquet"}
    assert {cell.images for cell in pruned if cell.row == REAL} == {REAL}
    none = next(cell for cell in pruned if cell.row == "no_finetune")
    assert isinstance(none.run, PruneConfig) and none.run.pruning.epochs == none.run.pruning.between_epochs == 0
    assert isinstance(none.images, DistillConfig) and none.images.synthesis.method == "deep_inversion"
    etas = {cell.row: cell.run.pruning.eta for cell in cells_of(tiny(5, seeds=1)) if isinstance(cell.run, PruneConfig)}
    assert etas == {"teacher": 0, "real": 0, "real_hardware_aware": 1, "adaptive": 0, "adaptive_hardware_aware": 1}
    assert [cell.row for cell in cells_of(tiny(7, seeds=1, rows=["lwf_mc", "abd"]))] == ["abd", "lwf_mc"]
    with pytest.raises(InputError, match="rows = 'dreams'"):
        cells_of(tiny(7, rows=["dreams"]))


def test_images_against_a_student_are_made_in_rounds() -> None:
    config = tiny(6, new_images=180)  # nine batches: a third, and three rounds of two
    adaptive = making(
        config.teacher, replace(config.synthesis, method="adaptive"), config.student, config.buffer, 180, 1
    )
    assert (adaptive.rounds.initial_batches, adaptive.rounds.count, adaptive.rounds.batches) == (3, 3, 2)
    plain = making(config.teacher, replace(config.synthesis, method="noise"), config.student, config.buffer, 180, 1)
    assert (plain.rounds.initial_batches, plain.rounds.count) == (9, 0)


def test_keys_follow_from_what_decides_and_from_nothing_else() -> None:
    teacher = tiny_teacher()
    (cell, *_), config = cells_of(tiny(6)), tiny(6)
    same = cells_of(replace(config, seeds=9, cpus=2.0, library="elsewhere", epochs=2))[0]
    assert cell.key(teacher, [], "data") == same.key(teacher, [], "data")
    others = [
        cells_of(replace(config, seed=5))[0],
        cells_of(replace(config, epochs=3))[0],
        cells_of(replace(config, synthesis=replace(config.synthesis, iterations=5)))[0],
        cells_of(replace(config, student=replace(config.student, learning_rate=0.2)))[0],
    ]
    keys = [other.key(teacher, [], "data") for other in others] + [
        cell.key(tiny_teacher(1), [], "data"),
        cell.key(teacher, [], "other data"),
    ]
    assert len({cell.key(teacher, [], "data"), *keys}) == 7


@pytest.mark.parametrize("version", [1, 2, 10**6])
def test_figures_and_sets_of_another_engine_version_are_not_found(
    monkeypatch: pytest.MonkeyPatch, version: int
) -> None:
    teacher, cells = tiny_teacher(), cells_of(tiny(1))
    images = next(each.images for each in cells_of(tiny(6)) if isinstance(each.images, DistillConfig))
    before = [cell.key(teacher, [], "data") for cell in cells], key_of(images, teacher)
    monkeypatch.setattr("raydream.reproduction.tables.ENGINE_VERSION", version)  # not in the keys of sets
    assert not {*before[0]} & {cell.key(teacher, [], "data") for cell in cells}
    monkeypatch.setattr("raydream.reproduction.sets.ENGINE_VERSION", version)
    assert key_of(images, teacher) != before[1]


def test_a_normalization_decides_what_images_and_figures_are() -> None:
    # A fingerprint of weights knows nothing of it.
    teacher, config = tiny_teacher(), tiny(6, rows=["deep_inversion"])
    other = replace(config, teacher=replace(config.teacher, mean=(0.0,)))
    sets = [cells_of(each)[0].images for each in (config, other)]
    assert len({key_of(each, teacher) for each in sets if isinstance(each, DistillConfig)}) == 2
    looked_at = cells_of(tiny(2))[0]
    verifiers = [tiny_teacher(1), make_teacher(tiny_teacher(1).network, other.teacher)]
    assert len({looked_at.key(teacher, [verifier], "data") for verifier in verifiers}) == 2


def test_a_row_rests_on_what_it_looks_at_whichever_others_are_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "mine.npz"
    np.savez(path, x=DIGITS[:40, 0])

    def bases(table: int, rows: list[str], **changes: object) -> dict[str, str]:
        config = tiny(table, seeds=1, rows=rows, **changes)
        return bases_of(config, cells_of(config), check_table(config, cells_of(config), config.teacher))

    sources = {"mine": str(path)}
    found = bases(6, ["deep_inversion", "mine", "real"], sources=sources)
    assert len({*found.values()}) == 3
    assert bases(6, ["deep_inversion"], sources={"mine": "none.npz"})["deep_inversion"] == found["deep_inversion"]
    assert bases(6, ["mine"], sources=sources)["mine"] == found["mine"]
    assert bases(6, ["mine"], sources=sources, cpus=2.0)["mine"] != found["mine"]
    other = bases(7, ["lwf_mc", "oracle_distill"])
    assert other["lwf_mc"] == bases(7, ["lwf_mc"])["lwf_mc"] != other["oracle_distill"]
    keys = {
        cells_of(tiny(6, rows=["mine"], sources={"mine": where}))[0].key(tiny_teacher(), [], found["mine"])
        for where in (str(path), "moved.npz")
    }
    assert len(keys) == 1


def test_a_run_remembers_where_its_library_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, there = tiny(6), tmp_path / "there"
    there.mkdir()
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    folder = run_folder.begin(str(tmp_path / "run"), as_dict(config), "reproduce")
    monkeypatch.chdir(there)
    assert str(library_of(config, folder)) == str(there / "runs" / "library")
    assert (there / "runs" / "library").is_dir()
    monkeypatch.chdir(tmp_path)
    assert str(library_of(config, folder)) == str(there / "runs" / "library")
    assert str(library_of(replace(config, library=str(tmp_path / "mine")), folder)) == str(tmp_path / "mine")
    monkeypatch.setenv("RAY_ADDRESS", "somewhere:6379")  # whose nodes do not see this machine's folders
    assert library_of(config, folder) == folder.place


def test_other_peoples_images_are_known_by_their_content(tmp_path: Path) -> None:
    path, told = tmp_path / "mine.npz", []
    for images in (DIGITS[:300], DIGITS[:300], DIGITS[1:301]):
        np.savez(path, x=images[:, 0])
        told.append(content_of(str(path), "sources.mine", (1, 8, 8)))
    assert told[0] == told[1] != told[2]


@pytest.mark.parametrize(("table", "row"), [(1, "noise"), (4, "real"), (6, "real")])
def test_what_diverges_is_no_figure(table: int, row: str, tmp_path: Path) -> None:
    config = tiny(table, seeds=1, rows=[row], ratios=[0.5], student={"learning_rate": 1e30, "clip_norm": None})
    with pytest.raises(DivergenceError, match=r"student\.learning_rate"):
        run_cell(cells_of(config)[0], given(config, tmp_path))


def test_images_against_a_pruned_network_are_made_again_where_they_are_damaged(tmp_path: Path) -> None:
    changes = {"additions": {"rounds": 1, "batches": 1, "epochs": 1}, "ratios": [0.5]}
    config = tiny(4, seeds=1, rows=["adaptive"], **changes)
    (cell,), shared = cells_of(config), given(config, tmp_path)
    first = run_cell(cell, shared)
    (added,) = (tmp_path / "images").glob("added-*/*.parquet")
    added.write_bytes(b"damaged")
    assert run_cell(cell, shared).figures["accuracy"] == first.figures["accuracy"]
    assert added.read_bytes() != b"damaged"


def test_images_of_new_classes_are_counted_step_by_step(tmp_path: Path) -> None:
    config = tiny(7, seeds=1, rows=["deep_inversion"])
    step = as_dict(config)["steps"][0]
    both = tiny(7, seeds=1, rows=["deep_inversion"], steps=[{**step, "classes": [7]}, {**step, "classes": [8, 9]}])
    filled = [run_cell(cells_of(each)[0], given(each, tmp_path)) for each in (config, both)]
    assert [each.facts["images"] for each in filled] == [4 * 7, 4 * 7 + 4 * 8]


@pytest.mark.parametrize(
    ("table", "rows"),
    [
        (1, ["adaptive", "dafl"]),
        (4, ["no_finetune", "real"]),
        (7, ["deep_inversion", "lwf_mc"]),
        pytest.param(2, ["deep_inversion", "real"], marks=pytest.mark.long),
        pytest.param(3, ["deep_inversion", "real"], marks=pytest.mark.long),
        pytest.param(5, ["teacher", "adaptive"], marks=pytest.mark.long),
        pytest.param(6, ["adaptive", "real"], marks=pytest.mark.long),
    ],
)
def test_each_table_is_filled(table: int, rows: list[str], tmp_path: Path) -> None:
    config = tiny(table, seeds=1, rows=rows, ratios=[0.5])
    cells, shared = cells_of(config), given(config, tmp_path)
    filled = [(cell, run_cell(cell, shared)) for cell in cells]
    results = CellResults(LocalFolder(tmp_path / "cells"))
    for cell, each in filled:
        assert all(np.isfinite(value) for value in each.figures.values()), (str(cell), each.figures)
        results.write("key", cell, each)
        assert results.read("key") == each
    lines = rows_of(filled, table)
    assert [row.name for row in lines][:2] == rows and any(row.paper for row in lines)
    text = shown_table(lines)
    assert {len(line) for line in text} == {len(text[0])}
    frame = as_frame(lines, table)
    assert set(frame["source"]) == {"run", "paper"}
    if table == 6:  # the images are there now, and a cell is the same to the bit
        (tmp_path / "images").rename(tmp_path / "moved")
        again = run_cell(cells[0], replace(shared, images=LocalFolder(tmp_path / "moved")))
        assert again.figures == filled[0][1].figures


@pytest.mark.parametrize(("held_out", "count"), [(30, 30), (300, 40)])
def test_all_rows_of_table_3_are_of_equally_many_images(held_out: int, count: int, tmp_path: Path) -> None:
    config = tiny(3, seeds=1, rows=["noise", "real"], synthesis={"iterations": 1})
    shared = given(config, tmp_path)
    validation = Split(shared.real.validation.images[:held_out], shared.real.validation.labels[:held_out])
    shared = replace(shared, real=replace(shared.real, read_validation=lambda: validation))
    filled = [run_cell(cell, shared) for cell in cells_of(config)]
    assert [each.facts["images"] for each in filled] == [count, count]


def test_the_first_of_equally_good_points_is_the_best() -> None:
    curve = [{"step": step, "validation": value} for step, value in ((5, 0.5), (10, 0.9), (15, 0.9), (20, 0.4))]
    assert _best(curve)["step"] == 10


def test_a_set_is_made_once_and_again_where_it_is_damaged(tmp_path: Path) -> None:
    (cell,) = cells_of(tiny(6, seeds=1, rows=["deep_inversion"]))
    assert isinstance(cell.images, DistillConfig) and isinstance(cell.run, TransferConfig)
    made = make_set(cell.images, tiny_teacher(), LocalFolder(tmp_path / "images"))
    shards = sorted((tmp_path / "images").rglob("r*.parquet"))
    before = [path.stat().st_mtime_ns for path in shards]
    make_set(cell.images, tiny_teacher(), LocalFolder(tmp_path / "images"))
    assert [path.stat().st_mtime_ns for path in shards] == before and len(shards) == 2
    shards[1].write_bytes(b"damaged")
    again = make_set(cell.images, tiny_teacher(), LocalFolder(tmp_path / "images"))
    assert all((one.images == other.images).all() for one, other in zip(made, again, strict=True))
    assert len(ShardStore(shards[0].parent).committed()) == 2


def test_what_is_kept_damaged_is_no_result(tmp_path: Path) -> None:
    results = CellResults(LocalFolder(tmp_path))
    assert results.read("none") is None
    (tmp_path / "half.json").write_text('{"figures": {"student_accuracy": 0.')
    (tmp_path / "other.json").write_text('{"figures": {}}')
    assert results.read("half") is None and results.read("other") is None


def test_figures_are_added_up_as_by_hand() -> None:
    config = tiny(1, seeds=3, rows=["noise", "adaptive"])
    values = {"noise": iter([0.1, 0.2, 0.6]), "adaptive": iter([0.5, 0.5, 0.5])}
    facts = {"images": 60, "updates": 4, "steps": 9, "measured_on": "500 real test images"}
    filled: list[tuple[Cell, Filled]] = [
        (cell, Filled({"student_accuracy": next(values[cell.row])}, facts)) for cell in cells_of(config)
    ]
    rows = rows_of(filled, 1)
    told = in_summary(rows)["student_accuracy"]
    # Mean 0.3, standard deviation sqrt((0.04 + 0.01 + 0.09) / 2), t of two degrees of freedom 4.3027.
    assert told["noise"]["mean"] == pytest.approx(0.3) and told["noise"]["seeds"] == 3
    assert told["noise"]["spread"] == pytest.approx(4.302653 * 0.07**0.5 / 3**0.5)
    assert told["adaptive"] == {"mean": 0.5, "spread": 0.0, "seeds": 3}
    assert rows[0].paper["resnet34_to_resnet18"] == 13.61
    assert shown_table(rows)[1][:2] == ["noise", "30.0 ± 65.7 %"]
    assert shown("inception_score", {"mean": 9.76, "spread": 3e-15}) == "9.76 ± 0"
    one = rows_of(filled[:1], 1)[0].figures["student_accuracy"]
    assert one == {"mean": 0.1, "spread": None, "seeds": 1}


def test_the_papers_figures_stand_in_our_rows() -> None:
    assert paper_figures(1)["adaptive"] == {
        "vgg11_to_vgg11": 90.78,
        "vgg11_to_resnet18": 90.36,
        "resnet34_to_resnet18": 93.26,
    }
    assert paper_figures(1)["dafl"] == {"resnet34_to_resnet18": 92.22}
    assert paper_figures(2)["deep_inversion"]["vgg11"] == 80.1
    assert paper_figures(3)["deep_inversion"] == {"Inception score": 60.6}
    assert paper_figures(4)["no_finetune"] == {"minus_50pct_filters": 1.9, "minus_20pct_filters": 16.6}
    assert paper_figures(5)["adaptive_hardware_aware"] == {"GFLOPs": 2.9, "latency (ms)": 4.22, "top-1": 74.0}
    assert paper_figures(6)["deep_inversion"] == {"epochs_90": 68.0, "epochs_250_mixup": 73.8}
    assert paper_figures(7)["lwf_mc"]["imagenet plus cub: CUB"] == 41.3
    assert "biggan" in paper_figures(4) and "sss" in paper_figures(5)


def test_an_estimate_counts_what_the_grid_does() -> None:
    config = tiny(1, seeds=2, rows=["noise", "adaptive"])
    # Two batches and a round of one, 20 images each; 50 steps a round and 4 final ones.
    assert work_of_cell(cells_of(config)[0], config) == PlannedWork(60, 3, 12, 54)
    assert estimated(config, cells_of(config)).work == PlannedWork(240, 12, 48, 216)
    pruned = tiny(4, seeds=1, rows=["no_finetune", "deep_inversion"], ratios=[0.5, 0.2])
    estimate = estimated(pruned, cells_of(pruned))
    # One set of 40 images for four cells; two of them learn for 1 and 2 epochs of two steps each.
    assert (estimate.sets, estimate.cells, estimate.work.images) == (1, 4, 40)
    (images,) = {str(cell.images): cell.images for cell in cells_of(pruned)}.values()
    assert isinstance(images, DistillConfig)
    assert estimate.work.steps == 2 * 3 * 2 + work_of_set(images).steps
    assert estimate.hours > 0 and estimate.storage == 40 * (64 + 40)
    assert any("CPU-hours" in line for line in estimate.lines())


def test_settings_are_found_by_what_is_asked_for() -> None:
    assert defaults_for({"table": 7})["teacher"]["classes"] == 7
    assert defaults_for({"table": 1, "scale": "cifar"})["teacher"]["network"] == "cifar_resnet20"
    assert defaults_for({"table": 4, "scale": "paper"})["new_images"] == 164976
    for nothing in ({}, {"table": 8}, {"table": 1, "scale": "huge"}, {"table": [1]}, {"scale": {}}):
        assert defaults_for(nothing) == {}
    assert as_dict(tiny(4))["pruning"]["steps"] == 2
