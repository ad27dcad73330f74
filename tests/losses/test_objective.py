import dataclasses
import math

import pytest
import torch

from raydream.config import CoefficientsConfig, SynthesisConfig
from raydream.losses.objective import TERMS, Objective, Observation

WEIGHTS = {
    "classification": 2.0,
    "tv": 0.3,
    "tv_l1": 0.4,
    "l2": 0.05,
    "l2_per_image": 0.06,
    "feature": 7.0,
    "competition": 11.0,
    "masked_kl": 1.7,
    "one_hot": 1.5,
    "activation": 0.2,
    "information_entropy": 4.0,
}
SOURCES = {
    "images": {"tv", "tv_l1", "l2", "l2_per_image"},
    "outputs": {"classification", "competition", "masked_kl", "one_hot", "activation"},
    "features": {"feature"},
    "prediction": {"information_entropy"},
}


def settings_of(**coefficients: float) -> SynthesisConfig:
    values = dict.fromkeys(TERMS, 0.0) | coefficients
    return SynthesisConfig(first_bn=10.0, competition_temperature=2.0, coefficients=CoefficientsConfig(**values))


def some_observation() -> Observation:
    random = torch.Generator().manual_seed(0)
    images, teacher, student = (
        torch.randn(*shape, dtype=torch.float64, generator=random) for shape in ((3, 1, 4, 4), (3, 5), (3, 5))
    )
    distances = torch.tensor([0.5, 2.0, 4.0], dtype=torch.float64)
    activations = torch.randn(3, 6, dtype=torch.float64, generator=random)
    prediction = teacher.softmax(dim=1).mean(0)
    return Observation(images, torch.tensor([4, 0, 2]), teacher, distances, student, activations, prediction)


def test_the_class_loss_is_the_mean_negative_log_probability_of_the_targets():
    seen = some_observation()
    expected = 0.0
    for row, target in zip(seen.teacher_logits.tolist(), seen.targets.tolist(), strict=True):
        expected -= math.log(math.exp(row[target]) / math.fsum(math.exp(value) for value in row)) / 3
    _, values = Objective(["classification"], settings_of(classification=1.0))(seen)
    assert values["classification"].item() == pytest.approx(expected, rel=1e-12)


def test_the_total_is_the_weighted_sum_and_the_values_are_before_their_weights():
    seen = some_observation()
    total, values = Objective(TERMS, settings_of(**WEIGHTS))(seen)
    alone = {name: Objective([name], settings_of(**dict.fromkeys(TERMS, 1.0)))(seen)[0].item() for name in TERMS}
    assert {name: value.item() for name, value in values.items()} == pytest.approx(alone, rel=1e-12)
    assert total.item() == pytest.approx(math.fsum(WEIGHTS[name] * alone[name] for name in TERMS), rel=1e-12)


def test_terms_are_set_by_the_configuration():
    seen = some_observation()
    config = settings_of(feature=1.0, competition=1.0)
    _, values = Objective(["feature", "competition"], config)(seen)
    assert values["feature"].item() == pytest.approx(10 * 0.5 + 2 + 4)
    warm = SynthesisConfig(competition_temperature=4.0, coefficients=config.coefficients)
    assert Objective(["competition"], warm)(seen)[0] > values["competition"]


def test_a_term_without_weight_is_not_computed():
    seen = some_observation()
    bare = Observation(seen.images, seen.targets, seen.teacher_logits)
    total, values = Objective(TERMS, settings_of(l2=1.0))(bare)
    assert set(values) == {"l2"}
    assert total.item() == pytest.approx(seen.images.norm().item())


def test_only_the_named_terms_count():
    objective = Objective(["tv"], SynthesisConfig())
    assert set(objective.weights) == {"tv"}


def test_every_term_has_a_coefficient_and_every_coefficient_a_term():
    assert set(TERMS) == set(WEIGHTS) == {field.name for field in dataclasses.fields(CoefficientsConfig)}


def test_the_terms_of_the_images_are_the_forms_that_they_are_named_after():
    # Five images of 4 x 4 in columns 0 1 0 1: each differs in 12 pairs to the right and 9 on each diagonal.
    images = torch.tensor([0.0, 1.0, 0.0, 1.0], dtype=torch.float64).expand(5, 1, 4, 4)
    _, values = Objective(SOURCES["images"], settings_of(**WEIGHTS))(Observation(images))
    expected = {
        "tv": math.sqrt(5 * 12) + 2 * math.sqrt(5 * 9),
        "tv_l1": 3.0,
        "l2": math.sqrt(5 * 8),
        "l2_per_image": math.sqrt(8),
    }
    assert {name: value.item() for name, value in values.items()} == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("term", "told"),
    [
        ("feature", "distances"),
        ("competition", "student"),
        ("masked_kl", "student"),
        ("classification", "targets"),
        ("tv", "images"),
        ("tv_l1", "images"),
        ("l2", "images"),
        ("l2_per_image", "images"),
        ("activation", "last layer"),
        ("information_entropy", "mean prediction"),
    ],
)
def test_a_term_that_lacks_what_it_looks_at_says_so(term, told):
    bare = Observation(teacher_logits=some_observation().teacher_logits)
    with pytest.raises(ValueError, match=told):
        Objective([term], settings_of(**dict.fromkeys(TERMS, 1.0)))(bare)


@pytest.mark.parametrize("source", SOURCES)
def test_terms_of_one_source_need_nothing_else(source):
    seen, objective = some_observation(), Objective(TERMS, settings_of(**WEIGHTS))
    needed = {
        "images": Observation(images=seen.images),
        "outputs": Observation(
            targets=seen.targets,
            teacher_logits=seen.teacher_logits,
            student_logits=seen.student_logits,
            activations=seen.activations,
        ),
        "features": Observation(distances=seen.distances),
        "prediction": Observation(prediction=seen.prediction),
    }
    _, everything = objective(seen)
    total, values = objective(needed[source], source)
    assert set(values) == SOURCES[source]
    assert all(torch.equal(value, everything[name]) for name, value in values.items())
    expected = math.fsum(WEIGHTS[name] * value.item() for name, value in values.items())
    assert total.item() == pytest.approx(expected, rel=1e-12)


def test_sources_add_up_to_the_whole():
    seen, objective = some_observation(), Objective(TERMS, settings_of(**WEIGHTS))
    whole, values = objective(seen)
    parts = [objective(seen, source)[0].item() for source in SOURCES]
    assert math.fsum(parts) == pytest.approx(whole.item(), rel=1e-12)
    both, of_both = objective(seen, "images", "features")
    assert set(of_both) == SOURCES["images"] | SOURCES["features"]
    assert set(of_both) | SOURCES["outputs"] | SOURCES["prediction"] == set(values)
    assert both.item() == pytest.approx(parts[0] + parts[2], rel=1e-12)


@pytest.mark.parametrize("term", TERMS)
def test_an_objective_has_the_sources_of_its_terms_alone(term):
    objective = Objective([term], settings_of(**WEIGHTS))
    assert {source for source in SOURCES if objective.has(source)} == {s for s in SOURCES if term in SOURCES[s]}


def test_gradients_of_the_whole_objective_are_right():
    random = torch.Generator().manual_seed(1)
    teacher, student, features = (torch.randn(16, 5, dtype=torch.float64, generator=random) for _ in range(3))
    objective = Objective(TERMS, settings_of(**WEIGHTS))

    def total(images: torch.Tensor) -> torch.Tensor:
        flat = images.flatten(1)
        distances = torch.stack([flat.mean().abs(), flat.var()])
        logits = flat @ teacher
        told = (logits, distances, flat @ student, flat @ features, logits.softmax(dim=1).mean(0))
        return objective(Observation(images, torch.tensor([4, 0]), *told))[0]

    images = torch.randn(2, 1, 4, 4, dtype=torch.float64, generator=random)
    assert torch.autograd.gradcheck(total, (images.requires_grad_(),))
