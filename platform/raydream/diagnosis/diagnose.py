"""The whole diagnosis of a teacher, in one process; `raydream doctor` is this function as a job."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

import numpy as np
import torch

from raydream.api_arguments import Settings, configured, labels_of, on_cpu, pixels_of
from raydream.config import METHODS, CoefficientsConfig, SynthesisConfig, SynthesizeConfig
from raydream.config.conversion import as_dict
from raydream.data.files import resized
from raydream.diagnosis.bn_statistics import LayerStatistics, bn_statistics, statistics_findings
from raydream.diagnosis.findings import Finding, worst_first
from raydream.diagnosis.first_layer import InputEstimate, estimate_input, first_layer
from raydream.diagnosis.normalizations import judged_by_first_layer
from raydream.diagnosis.probe import (
    RATES,
    UPDATES,
    Probe,
    SynthesisCost,
    cost_of,
    probe_settings,
    run_probe,
)
from raydream.diagnosis.real_images import MOST_IMAGES, Fit, ImagesAt, fit_real_images, judged_by_images
from raydream.diagnosis.structure import Structure, structure, structure_findings
from raydream.memory import free_memory
from raydream.networks.batch_norm import keeps_statistics
from raydream.networks.gathered import gathers
from raydream.search.space import merged
from raydream.synthesis.balance import balanced, gradient_lengths, own_terms
from raydream.teachers.teacher import Teacher

Say = Callable[[str], None]
USABLE = ("trained", "huge", "dead", "none")
"""states of BN statistics with which a network computes finite numbers"""
CHANCES = 2.0
"""times the share that guessing reaches, from which a probe gets somewhere"""


@dataclass(frozen=True)
class RealImages:
    """Real images to judge a network by.

    Attributes:
        at: returns them in a size.
        labels: int64 [N]; None where there are none.
    """

    at: ImagesAt
    labels: np.ndarray | None


@dataclass(frozen=True)
class ProbeResult:
    """The probes of a diagnosis.

    Attributes:
        probes: with the configured settings; with coefficients that follow from the gradients' lengths; and with the
            better ones of these at other learning rates.
        gradients: length of each term's gradient with respect to the pixels at noise, before its coefficient.
        cost: of a whole batch.
    """

    probes: list[Probe]
    gradients: dict[str, float]
    cost: SynthesisCost


@dataclass(frozen=True)
class Diagnosis:
    """All that was found of a teacher.

    Attributes:
        findings: the worst first.
        statistics: of each BN layer.
        structure: what can be done with each layer.
        estimate: of the training input, in the network's units; None where the first layer does not show it.
        fits: of real images, the configured normalization first; empty without images.
        probe: None where the statistics do not allow one.
        suggested: settings of `synthesis`, and of `teacher` where real images show others, by section.
    """

    findings: list[Finding]
    statistics: list[LayerStatistics]
    structure: Structure
    estimate: InputEstimate | None
    fits: list[Fit] = field(default_factory=list)
    probe: ProbeResult | None = None
    suggested: dict[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Return the diagnosis in the plain types of JSON."""
        return asdict(self)


def diagnose(
    teacher: Teacher,
    images: np.ndarray | torch.Tensor | None = None,
    labels: np.ndarray | torch.Tensor | None = None,
    *,
    synthesis: Settings | None = None,
    updates: int = UPDATES,
    seed: int = 0,
) -> Diagnosis:
    """Check that a teacher is described and trained as an inversion needs it, and suggest settings.

    Args:
        teacher: to diagnose.
        images: a few real images (256 at most are used; 16 are the fewest that decide), uint8 [N,C,H,W]: with them a
            wrong normalization, order of channels or size is found, and without only suspected.
        labels: whole numbers [N], their classes, by which the order of channels is judged.
        synthesis: the settings to begin with, as in `SynthesisConfig`.
        updates: of the probes, four short inversions of 32 images; 0: no probe.
        seed: of the probe, at least 0.

    Raises:
        InputError: images of another shape, labels that are not one for each image, or settings out of range.
    """
    settings = {"seed": seed, "synthesis": {"method": "deep_inversion", **(synthesis or {})}}
    config = configured(SynthesizeConfig, settings, teacher)
    real = None
    if images is not None:
        pixels = pixels_of(images, teacher)
        named = None if labels is None else labels_of(labels, len(pixels), 0, teacher.config.classes)[:MOST_IMAGES]
        real = RealImages(lambda size: _resized(pixels[:MOST_IMAGES], size), named)
    return diagnosis_of(teacher, config.synthesis, real, updates, seed)


def _resized(images: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    shape = (images.shape[1], *size)
    return images if images.shape[1:] == shape else np.asarray(resized(images, shape))


def diagnosis_of(
    teacher: Teacher,
    synthesis: SynthesisConfig,
    real: RealImages | None,
    updates: int,
    seed: int,
    say: Say = lambda text: None,
) -> Diagnosis:
    """Diagnose a teacher; arguments as those of `diagnose`.

    Args:
        say: called with a line before each part.
    """
    network, config = on_cpu(teacher), teacher.config
    say("reading the network's layers and statistics")
    statistics = bn_statistics(network)
    findings = statistics_findings(statistics)
    usable = all(layer.state in USABLE for layer in statistics)
    found = structure(network, config)
    findings += structure_findings(network, found)
    # Statistics that were gathered from images depend on the configured normalization, so they do not judge it.
    of_training = not any(map(gathers, network.modules()))
    layer = first_layer(network, config.input_shape) if of_training else None
    estimate = estimate_input(layer) if layer is not None and usable else None
    fits: list[Fit] = []
    if usable and real is not None and keeps_statistics(network) and of_training:
        say("showing real images to the network")
        seen = fit_real_images(network, config, real.at, real.labels)
        fits = [each.fit for each in seen]
        findings += judged_by_images(seen, config)
    elif usable:
        findings += judged_by_first_layer(config, estimate)
    diagnosis = Diagnosis(findings, statistics, found, estimate, fits)
    if usable and updates:
        say(f"inverting a small batch four times, {updates} updates each")
        probe = _probed(teacher, synthesis, updates, seed)
        diagnosis = replace(diagnosis, probe=probe)
        findings += _probe_findings(probe, config.classes)
    return replace(diagnosis, findings=worst_first(findings), suggested=suggestions(diagnosis, synthesis))


def _probed(teacher: Teacher, synthesis: SynthesisConfig, updates: int, seed: int) -> ProbeResult:
    config = probe_settings(synthesis, teacher.network, updates)
    whole = replace(config, batch_size=synthesis.batch_size)  # the suggestions are for a whole batch
    gradients = gradient_lengths(teacher, whole, own_terms(config), seed)
    probes = [run_probe(teacher, config, seed)]
    coefficients = replace(config.coefficients, **balanced(gradients, config.coefficients.classification))
    probes.append(run_probe(teacher, replace(config, coefficients=coefficients), seed))
    better = best_of(probes)
    chosen = replace(config, coefficients=CoefficientsConfig(**{**asdict(config.coefficients), **better.coefficients}))
    probes += [
        run_probe(teacher, replace(chosen, learning_rate=rate), seed) for rate in RATES if rate != config.learning_rate
    ]
    free = torch.cuda.mem_get_info(teacher.device)[0] if teacher.device.type == "cuda" else free_memory()
    return ProbeResult(probes, gradients, cost_of(teacher, synthesis, probes[0], free))


def best_of(probes: Sequence[Probe]) -> Probe:
    """Return the probe with the most images on target; of equals the first."""
    return max(probes, key=lambda probe: (not probe.diverged, probe.target_share))


def _probe_findings(probe: ProbeResult, classes: int) -> list[Finding]:
    own, best = probe.probes[0], best_of(probe.probes)
    if own.diverged:
        text = "the inversion diverges with the configured coefficients and learning rate"
        return [Finding("probe", "fault", text, "lower them, or apply the suggestions (--apply FILE)")]
    text = f"after {own.updates} updates {own.target_share:.0%} of {own.images} images are on target as configured"
    if best is not own:
        text += f", and {best.target_share:.0%} with the suggested coefficients and learning rate"
    if best.target_share < CHANCES / classes:
        return [Finding("probe", "suspected", text, "check the normalization and the checkpoint first")]
    return [Finding("probe", "note", text)]


def suggestions(diagnosis: Diagnosis, synthesis: SynthesisConfig) -> dict[str, Any]:
    """Return the settings that a diagnosis suggests, by section; those that stay as they are count, too.

    The normalization is among them only where real images show another one.
    """
    suggested: dict[str, Any] = {}
    shown = [each for each in diagnosis.findings if each.about == "normalization" and each.severity == "fault"]
    if shown:
        size = diagnosis.fits[0].size
        plain = [fit for fit in diagnosis.fits if fit.size == size and not fit.normalization.flipped]
        best = min(plain, key=lambda fit: fit.misfit).normalization
        suggested["teacher"] = {"mean": list(best.mean), "std": list(best.std)}
    if diagnosis.probe is not None:
        best_probe = best_of(diagnosis.probe.probes)
        suggested["synthesis"] = {
            "method": synthesis.method if best_probe.method == _alone(synthesis) else best_probe.method,
            "batch_size": min(synthesis.batch_size, diagnosis.probe.cost.batch_size),
            "learning_rate": best_probe.learning_rate,
            "coefficients": best_probe.coefficients,
        }
    return suggested


def _alone(synthesis: SynthesisConfig) -> str:
    return METHODS[synthesis.method].without_student or synthesis.method


def applied(config: SynthesizeConfig, suggested: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of `raydream synthesize` with suggestions in place of the user's."""
    settings = as_dict(config)
    own = {each.name for each in fields(SynthesizeConfig)}
    return merged({name: value for name, value in settings.items() if name in own}, suggested)
