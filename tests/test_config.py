"""What the configuration's fields allow; the command line that reads them is tested elsewhere."""

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from raydream import config
from raydream.config import ContinualConfig, DistillConfig, EvaluateConfig, TeacherConfig, conversion
from raydream.errors import InputError

INFINITE, NAN = float("inf"), float("nan")


def validate(settings: dict[str, Any]) -> DistillConfig:
    return TypeAdapter(DistillConfig).validate_python(settings)


def nested(field: str, value: object) -> dict[str, Any]:
    component, _, name = field.rpartition(".")
    settings: dict[str, Any] = {name: value}
    for part in reversed(component.split(".") if component else []):
        settings = {part: settings}
    return settings


RANGES = {
    # field: (allowed values, the boundary among them; refused values)
    "seed": ([0, 2**40], [-1, 0.5, "x"]),
    "device": (["auto", "cpu", "cuda", "mps"], ["gpu", "cuda:0", None]),
    "experiment": (["a", "Digits_2.run-1", "_"], ["", "a b", "../up", "a/b", "-x", ".hidden"]),
    "teacher.input_shape": ([(1, 1, 1)], [(0, 8, 8), (1, 8), (1, 8, 8, 8), (1, -8, 8)]),
    "teacher.std": ([(1e-9,)], [(0.0,), (-1.0,), (INFINITE,), (NAN,)]),
    "teacher.classes": ([2, 1000], [1, 0, -3]),
    "training.epochs": ([1], [0]),
    "training.learning_rate": ([1e-9], [0, -1, NAN]),
    "training.weight_decay": ([0], [-1e-9, INFINITE]),
    "training.shift": ([0, 3], [-1]),
    "training.optimizer": (["adamw", "sgd"], ["adam"]),
    "training.decay": (["one_cycle", "cosine"], ["linear"]),
    "training.warm_up": ([0], [-1, 0.5]),
    "training.clip_norm": ([None, 0.1], [0, -1, INFINITE]),
    "training.ema": ([0, 0.999], [-0.1, 1, NAN]),
    "training.label_smoothing": ([0, 0.99], [-0.1, 1, NAN]),
    "training.class_weights": ([(), "balanced", (0.1,) * 10], ["even", (0.0,) * 10, (-1.0,) * 10]),
    "training.flip": ([True, False], [2, "maybe"]),
    "training.zoom": ([0, 0.9], [-0.1, 1, NAN]),
    "training.precision": (["auto", "fp32", "bf16"], ["fp16"]),
    "data.name": (["digits"], ["mnist", "", "torchvision", None]),
    "data.validation_of": (["train", "test"], ["validation", None]),
    "data.validation_share": ([0.1, 0.99], [0, 1, -0.1, NAN]),
    "synthesis.method": (["noise", "deepdream", "deep_inversion", "adaptive", "dafl", "fast", "noisy"], ["adi", None]),
    "synthesis.generator.latent": ([1], [0, 1.5]),
    "synthesis.generator.width": ([1], [0]),
    "synthesis.generator.learning_rate": ([1e-9], [0, -1, INFINITE]),
    "synthesis.generator.code_learning_rate": ([1e-9], [0, -1, NAN]),
    "synthesis.generator.outer_rate": ([1e-9, 1], [0, 1.1, NAN]),
    "synthesis.generator.betas": ([None, (0, 0.999)], [(0.9,), (1.0, 0.9), 0.5]),
    "synthesis.generator.statistics_momentum": ([0, 0.9], [-0.1, 1, NAN]),
    "synthesis.generator.chains": ([1, 64], [0, 0.5]),
    "synthesis.batch_size": ([1], [0]),
    "synthesis.chunk_size": ([None, 1, 10**6], [0, -1, 1.5]),
    "synthesis.iterations": ([1], [0, 1.5]),
    "synthesis.learning_rate": ([1e-9], [0, -0.1, INFINITE, NAN]),
    "synthesis.betas": ([(0, 0.999), (0.5, 0.9)], [(0.9,), (1.0, 0.9), (0.9, 1.0), (-0.1, 0.9)]),
    "synthesis.decay": (["constant", "cosine"], ["linear"]),
    "synthesis.warm_up": ([0, 100], [-1, 0.5]),
    "synthesis.jitter": ([0], [-1]),
    "synthesis.precision": (["auto", "fp32", "bf16", "fp16"], ["fp64", "float32", None]),
    "synthesis.compile": (["auto", "on", "off"], ["yes", None]),
    "synthesis.start": (["noise", "images"], ["zeros"]),
    "synthesis.first_bn": ([0, 10], [-1]),
    "synthesis.competition_temperature": ([0.1], [0, -3]),
    "synthesis.coefficients.classification": ([0], [-1]),
    "synthesis.coefficients.tv": ([0, "auto"], [-1e-9, "none"]),
    "synthesis.coefficients.tv_l1": ([0, 0.1], [-1e-9, INFINITE]),
    "synthesis.coefficients.l2": ([0], [-1e-9, NAN, "auto"]),
    "synthesis.coefficients.l2_per_image": ([0, 0.1], [-1e-9, NAN]),
    "synthesis.coefficients.feature": ([0, "auto"], [-1, INFINITE, "AUTO"]),
    "synthesis.coefficients.competition": ([0, 200], [-1, INFINITE]),
    "synthesis.coefficients.one_hot": ([0], [-1]),
    "synthesis.coefficients.activation": ([0], [-1, NAN]),
    "synthesis.coefficients.information_entropy": ([0, 20], [-1, INFINITE]),
    "synthesis.targets.rule": (["balanced", "random"], ["listed ", "none", None]),
    "student.batch_size": ([1], [0]),
    "student.optimizer": (["sgd", "adamw"], ["adam"]),
    "student.learning_rate": ([1e-9], [0]),
    "student.weight_decay": ([0], [-1]),
    "student.warm_up": ([0, 5], [-1, 0.5]),
    "student.decay": (["constant", "cosine", "step"], ["linear"]),
    "student.milestones": ([(), (0.0,), (0.3, 0.6)], [(1.0,), (0.5, -0.1)]),
    "student.step_factor": ([0.1, 0.99], [0, 1, -1, NAN]),
    "student.clip_norm": ([None, 0.1], [0, -1, INFINITE]),
    "student.ema": ([0, 0.999], [-0.1, 1, NAN]),
    "student.temperature": ([0.1], [0]),
    "student.view.shift": ([0], [-1, 0.5]),
    "student.view.flip": ([True, False], [2, "maybe"]),
    "student.view.zoom": ([0, 0.9], [-0.1, 1, NAN]),
    "student.view.rotation": ([0, 180], [-1, 181, NAN]),
    "student.view.brightness": ([0, 3], [-0.1, INFINITE]),
    "student.view.contrast": ([0, 0.9], [-0.1, 1]),
    "student.view.cutout": ([0, 16], [-1, 0.5]),
    "student.view.mixup": ([0], [-0.1]),
    "student.precision": (["auto", "fp32", "bf16"], ["fp16", "fp64"]),
    "student.workers": ([1, 2, 256], [0]),
    "student.min_workers": ([None, 1], [0, 0.5]),
    "student.cpus": ([0.1], [0]),
    "student.gpus": ([0, 0.5], [-1]),
    "generators.count": ([1, "auto"], [0, 1.5, "two"]),
    "generators.min": ([1, 2], [0]),
    "generators.cpus": ([0.1], [0]),
    "generators.gpus": ([0], [-0.5]),
    "generators.patience_s": ([0.1], [0, -1]),
    "buffer.samples_per_insert": ([0.01, 50], [0, -1, INFINITE, NAN]),
    "buffer.error_bound": ([None, 0.1], [0, -1]),
    "buffer.block_steps": ([1], [0]),
    "buffer.memory_mb": ([None, 0.1], [0, -1, NAN]),
    "buffer.stall_timeout_s": ([0.1], [0]),
    "rounds.initial_batches": ([1], [0]),
    "rounds.count": ([0], [-1]),
    "rounds.batches": ([1], [0]),
    "rounds.final_steps": ([0], [-1]),
    "rounds.snapshot_steps": ([None, 1], [0]),
    "rounds.lockstep": ([True, False], [2, "maybe"]),
}
ALLOWED = [(field, value) for field, (allowed, _) in RANGES.items() for value in allowed]  # type: ignore[attr-defined]
REFUSED = [(field, value) for field, (_, refused) in RANGES.items() for value in refused]  # type: ignore[attr-defined]


@pytest.mark.parametrize(("field", "value"), ALLOWED)
def test_values_up_to_the_boundary_are_allowed(field, value):
    found: Any = validate(nested(field, value))
    for name in field.split("."):
        found = getattr(found, name)
    assert found == value


@pytest.mark.parametrize(("field", "value"), REFUSED)
def test_values_beyond_the_boundary_are_refused_by_their_field(field, value):
    with pytest.raises(ValidationError) as refused:
        validate(nested(field, value))
    wrong = {".".join(str(part) for part in error["loc"]) for error in refused.value.errors()}
    assert all(path.startswith(field) for path in wrong), wrong


STAGES = {
    # field of a stage: (allowed values, the boundary among them; refused values)
    "size": ([None, (2, 2), (3, 224)], [(1, 2), (2, 1), (0, 8), (8,), (8, 8, 8), 8]),
    "iterations": ([None, 1], [0, -1, 0.5]),
    "learning_rate": ([None, 1e-9], [0, -0.1, INFINITE, NAN]),
    "betas": ([None, (0, 0.999)], [(0.9,), (1.0, 0.9), (0.9, 1.0), (-0.1, 0.9)]),
    "jitter": ([None, 0, 30], [-1, 0.5]),
    "upsampling": (["nearest", "bilinear", "bicubic"], ["area", None]),
}


def staged(field: str, value: object) -> dict[str, Any]:
    return {"synthesis": {"stages": [{field: value}, {}]}}  # the last one has the teacher's size


@pytest.mark.parametrize(("field", "value"), [(f, value) for f, (allowed, _) in STAGES.items() for value in allowed])  # type: ignore[attr-defined]
def test_values_of_a_stage_up_to_the_boundary_are_allowed(field, value):
    first, last = validate(staged(field, value)).synthesis.stages
    assert getattr(first, field) == value and last == config.StageConfig()


@pytest.mark.parametrize(("field", "value"), [(f, value) for f, (_, refused) in STAGES.items() for value in refused])  # type: ignore[attr-defined]
def test_values_of_a_stage_beyond_the_boundary_are_refused_by_their_field(field, value):
    with pytest.raises(ValidationError) as refused:
        validate(staged(field, value))
    wrong = {".".join(str(part) for part in error["loc"]) for error in refused.value.errors()}
    assert all(path.startswith(f"synthesis.stages.0.{field}") for path in wrong), wrong


@pytest.mark.parametrize(
    ("field", "value"),
    [("classes", (-1,)), ("classes", (0.5,)), ("weights", (-0.1, 1.0)), ("weights", (1.0, NAN)), ("rule", "sorted")],
)
def test_targets_beyond_the_boundary_are_refused_by_their_field(field, value):
    rule = {"classes": "listed", "weights": "weighted"}.get(field)
    with pytest.raises(ValidationError) as refused:
        validate({"synthesis": {"targets": {"rule": rule, field: value}}})
    wrong = {".".join(str(part) for part in error["loc"]) for error in refused.value.errors()}
    assert all(path.startswith(f"synthesis.targets.{field}") for path in wrong), wrong


@pytest.mark.parametrize("settings", [{"sede": 1}, {"synthesis": {"lr": 0.1}}, {"rounds": {"Count": 1}}])
def test_unknown_fields_are_refused(settings):
    with pytest.raises(ValidationError):
        validate(settings)


RULES = [
    # settings that break a rule between fields, the field that is told, and the nearest settings that do not
    ({"teacher": {"mean": (0.1, 0.2)}}, "teacher.mean", {"teacher": {"mean": (0.1,)}}),
    ({"teacher": {"std": ()}}, "teacher.std", {"teacher": {"std": (0.2,)}}),
    (
        {"teacher": {"input_shape": (3, 8, 8), "mean": (0.1,) * 3}},
        "teacher.std",
        {"teacher": {"input_shape": (3, 8, 8), "mean": (0.1,) * 3, "std": (1.0,) * 3}},
    ),
    ({"student": {"batch_size": 9, "workers": 2}}, "student.workers", {"student": {"batch_size": 9, "workers": 3}}),
    ({"student": {"batch_size": 2, "workers": 4}}, "student.workers", {"student": {"batch_size": 4, "workers": 4}}),
    (
        {"student": {"workers": 2, "min_workers": 3}},
        "student.min_workers",
        {"student": {"workers": 4, "min_workers": 4}},
    ),
    (
        {"rounds": {"count": 0, "final_steps": 0}},
        "rounds.final_steps",
        {"rounds": {"count": 0, "final_steps": 1}},
    ),
    (
        {"rounds": {"lockstep": True, "snapshot_steps": 5}},
        "rounds.snapshot_steps",
        {"rounds": {"lockstep": False, "snapshot_steps": 5}},
    ),
    *[
        (
            {"synthesis": {"targets": {"rule": rule, **given}}},
            f"synthesis.targets.{field}",
            {"synthesis": {"targets": {"rule": needed, field: value}}},
        )
        for field, needed, value in (("classes", "listed", (0, 3)), ("weights", "weighted", (0.0, 1.0)))
        for rule, given in (
            (needed, {}),
            (needed, {field: ()}),
            ("balanced", {field: value}),
            ("random", {field: value}),
        )
    ],
    (
        {"synthesis": {"targets": {"rule": "weighted", "classes": (1,), "weights": (1.0, 2.0)}}},
        "synthesis.targets.classes",
        {"synthesis": {"targets": {"rule": "weighted", "weights": (1.0, 2.0)}}},
    ),
    (
        {"synthesis": {"targets": {"rule": "weighted", "weights": (0.0, 0.0)}}},
        "synthesis.targets.weights",
        {"synthesis": {"targets": {"rule": "weighted", "weights": (0.0, 1e-9)}}},
    ),
    (
        {"synthesis": {"stages": ({"size": (8, 8)},)}},
        "synthesis.stages.size",
        {"synthesis": {"stages": ({"size": None},)}},
    ),
    (
        {"synthesis": {"stages": ({}, {"size": (4, 4)})}},
        "synthesis.stages.size",
        {"synthesis": {"stages": ({"size": (4, 4)}, {})}},
    ),
    *[
        (
            {"synthesis": {"method": method, "coefficients": dict.fromkeys(terms, 0.0)}},
            "synthesis.coefficients",
            {"synthesis": {"method": method, "coefficients": dict.fromkeys(terms, 0.0) | {one: 1e-9}}},
        )
        for method, terms, one in (
            ("noise", ("classification",), "classification"),
            ("deepdream", ("classification", "tv", "l2"), "tv_l1"),
            ("deepdream", ("classification", "tv", "l2"), "l2_per_image"),
            ("deep_inversion", ("classification", "tv", "l2", "feature"), "feature"),
            ("adaptive", ("classification", "tv", "l2", "feature"), "tv"),  # a competition has no student at first
            ("dafl", ("one_hot", "activation", "information_entropy"), "activation"),
            ("fast", ("classification", "feature"), "feature"),
            ("noisy", ("classification", "feature"), "feature"),
        )
    ],
    *[
        ({"synthesis": {"method": method} | setting}, f"synthesis.{next(iter(setting))}", {"synthesis": setting})
        for method in ("dafl", "fast", "noisy")
        for setting in ({"stages": ({"iterations": 5},)}, {"start": "images"})
    ],
    ({"data": {"name": "none"}}, "teacher.checkpoint", {"data": {"name": "none"}, "teacher": {"checkpoint": "a.pt"}}),
]


@pytest.mark.parametrize(("broken", "field", "kept"), RULES, ids=[f"{r[1]}-{i}" for i, r in enumerate(RULES)])
def test_rules_between_fields_name_the_field_and_a_remedy(broken, field, kept):
    with pytest.raises(ValidationError) as refused:
        validate(broken)
    error = refused.value.errors()[0]["ctx"]["error"]
    assert isinstance(error, InputError) and error.field == field and error.remedy
    validate(kept)


@pytest.mark.parametrize(
    ("method", "coefficients", "competes"),
    [
        ("adaptive", {"competition": 1e-9}, True),
        ("adaptive", {"competition": 0.0, "masked_kl": 1.0}, False),
        ("fast", {"competition": 0.0, "masked_kl": 1e-9}, True),
        ("fast", {"masked_kl": 0.0}, False),
        ("noisy", {"competition": 0.0, "masked_kl": 1e-9}, True),
        ("noisy", {"masked_kl": 0.0}, False),
        ("deep_inversion", {"competition": 10.0}, False),
        ("noise", {"competition": 10.0}, False),
        ("dafl", {"competition": 10.0, "masked_kl": 1.0}, False),
    ],
)
def test_only_methods_with_a_student_in_their_objective_compete_and_with_a_weight_alone(method, coefficients, competes):
    synthesis = {"method": method, "coefficients": coefficients}
    assert validate({"synthesis": synthesis}).synthesis.competes == competes


def test_a_teacher_job_needs_data_and_no_checkpoint():
    adapter = TypeAdapter(config.TeacherJobConfig)
    adapter.validate_python({})
    for settings, field in (({"data": {"name": "none"}}, "data.name"), ({"teacher": {"checkpoint": "x"}}, "teacher")):
        with pytest.raises(ValidationError) as refused:
            adapter.validate_python(settings)
        assert refused.value.errors()[0]["ctx"]["error"].field.startswith(field)


def test_a_configuration_cannot_be_changed():
    with pytest.raises(AttributeError):
        DistillConfig().seed = 1


SUM = "#sha256=" + "0123456789abcdef" * 4
CHECKPOINTS = {
    # what is named: what is refused of it, if anything
    "weights/mine.th": "",
    "weights/mine.th#sha256=1": "",
    "IMAGENET1K_V1": "",
    "s3://bucket/mine.th": "",
    "file:///home/me/mine.th": "",
    f"https://example.org/a/mine.th?raw=1&x=y{SUM}": "",
    f"HTTP://example.org/mine.th{SUM.upper().replace('SHA', 'sha')}": "",
    "https://example.org/mine.th": "append what this prints: curl -fL https://example.org/mine.th | sha256sum.",
    "https://example.org/mine.th?a&b": "curl -fL 'https://example.org/mine.th?a&b' | sha256sum.",
    "https://example.org/mine.th#sha256=": "the 64 digits of the file's checksum",
    "https://example.org/mine.th#md5=12": "curl -fL https://example.org/mine.th | sha256sum.",
    f"https://example.org/mine.th{SUM[:-1]}": "the 64 digits of the file's checksum",
    f"https://example.org/mine.th{SUM}0": "the 64 digits of the file's checksum",
    f"https://example.org/mi ne.th{SUM}": "the 64 digits of the file's checksum",
    f"https://example.org/mi\x1bne.th{SUM}": "the 64 digits of the file's checksum",
    f"https://{SUM}": "the 64 digits of the file's checksum",
    f"file:///etc/passwd{SUM}": "name other files by their path or URL alone",
    f"ftp://example.org/mine.th{SUM}": "name other files by their path or URL alone",
}


@pytest.mark.parametrize("checkpoint", CHECKPOINTS, ids=repr)
def test_a_url_is_taken_with_a_checksum_and_a_path_as_it_is(checkpoint):
    says = CHECKPOINTS[checkpoint]
    if not says:
        assert conversion.validate(TeacherConfig, {"checkpoint": checkpoint}).checkpoint == checkpoint
        return
    with pytest.raises(InputError) as refused:
        conversion.validate(DistillConfig, {"teacher": {"checkpoint": checkpoint}})
    assert refused.value.field == "teacher.checkpoint" and says in str(refused.value)


IN_LISTS = [
    (EvaluateConfig, {"images": "x", "verifiers": [{}, {"checkpoint": "https://a.org/w"}]}, "verifiers.1.checkpoint"),
    (EvaluateConfig, {"images": "x", "verifiers": [{"mean": [1, 2]}]}, "verifiers.0.mean"),
    (ContinualConfig, {"steps": [{}, {"name": "files"}]}, "steps.1.test"),
    (ContinualConfig, {"steps": [{"name": "imagenet"}]}, "steps.0.name"),
    (ContinualConfig, {"data": {"name": "imagenet"}}, "data.name"),
    (TeacherConfig, {"mean": [1, 2]}, "teacher.mean"),
]


@pytest.mark.parametrize(("kind", "settings", "field"), IN_LISTS, ids=[row[2] for row in IN_LISTS])
def test_an_error_in_a_list_names_the_place_in_it(kind, settings, field):
    with pytest.raises(InputError) as refused:
        conversion.validate(kind, settings)
    assert refused.value.field == field
