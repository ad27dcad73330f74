"""The checks before a search starts: its trials, and their best settings, can be run."""

from dataclasses import dataclass, replace

from raydream.buffer.limiter import make_limiter
from raydream.config import SearchConfig, TeacherConfig
from raydream.data import Dataset, check_data
from raydream.errors import InputError
from raydream.jobs.checks.networks import check_student, check_teacher
from raydream.networks import build_teacher
from raydream.networks.batch_norm import keeps_statistics
from raydream.runtime.placement import Nodes
from raydream.schedule import Schedule
from raydream.search.candidates import Listed, make_sampler
from raydream.search.metrics import check_metrics, metric_of
from raydream.search.space import Point, Space, config_at, full_scale, shown, space_of
from raydream.targets import check_targets
from raydream.teachers.teacher import Teacher
from raydream.teachers.verifiers import load_verifiers

DEFAULT_TRIALS = 32


@dataclass(frozen=True)
class CheckedSearch:
    """The findings of a search's checks.

    Attributes:
        teacher: loaded from its checkpoint; None if it must be trained.
        trials: number of trials.
        real: the real data; None if there are none.
    """

    teacher: Teacher | None
    verifiers: list[Teacher]
    space: Space
    trials: int
    real: Dataset | None


def check_search(config: SearchConfig, teacher: TeacherConfig) -> CheckedSearch:
    """Check that trials can be run as configured, as far as their settings are already known.

    Args:
        teacher: with its checkpoint, wherever that is kept.

    Raises:
        InputError: a network, a space, a number of trials, a metric or a setting that cannot work.
    """
    space = space_of(config)
    check_metrics(config)
    _check_batch_size(config, space)
    trials = _count(config, space)
    settle_steps = check_student(config)
    for point in _known_points(config, space, trials):
        _check_point(config, space, point, settle_steps)
    loaded = check_teacher(replace(config, teacher=teacher))
    network = loaded.network if loaded else build_teacher(config.teacher)
    if "feature_distance" in (metric_of(config), *config.also) and not keeps_statistics(network):
        remedy = "the teacher has no batch normalization whose statistics could be compared"
        raise InputError("metric", "feature_distance", "another metric for this teacher", remedy)
    real = check_data(config.data, config.teacher)
    return CheckedSearch(loaded, load_verifiers(config.verifiers), space, trials, real)


def _check_batch_size(config: SearchConfig, space: Space) -> None:
    """Check that the batch size is not searched for feature distances, which shrink with it; raises InputError."""
    varied = any(each.name == "synthesis.batch_size" for each in space.dimensions)
    for field, name in [("metric", metric_of(config)), *(("also", name) for name in config.also)]:
        if varied and name == "feature_distance":
            remedy = "its statistics are of a whole batch: keep synthesis.batch_size at one value, or leave it out"
            raise InputError(field, name, "another metric where synthesis.batch_size is searched", remedy)


def check_trial_fits(config: SearchConfig, nodes: Nodes) -> None:
    """Check that some node has room for a trial.

    Args:
        nodes: the available nodes; a cluster that can grow (`autoscaling`) may have others later.

    Raises:
        InputError: trials would wait forever, or compute on a GPU that no process reserves.
    """
    trial = config.trial
    if config.device == "cuda" and not trial.gpus:
        remedy = "give it a share, such as 0.5 for two trials on one GPU"
        raise InputError("trial.gpus", trial.gpus, "> 0 where device is cuda", remedy)
    for kind, name in (("cpus", "CPU"), ("gpus", "GPU")):
        most = max(node.get(name, 0.0) for node in nodes)
        if getattr(trial, kind) > most and not config.autoscaling:
            remedy = f"no node has more {name}s: ask for fewer, or set autoscaling where a cluster can grow"
            raise InputError(f"trial.{kind}", getattr(trial, kind), f"at most {most:g}", remedy)


def _count(config: SearchConfig, space: Space) -> int:
    if config.searcher != "grid":
        return config.trials or DEFAULT_TRIALS
    ranges = [each.name for each in space.dimensions if each.is_range]
    if ranges:
        allowed = "random or tpe for a space with ranges"
        remedy = f"a grid goes through lists: give {ranges[0]} as choice or grid"
        raise InputError("searcher", config.searcher, allowed, remedy)
    if config.trials and config.trials > space.grid_size:
        remedy = "leave it out to try all"
        raise InputError("trials", config.trials, f"at most {space.grid_size}, the points of the grid", remedy)
    return config.trials or space.grid_size


def _known_points(config: SearchConfig, space: Space, trials: int) -> list[Point]:
    """Return the ends of each range, and each value of each list, with the experiment's other settings; and all trials,
    if they do not depend on earlier results."""
    ends: list[Point] = [{each.name: value} for each in space.dimensions for value in each.values]
    sampler = None if config.searcher == "tpe" else make_sampler(config.searcher, space, trials, config.seed)
    return [*ends, *(sampler.points if isinstance(sampler, Listed) else [])]


def _check_point(config: SearchConfig, space: Space, point: Point, settle_steps: int) -> None:
    try:
        trial, whole = config_at(config, space, point), full_scale(config, point)
        # A trial alternates strictly between making and learning, whatever the experiment does.
        trial = replace(trial, rounds=replace(trial.rounds, lockstep=True, snapshot_steps=None))
        for each in (trial, whole):
            check_targets(each.synthesis.targets, each.teacher.classes)
            make_limiter(each, Schedule.of(each), settle_steps)
    except InputError as error:
        field, remedy = f"space ({error.field})", f"{error.remedy.rstrip('.')} (at {shown(point)})"
        raise InputError(field, error.value, error.allowed, remedy) from error
