"""One step of learning, and several in a row: what is learned from, what is minimized, what is left."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

import raydream.applications.continual.learning as learning
from raydream.applications.continual.course import Course, Group, at_most, load_groups
from raydream.applications.continual.images import OldClasses, invert
from raydream.applications.continual.learning import Callbacks, ClassLearner, learn_classes
from raydream.applications.continual.methods import METHODS, BothViews, LearningStep
from raydream.config import ContinualConfig, DataConfig, StudentConfig, TeacherConfig
from raydream.config.continual import ALL_METHODS
from raydream.data import Split
from raydream.errors import DivergenceError, InputError
from raydream.losses.continual import classification, padded_divergence, renormalized_divergence
from raydream.networks.digits import digits_network
from raydream.teachers.teacher import make_teacher, to_arrays
from tests.tiny import WIDTH, tiny_network, tiny_synthesis

OLD, NEW = 10, 2


def some_split(seed: int, count: int, first: int, classes: int) -> Split:
    random = np.random.default_rng(seed)
    return Split(random.integers(0, 256, (count, 1, 8, 8), dtype=np.uint8), first + np.arange(count) % classes)


def teacher(classes: int = OLD):
    network = tiny_network() if classes == OLD else digits_network(classes=classes, width=WIDTH)
    return make_teacher(network, TeacherConfig(arguments={"width": WIDTH}, classes=classes))


def tiny_continual(**changes: object) -> ContinualConfig:
    settings = {
        "teacher": {"arguments": {"width": WIDTH}},
        "data": {"name": "files", "test": "t", "validation_of": "test"},
        "steps": [{"name": "digits", "classes": [3, 5]}],
        "synthesis": tiny_synthesis(),
        "student": {"network": "teacher", "batch_size": 8, "precision": "fp32", "learning_rate": 0.05},
        "images_per_class": 2,
        "epochs": 2,
    }
    return ContinualConfig(**{**settings, **changes})


def seen_of(seed: int, count: int, first: int, classes: int) -> BothViews:
    def values(offset: int, width: int) -> torch.Tensor:
        return torch.from_numpy(np.random.default_rng(10 * seed + offset).standard_normal((count, width))).float()

    labels = torch.from_numpy(some_split(seed, count, first, classes).labels)
    return BothViews(values(0, OLD), values(1, OLD + NEW), values(2, 5), values(3, 5), labels)


def one_step(old: bool = True) -> LearningStep:
    heads = torch.nn.Linear(5, OLD + NEW), torch.nn.Linear(5, OLD)
    return LearningStep(seen_of(0, 6, OLD, NEW), seen_of(1, 6, 0, OLD) if old else None, *heads)


def test_eq_11_is_the_sum_of_its_three_terms():
    step = one_step()
    old, new = step.old, step.new
    expected = (
        padded_divergence(old.old_logits, old.logits)
        + classification(new.logits, new.classes)
        + renormalized_divergence(new.old_logits, new.logits)
    )
    for name in ("deep_inversion", "adaptive", "deepdream"):
        torch.testing.assert_close(METHODS[name].loss(step), expected)
    third = renormalized_divergence(new.old_logits, new.logits)
    torch.testing.assert_close(METHODS["oracle_distill"].loss(step), expected - third)


def test_what_goes_beyond_eq_11_weighs_classes_by_how_often_they_are_met_and_holds_the_features():
    step = one_step()
    often = torch.tensor([0.5 / OLD] * OLD + [0.5 / NEW] * NEW).log()
    balanced = replace(
        step,
        old=replace(step.old, logits=step.old.logits + often),
        new=replace(step.new, logits=step.new.logits + often),
    )
    moved = [
        functional.linear(seen.features - seen.old_features, step.old_head.weight).square().sum(1).mean() / 2
        for seen in (step.old, step.new)
    ]
    torch.testing.assert_close(
        METHODS["balanced"].loss(step), METHODS["deep_inversion"].loss(balanced) + 0.1 * sum(moved)
    )


def test_a_balanced_softmax_names_what_it_cannot_tell_apart_as_all_classes_alike():
    """Though two new classes fill as much of a batch as ten old ones."""
    constant = torch.zeros(1, OLD + NEW, requires_grad=True)  # a network that sees no difference between images
    classes = torch.arange(OLD * NEW)
    told = functional.one_hot(classes % OLD, OLD) * 40.0  # the old network is sure of each of its classes in turn
    blind = torch.zeros(OLD * NEW, OLD)  # and says nothing of the new ones
    optimizer = torch.optim.LBFGS([constant], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        logits, nothing = constant.expand(OLD * NEW, -1), torch.zeros(OLD * NEW, 5)
        new = BothViews(blind, logits, nothing, nothing, OLD + classes % NEW)
        old = BothViews(told, logits, nothing, nothing, classes % OLD)
        heads = torch.nn.Linear(5, OLD + NEW), torch.nn.Linear(5, OLD)
        value = METHODS["balanced"].loss(LearningStep(new, old, *heads))
        value.backward()
        return value

    optimizer.step(loss)
    torch.testing.assert_close(constant.detach().softmax(1), torch.full((1, OLD + NEW), 1 / (OLD + NEW)))


@pytest.mark.parametrize("name", METHODS)
def test_every_method_gives_a_scalar_and_says_what_it_needs(name):
    method = METHODS[name]
    assert method.loss(one_step()).shape == ()
    if method.images == "none":
        torch.testing.assert_close(method.loss(one_step(old=False)), method.loss(one_step()))
    else:
        with pytest.raises(ValueError, match="stand for the old classes"):
            method.loss(one_step(old=False))


@pytest.mark.parametrize("name", METHODS)
def test_a_step_leaves_the_old_network_alone_and_repeats_to_the_bit(name):
    old, new, real = teacher(), some_split(0, 20, OLD, NEW), some_split(1, 30, 0, OLD)
    before, left = to_arrays(old.network), []
    for _ in range(2):
        network, images = learn_classes(tiny_continual(), METHODS[name], old, new, real, 5, Callbacks())
        left.append(to_arrays(network))
        assert not network.training
    assert all((value == before[key]).all() for key, value in to_arrays(old.network).items())
    assert all((value == left[1][key]).all() for key, value in left[0].items())
    assert left[0]["8.weight"].shape == (OLD + NEW, 2 * WIDTH)
    assert not np.array_equal(left[0]["0.weight"], before["0.weight"])
    assert {"made": OLD * 2, "real": 30, "none": 0}[METHODS[name].images] == (
        0 if images is None else len(images.labels)
    )


def test_batches_of_old_and_new_images_are_of_equal_size():
    sizes = []

    def loss(step: LearningStep) -> torch.Tensor:
        sizes.append((len(step.new.classes), len(step.old.classes), int(step.old.classes.max())))
        assert step.new.classes.min() >= OLD
        return METHODS["deep_inversion"].loss(step)

    learner = ClassLearner(
        teacher(),
        some_split(0, 20, OLD, NEW),
        replace(METHODS["deep_inversion"], loss=loss),
        StudentConfig(batch_size=8),
        2,
        0,
    )
    learner.learn(2, some_split(1, 50, 0, OLD))
    assert len(sizes) == 6 and {new for new, _, _ in sizes} == {6, 7} and all(new == old for new, old, _ in sizes)
    assert max(label for *_, label in sizes) < OLD


def test_new_classes_are_learned_and_a_loss_that_keeps_old_ones_keeps_more_of_them():
    # old classes: what the tiny network says of noise; new ones: bright and dark images
    old, random = teacher(), np.random.default_rng(0)
    pixels = random.integers(0, 256, (400, 1, 8, 8), dtype=np.uint8)
    known = Split(pixels, old.logits(torch.from_numpy(pixels)).argmax(1).numpy())
    flat = np.concatenate([np.full((30, 1, 8, 8), 250, np.uint8), np.full((30, 1, 8, 8), 3, np.uint8)])
    new = Split(flat + random.integers(0, 5, flat.shape, dtype=np.uint8), OLD + np.arange(60) // 30)
    kept = {}
    for name in ("oracle_distill", "finetune"):
        learner = ClassLearner(old, new, METHODS[name], StudentConfig(batch_size=20, learning_rate=0.02), 10, 0)
        learner.learn(10, known if METHODS[name].images == "real" else None)
        with torch.no_grad():
            said = [
                learner.network(old.normalization(torch.from_numpy(each.images))).argmax(1) for each in (known, new)
            ]
        assert (said[1].numpy() == new.labels).mean() > 0.9, name
        kept[name] = float((said[0].numpy() == known.labels).mean())
    assert kept["oracle_distill"] > kept["finetune"] + 0.2, kept


def test_images_are_made_of_all_old_classes_evenly_and_compete_with_the_old_outputs_of_what_learns():
    synthesis = tiny_synthesis(method="adaptive", iterations=3)
    made = invert(teacher(), synthesis, 25, 3, OldClasses(digits_network(classes=OLD + NEW, width=WIDTH), OLD))
    assert np.bincount(made.labels).tolist() == [3] * 5 + [2] * 5 and made.images.shape == (25, 1, 8, 8)
    alone = invert(teacher(), synthesis, 25, 3)
    assert not np.array_equal(made.images, alone.images)
    assert np.array_equal(alone.images, invert(teacher(), replace(synthesis, method="deep_inversion"), 25, 3).images)


def test_the_competition_begins_at_half_time(monkeypatch):
    asked = []

    def noted(old, synthesis, count, seed, student=None, on_progress=None):
        asked.append((count, None if student is None else student(torch.zeros(1, 1, 8, 8)).shape[1]))
        return some_split(count, count, 0, OLD)

    monkeypatch.setattr(learning, "invert", noted)
    epochs = []
    told = Callbacks(lambda epoch, loss, network: epochs.append((epoch, len(asked))))
    config = tiny_continual(epochs=4, images_per_class=3)
    learn_classes(config, METHODS["adaptive"], teacher(), some_split(0, 20, OLD, NEW), None, 0, told)
    assert asked == [(15, None), (15, OLD)] and epochs == [(1, 1), (2, 1), (3, 2), (4, 2)]


def two_steps() -> tuple[ContinualConfig, list[Group]]:
    steps = (DataConfig(classes=(3, 5)), DataConfig(classes=(7,)))
    config = tiny_continual(steps=steps, epochs=1)
    groups = [
        Group(*[some_split(group, 20, first, count)] * 3)
        for group, (first, count) in enumerate([(0, 10), (10, 2), (12, 1)])
    ]
    return config, groups


def test_each_step_inverts_what_the_last_one_left_and_a_course_goes_on_from_it(monkeypatch):
    inverted, original = [], learning.invert  # type: ignore[attr-defined]

    def noted(old, *rest, **more):
        inverted.append(to_arrays(old.network))
        return original(old, *rest, **more)

    monkeypatch.setattr(learning, "invert", noted)
    config, groups = two_steps()
    course = Course(config, "deep_inversion", 4, teacher(), groups)
    first, second = course.steps()
    assert [first.confusion.shape, second.confusion.shape] == [(12, 12), (13, 13)]
    assert first.images.shape == (10, 1, 8, 8) and second.images.shape == (12, 1, 8, 8)
    left = to_arrays(first.network)
    assert all((value == left[name]).all() for name, value in inverted[1].items())
    statistics = [state["1.running_mean"] for state in (to_arrays(teacher().network), inverted[1])]
    assert not np.allclose(*statistics)
    (again,) = Course(config, "deep_inversion", 4, teacher(), groups).steps(1, first.network.state_dict())
    assert all(
        torch.equal(value, again.network.state_dict()[name]) for name, value in second.network.state_dict().items()
    )
    assert [set(point) for point in second.curve] == [{"epoch", "loss", "old", "new"}]


def test_groups_are_labelled_in_the_order_in_which_they_join():
    data = DataConfig(classes=(6, 2))
    config = tiny_continual(
        teacher={"arguments": {"width": WIDTH}, "classes": 2},
        data=data,
        steps=(DataConfig(classes=(9,)), DataConfig(classes=(4, 0))),
    )
    groups = load_groups(config)
    assert [sorted({*group.test.labels.tolist()}) for group in groups] == [[0, 1], [2], [3, 4]]
    assert len(groups[1].train.labels) < 120


def test_training_images_of_old_classes_are_read_for_oracles_alone(tmp_path):
    test = str(tmp_path / "test.npz")
    np.savez(test, x=np.zeros((40, 8, 8), np.uint8), y=np.arange(40) % 10)
    data = DataConfig(name="files", train="/none.npz", validation=test, test=test)
    groups = load_groups(tiny_continual(data=data, methods=["finetune", "deep_inversion"]))
    assert len(groups[0].train.labels) == 0 and len(groups[0].test.labels) == 40 and len(groups[1].train.labels) > 0
    with pytest.raises(InputError, match=r"data.train = '/none.npz'"):
        load_groups(tiny_continual(data=data, methods=["finetune", "oracle_distill"]))


def test_every_method_can_be_asked_for():
    assert tuple(METHODS) == ALL_METHODS == ContinualConfig(steps=(DataConfig(classes=(11,)),)).methods


def test_at_most_so_many_images_of_each_class():
    chosen = at_most(some_split(0, 23, 4, 3), 5, 0)
    assert np.bincount(chosen.labels).tolist() == [0, 0, 0, 0, 5, 5, 5]


def test_learning_that_diverges_is_no_result():
    config = StudentConfig(batch_size=20, learning_rate=1e30)
    learner = ClassLearner(teacher(), some_split(0, 40, OLD, NEW), METHODS["finetune"], config, 4, 0)
    with pytest.raises(DivergenceError, match=r"lower student\.learning_rate"):
        learner.learn(4, None)
