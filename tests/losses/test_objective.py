import math

import pytest
import torch

from raydream.config import CoefficientsConfig, SynthesisConfig
from raydream.losses.objective import TERMS, Objective, Observation


def settings_of(**coefficients: float) -> SynthesisConfig:
    values = dict.fromkeys(TERMS, 0.0) | coefficients
    return SynthesisConfig(first_bn=10.0, competition_temperature=2.0, coefficients=CoefficientsConfig(**values))


def some_observation() -> Observation:
    random = torch.Generator().manual_seed(0)
    images, teacher, student = (
        torch.randn(*shape, dtype=torch.float64, generator=random) for shape in ((3, 1, 4, 4), (3, 5), (3, 5))
    )
    distances = torch.tensor([0.5, 2.0, 4.0], dtype=torch.float64)
    return Observation(images, torch.tensor([4, 0, 2]), teacher, distances, student)


def test_the_class_loss_is_the_mean_negative_log_probability_of_the_targets():
    seen = some_observation()
    expected = 0.0
    for row, target in zip(seen.teacher_logits.tolist(), seen.targets.tolist(), strict=True):
        expected -= math.log(math.exp(row[target]) / math.fsum(math.exp(value) for value in row)) / 3
    _, values = Objective(["classification"], settings_of(classification=1.0))(seen)
    assert values["classification"].item() == pytest.approx(expected, rel=1e-12)


def test_the_total_is_the_weighted_sum_and_the_values_are_before_their_weights():
    weights = {"classification": 2.0, "tv": 0.3, "l2": 0.05, "feature": 7.0, "competition": 11.0}
    seen = some_observation()
    total, values = Objective(TERMS, settings_of(**weights))(seen)
    alone = {name: Objective([name], settings_of(**dict.fromkeys(TERMS, 1.0)))(seen)[0].item() for name in TERMS}
    assert {name: value.item() for name, value in values.items()} == pytest.approx(alone, rel=1e-12)
    assert total.item() == pytest.approx(math.fsum(weights[name] * alone[name] for name in TERMS), rel=1e-12)


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


@pytest.mark.parametrize(("term", "told"), [("feature", "FeatureObserver"), ("competition", "student")])
def test_a_term_that_lacks_what_it_looks_at_says_so(term, told):
    seen = some_observation()
    bare = Observation(seen.images, seen.targets, seen.teacher_logits)
    with pytest.raises(ValueError, match=told):
        Objective([term], settings_of(**dict.fromkeys(TERMS, 1.0)))(bare)


def test_an_objective_of_nothing_is_zero():
    total, values = Objective([], SynthesisConfig())(some_observation())
    assert total.item() == 0.0 and values == {}


def test_gradients_of_the_whole_objective_are_right():
    random = torch.Generator().manual_seed(1)
    teacher, student = (torch.randn(16, 5, dtype=torch.float64, generator=random) for _ in range(2))
    objective = Objective(TERMS, settings_of(classification=1.0, tv=0.5, l2=0.25, feature=2.0, competition=3.0))

    def total(images: torch.Tensor) -> torch.Tensor:
        flat = images.flatten(1)
        distances = torch.stack([flat.mean().abs(), flat.var()])
        return objective(Observation(images, torch.tensor([4, 0]), flat @ teacher, distances, flat @ student))[0]

    images = torch.randn(2, 1, 4, 4, dtype=torch.float64, generator=random)
    assert torch.autograd.gradcheck(total, (images.requires_grad_(),))
