"""Networks by name: what each source is given, and what is said about names and arguments that lead nowhere."""

import sys

import pytest
import torch
from torch import nn

from raydream.config import StudentConfig, TeacherConfig
from raydream.errors import InputError
from raydream.networks import NETWORKS, build_network, build_student, build_teacher


def refusal(name: str, arguments: dict[str, object] | None = None) -> InputError:
    with pytest.raises(InputError) as caught:
        build_network(name, arguments or {}, 3, 10, "teacher")
    assert "\n" not in str(caught.value)
    return caught.value


def shapes(network: nn.Module) -> tuple[int, int]:
    """Channels that a network takes, and classes that it tells apart."""
    first = next(module for module in network.modules() if isinstance(module, nn.Conv2d))
    last = [module for module in network.modules() if isinstance(module, nn.Linear)][-1]
    return first.in_channels, last.out_features


GIVEN = [
    # name, arguments; the channels and classes of the network that is built for 5 channels and 7 classes
    ("digits", {}, (5, 7)),
    ("digits", {"width": 4}, (5, 7)),
    ("digits", {"classes": 3, "input_channels": 2}, (2, 3)),
    ("cifar_resnet20", {}, (5, 7)),
    ("cifar_resnet18", {"width": 8}, (5, 7)),
    ("torchvision:resnet18", {}, (3, 7)),
    ("torchvision:resnet18", {"num_classes": 4}, (3, 4)),
    ("torchvision:mobilenet_v3_small", {"dropout": 0.0}, (3, 7)),
    ("timm:resnet10t", {}, (5, 7)),
    ("timm:resnet10t.c3_in1k", {"num_classes": 4, "in_chans": 1}, (1, 4)),
]


@pytest.mark.parametrize(("name", "arguments", "expected"), GIVEN, ids=str)
def test_each_source_is_given_channels_and_classes_in_its_own_words(name, arguments, expected):
    if name.startswith("timm:"):
        pytest.importorskip("timm")
    assert shapes(build_network(name, arguments, 5, 7)) == expected


def test_teacher_and_student_are_built_for_the_teachers_images():
    teacher = TeacherConfig(network="digits", input_shape=(2, 8, 8), mean=(0, 0), std=(1, 1), classes=4)
    student = StudentConfig(network="cifar_resnet20")
    assert shapes(build_teacher(teacher)) == shapes(build_student(student, teacher)) == (2, 4)


def test_ones_own_factory_is_given_its_arguments_alone():
    linear = build_network("torch.nn:Linear", {"in_features": 3, "out_features": 5, "bias": False}, 1, 10)
    assert linear.weight.shape == (5, 3) and linear.bias is None


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_torchvisions_networks_have_no_auxiliary_heads(name):
    network = build_network(f"torchvision:{name}", {}, 3, 10)
    assert not any(part.lower().startswith("aux") for part, _ in network.named_modules())
    assert isinstance(network.train()(torch.zeros(2, 3, 80, 80)), torch.Tensor)


MISTYPED = [
    ("torchvision:resnet81", "torchvision:NAME with a classification network of torchvision", "resnet18"),
    ("torchvision:ResNet50", "torchvision:NAME with a classification network of torchvision", "resnet50"),
    ("torchvision:mobilenet_v3", "torchvision:NAME with a classification network of torchvision", "mobilenet_v3_small"),
    ("torchvision:deeplabv3_resnet50", "torchvision:NAME with a classification network of torchvision", "resnet50"),
    ("torchvision:", "torchvision:NAME with a classification network of torchvision", " or "),
    ("timm:resnet81", "timm:NAME with a network of timm", "resnet18"),
    ("timm:resnet_50", "timm:NAME with a network of timm", "resnet50"),
    ("timm:", "timm:NAME with a network of timm", " or "),
]


@pytest.mark.parametrize(("name", "allowed", "suggested"), MISTYPED, ids=str)
def test_a_mistyped_name_gets_suggestions(name, allowed, suggested):
    if name.startswith("timm:"):
        pytest.importorskip("timm")
    error = refusal(name)
    assert (error.field, error.value, error.allowed) == ("teacher.network", name, allowed)
    assert error.remedy.startswith("did you mean ") and suggested in error.remedy


NOWHERE = [
    ("resnet9000", "name a known network, or where to import yours from"),
    ("Digits", "name a known network, or where to import yours from"),
    ("", "name a known network, or where to import yours from"),
    ("json:", "name a known network, or where to import yours from"),
    ("no.such.module:factory", "No module named 'no'"),
    ("json:no_such_factory", "module 'json' has no attribute 'no_such_factory'"),
    ("torchvision.models:resnet:18", "has no attribute 'resnet:18'"),
    (":factory", "Empty module name"),
    ("broken_import:factory", "No module named 'no_such_library'"),
    (".relative:factory", "relative"),
    ("broken_syntax:factory", "syntax"),
    ("broken_name:factory", "undefined"),
    ("broken_lines:factory", "the library"),
]


@pytest.mark.parametrize(("name", "says"), NOWHERE)
def test_a_name_that_leads_nowhere_lists_what_there_is(name, says, tmp_path, monkeypatch):
    for broken, code in {
        "broken_import": "import no_such_library",
        "broken_syntax": "def factory(:",
        "broken_name": "factory = undefined",
        "broken_lines": "raise ImportError('the library\\nis broken')",
    }.items():
        (tmp_path / f"{broken}.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    error = refusal(name)
    assert (error.field, error.value) == ("teacher.network", name) and says in error.remedy
    assert all(known in error.allowed for known in [*NETWORKS, "torchvision:NAME", "timm:NAME", "module:factory"])


ARGUMENTS = [
    ("digits", {"depth": 3}, "unexpected keyword argument 'depth'"),
    ("digits", {"width": "wide"}, "the factory says: "),
    ("digits", {"width": 0.5}, "the factory says: "),
    ("cifar_resnet20", {"width": 8}, "unexpected keyword argument 'width'"),
    ("torchvision:resnet18", {"input_channels": 3}, "unexpected keyword argument 'input_channels'"),
    ("torch.nn:Linear", {}, "missing 2 required positional arguments"),
    ("torch.nn:Linear", {"in_features": -1, "out_features": 5}, "the factory says: "),
    ("math:pi", {}, "not callable"),
    ("builtins:int", {"width": 3}, "the factory says: "),
]


@pytest.mark.parametrize(("name", "arguments", "says"), ARGUMENTS, ids=str)
def test_arguments_that_a_factory_does_not_take_are_refused_in_its_words(name, arguments, says):
    error = refusal(name, arguments)
    assert (error.field, error.value, error.allowed) == ("teacher.arguments", arguments, f"what {name} takes")
    assert says in error.remedy


@pytest.mark.parametrize(("name", "kind"), [("builtins:dict", "dict"), ("time:time", "float")])
def test_a_factory_of_something_else_is_refused(name, kind):
    error = refusal(name)
    assert (error.field, error.allowed) == ("teacher.network", "a factory of torch.nn.Module")
    assert error.remedy == f"it returned a {kind}"


def test_without_timm_its_networks_are_refused_with_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)  # which is how Python notes that there is none
    build_network("digits", {}, 1, 10)
    with pytest.raises(InputError) as refused:
        build_network("timm:resnet18", {}, 3, 10, "student")
    said = str(refused.value)
    assert said.startswith("student.network = 'timm:resnet18': must be a network whose library is installed; ")
    assert "pip install 'raydream[timm]'" in said
