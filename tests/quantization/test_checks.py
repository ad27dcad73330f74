"""What is refused before a quantization starts, in one sentence."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from raydream.config import AdditionsConfig, QuantizationConfig, QuantizeConfig, StudentConfig, SynthesisConfig
from raydream.config.conversion import as_dict, validate
from raydream.errors import InputError
from raydream.networks.quantized import quantized
from raydream.quantization.checks import check_quantizable
from tests.tiny import tiny_network, tiny_teacher


def config_of(**changes: object) -> QuantizeConfig:
    teacher = replace(tiny_teacher().config, checkpoint="somewhere")
    return QuantizeConfig(images="somewhere", teacher=teacher, quantization=QuantizationConfig(**changes))


def test_layers_are_named_in_their_order():
    layers = check_quantizable(tiny_network().eval(), config_of())
    convolutions = [name for name, each in tiny_network().named_modules() if isinstance(each, nn.Conv2d | nn.Linear)]
    assert layers == convolutions


class Branching(nn.Module):
    """Asks for a value while it runs, which torch.export cannot follow."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.linear(x.flatten(1))
        return logits if float(logits.sum()) > 0 else -logits


@pytest.mark.parametrize(
    ("network", "changes", "field", "says"),
    [
        (lambda: nn.Sequential(nn.Flatten(), nn.Softmax(1)), {}, "teacher.network", "it has none that run"),
        (lambda: quantized(tiny_network(), {"0": (4, 4)}).eval(), {}, "teacher.network", "it is quantized"),
        (lambda: tiny_network().eval(), {"keep": "0,features.0"}, "quantization.keep", "did you mean"),
        (Branching, {}, "teacher.network", "torch.export says"),
        (lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), {"keep": "1"}, "quantization.keep", "leave some out"),
    ],
)
def test_a_network_that_cannot_be_quantized_is_refused(network, changes, field, says):
    with pytest.raises(InputError, match=says) as error:
        check_quantizable(network(), config_of(**changes))
    assert error.value.field == field


def test_what_no_file_is_written_of_need_not_be_exported():
    assert check_quantizable(Branching(), config_of(weights=4)) == ["linear"]
    assert check_quantizable(Branching(), config_of(method="distillation")) == ["linear"]


@pytest.mark.parametrize(
    ("field", "good", "bad"),
    [
        ("weights", [2, 8], [0, 1, 9, 16, "four", 4.5]),
        ("activations", [2, 8], [1, 9]),
        ("edges", [2, 8], [1, 32]),
        ("keep", ["", "a,b", ("a", "b")], ["a,a", ("b", "b"), 3]),
        ("method", ["post_training", "distillation"], ["qat"]),
        ("calibration_images", [1, 512], [0, -1]),
        ("ranges", ["auto", "min_max", "entropy", "percentile"], ["mse", "kl"]),
        ("epochs", [0, 30], [-1]),
        ("frozen", [0, 0.5, 1], [-0.1, 1.1]),
        ("compare", ["", "noise", "noise, real", ("deepdream",)], ["images", ("noise", "cats")]),
    ],
)
def test_ranges_of_settings(field, good, bad):
    for value in good:
        config = validate(QuantizationConfig, {field: value})
        assert validate(QuantizationConfig, as_dict(config)) == config
    for value in bad:
        with pytest.raises(InputError, match=field):
            validate(QuantizationConfig, {field: value})


@pytest.mark.parametrize(
    ("changes", "integer", "ranges"),
    [
        ({}, True, "min_max"),
        ({"ranges": "entropy"}, True, "entropy"),
        ({"weights": 4}, False, "mse"),
        ({"method": "distillation"}, False, "mse"),
        ({"activations": 6, "ranges": "percentile"}, False, "percentile"),
    ],
)
def test_libraries_quantize_8_bits_and_ranges_follow(changes, integer, ranges):
    config = QuantizationConfig(**changes)
    assert (config.integer, config.chosen_ranges) == (integer, ranges)
    assert config.label == f"W{config.weights}A{config.activations}"


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"quantization": {"weights": 4, "ranges": "entropy"}}, "quantization.ranges"),
        ({"additions": {"rounds": 1}}, "additions.rounds"),
        ({"student": {"network": "digits"}}, "student.network"),
        ({"student": {"network": "teacher", "ema": 0.9}}, "student.ema"),
        ({"student": {"network": "teacher", "workers": 2}}, "student.workers"),
        ({"student": {"network": "teacher", "precision": "bf16"}}, "student.precision"),
        ({"images": ""}, "images"),
        ({"device": "cuda"}, "student.gpus"),
    ],
)
def test_settings_that_do_not_go_together(settings, field):
    with pytest.raises(InputError) as error:
        validate(QuantizeConfig, {"images": "somewhere", **settings})
    assert error.value.field == field


def test_rounds_go_with_distillation_and_competition():
    distillation = QuantizationConfig(method="distillation")
    QuantizeConfig(images="x", quantization=distillation, additions=AdditionsConfig(rounds=2))
    with pytest.raises(ValueError, match=r"synthesis\.method"):
        synthesis = SynthesisConfig(method="deep_inversion")
        QuantizeConfig(images="x", quantization=distillation, additions=AdditionsConfig(rounds=2), synthesis=synthesis)
    assert QuantizeConfig(images="x").student == StudentConfig(
        network="teacher", learning_rate=0.01, weight_decay=1e-4, precision="fp32"
    )
