import copy
import io
import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel

from raydream.config import StudentConfig, TeacherConfig
from raydream.students.distillation import Distiller, steps_to_settle
from raydream.teachers.teacher import Teacher, make_teacher
from tests.tiny import tiny_network, tiny_teacher


def linear_network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(4, 3))


def linear_teacher() -> Teacher:
    return make_teacher(linear_network(0), TeacherConfig(input_shape=(1, 2, 2), classes=3))


def some_images(count: int = 6, side: int = 2, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (count, 1, side, side), dtype=np.uint8))


def slow_first_gradient(images: Tensor, student: nn.Module, temperature: float) -> tuple[np.ndarray, np.ndarray]:
    """d loss / d (weight, bias) of the linear student: T (p_S - p_T) / N per logit, by hand in float64."""
    x = (images.numpy().reshape(len(images), -1) / 255.0 - 0.3) / 0.35

    def softened(network: nn.Module) -> np.ndarray:
        weight, bias = (p.detach().double().numpy() for p in network[1].parameters())
        exponentials = np.exp((x @ weight.T + bias) / temperature)
        return exponentials / exponentials.sum(1, keepdims=True)

    by_logit = temperature * (softened(student) - softened(linear_network(0))) / len(images)
    return by_logit.T @ x, by_logit.sum(0)


def test_the_first_sgd_step_equals_one_by_hand():
    student, images = linear_network(1), some_images()
    config = StudentConfig(
        precision="fp32", learning_rate=0.25, weight_decay=0.01, temperature=3.0, view={"shift": 0}, decay="constant"
    )
    before = [p.detach().double().numpy().copy() for p in student.parameters()]
    gradients = slow_first_gradient(images, student, 3.0)
    Distiller(linear_teacher(), student, config, 10, run_seed=0).step(images, 0)
    for old, gradient, new in zip(before, gradients, student.parameters(), strict=True):
        decayed = gradient + 0.01 * old
        nesterov = decayed + 0.9 * decayed  # the momentum buffer begins as the gradient
        np.testing.assert_allclose(new.detach().numpy(), old - 0.25 * nesterov, rtol=1e-5, atol=1e-6)


def test_the_first_adamw_step_equals_one_by_hand():
    student, images = linear_network(1), some_images()
    config = StudentConfig(
        precision="fp32", optimizer="adamw", learning_rate=0.01, weight_decay=0.1, view={"shift": 0}, decay="constant"
    )
    before = [p.detach().double().numpy().copy() for p in student.parameters()]
    gradients = slow_first_gradient(images, student, 3.0)
    Distiller(linear_teacher(), student, config, 10, run_seed=0).step(images, 0)
    for old, gradient, new in zip(before, gradients, student.parameters(), strict=True):
        expected = old * (1 - 0.01 * 0.1) - 0.01 * gradient / (np.abs(gradient) + 1e-8)
        np.testing.assert_allclose(new.detach().numpy(), expected, rtol=1e-5, atol=1e-6)


def test_a_step_tells_the_loss_and_the_share_of_agreement_before_its_update():
    student, images, config = linear_network(1), some_images(50), StudentConfig(view={"shift": 0}, learning_rate=5.0)
    x = (images.double().flatten(1) / 255 - 0.3) / 0.35
    p, q = (torch.softmax(copy.deepcopy(n[1]).double()(x) / 3, 1).detach() for n in (linear_network(0), student))
    expected = 9 * (p * (p / q).log()).sum(1).mean()
    agreement = (p.argmax(1) == q.argmax(1)).double().mean()
    told = Distiller(linear_teacher(), student, config, 10, 0).step(images, 0)
    assert told[0].item() == pytest.approx(expected.item(), rel=1e-4)
    assert 0 < told[1].item() < 1 and told[1].item() == pytest.approx(agreement.item())
    assert not told[0].requires_grad


def test_distillation_brings_student_and_teacher_together():
    distiller = Distiller(tiny_teacher(), tiny_network(1), StudentConfig(view={"shift": 0}), 30, 0)
    losses = [distiller.step(some_images(16, 8), step)[0].item() for step in range(30)]
    assert losses[-1] < 0.3 * losses[0]


def test_teacher_and_student_see_the_very_same_view_which_is_not_the_image():
    teacher, student, images = tiny_teacher(), tiny_network(1), some_images(8, 8)
    seen: dict[str, Tensor] = {}
    for name, network in (("teacher", teacher.network), ("student", student)):
        network.register_forward_pre_hook(lambda module, inputs, name=name: seen.update({name: inputs[0].clone()}))
    Distiller(
        teacher,
        student,
        StudentConfig(view={"shift": 1, "flip": True, "zoom": 0.3, "contrast": 0.5, "mixup": 1.0}),
        10,
        0,
    ).step(images, 0)
    assert torch.equal(seen["teacher"], seen["student"])
    assert not torch.equal(seen["teacher"], teacher.normalization(images))


def test_black_moves_in_at_the_edges():
    teacher, white = tiny_teacher(), torch.full((8, 1, 8, 8), 255, dtype=torch.uint8)
    seen: list[Tensor] = []
    teacher.network.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    Distiller(teacher, tiny_network(1), StudentConfig(view={"shift": 1}), 10, 0).step(white, 0)
    black, bright = -0.3 / 0.35, 0.7 / 0.35
    values = seen[0].unique()
    assert values.min().item() == pytest.approx(black, abs=1e-5)
    assert all(min(abs(v - black), abs(v - bright)) < 1e-5 for v in values.tolist())


def test_views_differ_between_steps_ranks_and_run_seeds():
    def view(run_seed: int, rank: int, step: int) -> bytes:
        teacher, seen = tiny_teacher(), []
        teacher.network.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].numpy().tobytes()))
        Distiller(teacher, tiny_network(1), StudentConfig(), 10, run_seed, rank).step(some_images(8, 8), step)
        return seen[0]

    views = [view(*which) for which in ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 0, 0))]
    assert views[0] == views[4] and len(set(views)) == 4


def test_the_teacher_stays_as_it_was_and_the_student_trains():
    teacher, student = tiny_teacher(), tiny_network(1).eval()
    before = {name: value.clone() for name, value in teacher.network.state_dict().items()}
    remembered = student[1].running_mean.clone()
    Distiller(teacher, student, StudentConfig(), 10, 0).step(some_images(8, 8), 0)
    assert all(torch.equal(before[name], value) for name, value in teacher.network.state_dict().items())
    assert not any(module.training for module in teacher.network.modules())
    assert all(p.grad is None for p in teacher.network.parameters())
    assert student.training and not torch.equal(student[1].running_mean, remembered)


def test_statistics_freeze_at_a_step_and_weights_go_on_learning():
    student, teacher, images = tiny_network(1), tiny_teacher(), some_images(side=8)
    distiller = Distiller(teacher, student, StudentConfig(precision="fp32"), 10, run_seed=0)
    distiller.frozen_from = 2
    moved = []
    for step in range(4):
        before = copy.deepcopy(student.state_dict())
        distiller.step(images, step)
        moved.append({name for name, value in student.state_dict().items() if not torch.equal(value, before[name])})
    statistics = [{name for name in names if "running" in name or name.endswith("tracked")} for names in moved]
    assert statistics[0] and statistics[0] == statistics[1] and not statistics[2] and not statistics[3]
    assert all(any(name.endswith("weight") for name in names) for names in moved)


def test_the_cosine_goes_from_the_rate_to_zero_over_all_steps():
    distiller = Distiller(linear_teacher(), linear_network(1), StudentConfig(learning_rate=0.4), 100, 0)
    rates = [distiller.learning_rate(step) for step in range(101)]
    assert rates[0] == 0.4 and rates[50] == pytest.approx(0.2) and rates[100] == pytest.approx(0.0, abs=1e-15)
    assert rates[25] == pytest.approx(0.4 * math.cos(math.pi / 8) ** 2)
    assert rates == sorted(rates, reverse=True)


def test_a_constant_rate_stays():
    config = StudentConfig(learning_rate=0.4, decay="constant")
    distiller = Distiller(linear_teacher(), linear_network(1), config, 100, 0)
    assert {distiller.learning_rate(step) for step in range(100)} == {0.4}


def test_the_schedule_reaches_the_optimizer():
    distiller = Distiller(linear_teacher(), linear_network(1), StudentConfig(view={"shift": 0}), 10, 0)
    distiller.step(some_images(), 5)
    assert distiller.optimizer.param_groups[0]["lr"] == pytest.approx(0.05)


def test_the_rate_rises_over_the_warm_up_before_its_cosine():
    config = StudentConfig(learning_rate=0.4, warm_up=4)
    distiller = Distiller(linear_teacher(), linear_network(1), config, 24, 0)
    rates = [distiller.learning_rate(step) for step in range(25)]
    assert rates[:5] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.4])
    assert rates[14] == pytest.approx(0.2) and rates[24] == pytest.approx(0.0, abs=1e-15)


def test_a_warm_up_as_long_as_the_training_ends_at_the_rate():
    distiller = Distiller(linear_teacher(), linear_network(1), StudentConfig(learning_rate=0.4, warm_up=9), 4, 0)
    assert [distiller.learning_rate(step) for step in range(4)] == pytest.approx([0.4 * n / 9 for n in (1, 2, 3, 4)])


def test_the_rate_falls_at_each_milestone():
    config = StudentConfig(learning_rate=0.4, decay="step", milestones=(0.5, 0.75), step_factor=0.1, warm_up=2)
    distiller = Distiller(linear_teacher(), linear_network(1), config, 20, 0)
    rates = [distiller.learning_rate(step) for step in range(20)]
    assert rates == pytest.approx([0.2] + [0.4] * 9 + [0.04] * 5 + [0.004] * 5)


@pytest.mark.parametrize("longer", [True, False])
def test_gradients_are_scaled_down_to_the_norm_and_never_up(longer):
    images, norms = some_images(), []
    for clip in (None, 0.01 if longer else 1e6):
        student = linear_network(1)
        before = [p.detach().clone() for p in student.parameters()]
        config = StudentConfig(
            precision="fp32", learning_rate=1.0, weight_decay=0, view={"shift": 0}, decay="constant", clip_norm=clip
        )
        Distiller(linear_teacher(), student, config, 10, 0).step(images, 0)
        moved = [(old - new.detach()) / 1.9 for old, new in zip(before, student.parameters(), strict=True)]
        norms.append(torch.stack([part.norm() for part in moved]).norm().item())
    assert norms[0] > 0.02
    assert norms[1] == pytest.approx(0.01 if longer else norms[0], rel=1e-3)


def test_the_moving_average_equals_one_by_hand_statistics_and_counters_included():
    student = tiny_network(1)
    by_hand = {name: value.double().clone() for name, value in student.state_dict().items()}
    distiller = Distiller(tiny_teacher(), student, StudentConfig(ema=0.3), 10, 0)
    for step in range(6):
        distiller.step(some_images(8, 8, seed=step), step)
        kept = min(0.3, (1 + step) / (10 + step))
        for name, value in student.state_dict().items():
            by_hand[name] = kept * by_hand[name] + (1 - kept) * value.double()
    learned = distiller.learned.state_dict()
    assert learned["1.num_batches_tracked"] == student.state_dict()["1.num_batches_tracked"]
    for name in learned.keys() - {name for name in learned if name.endswith("num_batches_tracked")}:
        torch.testing.assert_close(learned[name].double(), by_hand[name], rtol=1e-5, atol=1e-6)
    assert not torch.equal(learned["1.running_var"], student[1].running_var)
    assert not torch.equal(learned["0.weight"], student[0].weight)
    assert not distiller.learned.training and not any(p.requires_grad for p in distiller.learned.parameters())


def test_without_an_average_the_student_itself_is_what_is_learned():
    student = tiny_network(1)
    assert Distiller(tiny_teacher(), student, StudentConfig(), 10, 0).learned is student


@pytest.mark.filterwarnings("ignore:Grad strides do not match")
def test_an_average_under_ddp_is_one_of_the_network_within(tmp_path):
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/meeting", rank=0, world_size=1)
    try:
        plain, wrapped = tiny_network(1), DistributedDataParallel(tiny_network(1))
        averages = []
        for student in (plain, wrapped):
            distiller = Distiller(tiny_teacher(), student, StudentConfig(ema=0.9), 4, 0)
            for step in range(3):
                distiller.step(some_images(8, 8, seed=step), step)
            averages.append(distiller.state_dict())
    finally:
        dist.destroy_process_group()
    for part in ("student", "average"):
        assert averages[0][part].keys() == averages[1][part].keys()
        for name, value in averages[0][part].items():
            assert torch.equal(value, averages[1][part][name]), name


def test_an_average_leaves_the_student_as_it_is_without():
    students = [tiny_network(1), tiny_network(1)]
    for student, ema in zip(students, (0.0, 0.9), strict=True):
        distiller = Distiller(tiny_teacher(), student, StudentConfig(ema=ema), 4, 0)
        for step in range(4):
            distiller.step(some_images(8, 8, seed=step), step)
    for name, value in students[0].state_dict().items():
        assert torch.equal(value, students[1].state_dict()[name]), name


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer": "sgd"},
        {"optimizer": "adamw"},
        {"ema": 0.6, "warm_up": 2},
        {"optimizer": "adamw", "ema": 0.6, "clip_norm": 0.1, "decay": "step", "precision": "bf16"},
    ],
    ids=lambda changes: "-".join(changes),
)
def test_a_resumed_student_equals_one_that_never_stopped(changes):
    config = StudentConfig(learning_rate=0.02, view={"flip": True, "mixup": 0.5}, **changes)

    def distiller(seed: int) -> Distiller:
        return Distiller(tiny_teacher(), tiny_network(seed), config, 9, run_seed=4)

    def train(one: Distiller, first: int, end: int) -> None:
        for step in range(first, end):
            one.step(some_images(8, 8, seed=step), step)

    straight, stopped = distiller(1), distiller(1)
    train(straight, 0, 9)
    train(stopped, 0, 4)
    file = io.BytesIO()
    torch.save(stopped.state_dict(), file)
    file.seek(0)
    resumed = distiller(2)  # other weights, which the checkpoint replaces
    resumed.load_state_dict(torch.load(file, weights_only=True))
    train(resumed, 4, 9)
    for one, other in ((straight.student, resumed.student), (straight.learned, resumed.learned)):
        for name, value in one.state_dict().items():
            assert torch.equal(value, other.state_dict()[name]), name


def test_what_dropout_drops_follows_from_seed_step_and_rank_alone():
    def weights(rank: int) -> Tensor:
        student = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), copy.deepcopy(linear_network(1)[1]))
        one = Distiller(linear_teacher(), student, StudentConfig(), 2, run_seed=4, rank=rank)
        for step in range(2):
            one.step(some_images(), step)
        return student[2].weight.detach()

    torch.manual_seed(1)
    first = weights(0)
    torch.manual_seed(2)
    assert torch.equal(weights(0), first) and not torch.equal(weights(1), first)


@pytest.mark.parametrize(
    ("momenta", "left", "steps"),
    [((0.1,), 0.01, 44), ((0.1,), 0.5, 7), ((0.5,), 0.25, 2), ((0.5, 0.1), 0.01, 44), ((1.0,), 0.01, 1), ((), 0.01, 1)],
)
def test_statistics_settle_after_the_slowest_layers_number_of_steps(momenta, left, steps):
    layers = [nn.BatchNorm1d(2, momentum=momentum) for momentum in momenta]
    assert steps_to_settle(nn.Sequential(*layers), left) == steps


def test_after_the_steps_to_settle_the_initial_statistics_are_forgotten():
    layer = nn.BatchNorm1d(1)
    seen = []
    for _ in range(steps_to_settle(nn.Sequential(layer))):
        layer(torch.tensor([[4.0], [6.0]]))
        seen.append(abs(layer.running_mean.item() - 5.0) / 5.0)
    assert seen[-1] <= 0.01 < seen[-2]


def test_a_layer_that_averages_over_all_it_saw_needs_one_step():
    assert steps_to_settle(nn.Sequential(nn.BatchNorm1d(2, momentum=None))) == 1
