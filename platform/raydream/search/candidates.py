"""Samplers of trials' settings: a grid, random draws, or a model of earlier trials."""

from collections.abc import Callable
from itertools import islice
from typing import Any, Protocol

import numpy as np

from raydream.extras import require
from raydream.search.space import Dimension, Point, Space
from raydream.seeds import derive_seed


class Sampler(Protocol):
    """Proposes points of a space."""

    def ask(self, trial: int) -> Point:
        """Return the point of a trial; trials are requested in turn, from 0."""

    def tell(self, trial: int, point: Point, scores: list[float], done: bool) -> None:
        """Record the scores of an ended trial, which may be of an earlier session and never requested in this one.

        Args:
            scores: its score at each report, the higher the better; none: it failed.
            done: whether it was completed, and not stopped early.
        """


class Listed:
    """Points that are fixed in advance.

    Args:
        points: one point for each trial.
    """

    def __init__(self, points: list[Point]) -> None:
        self.points = points

    def ask(self, trial: int) -> Point:
        return self.points[trial]

    def tell(self, trial: int, point: Point, scores: list[float], done: bool) -> None:
        pass


def grid(space: Space, trials: int) -> Listed:
    """Return a number of first points of the space's grid."""
    return Listed(list(islice(space.grid(), trials)))


def random_points(space: Space, trials: int, seed: int, role: str = "trial") -> Listed:
    """Draw independent points, uniform over each setting's range; a longer list begins with a shorter one.

    Args:
        seed: the search's seed.
        role: purpose of the points; other roles get other points.
    """

    def point(trial: int) -> Point:
        random = np.random.default_rng(derive_seed(seed, role, trial))
        return {each.name: each.at(float(random.random())) for each in space.dimensions}

    return Listed([point(trial) for trial in range(trials)])


class TPE:
    """Optuna's tree of Parzen estimators (Bergstra et al. 2011), multivariate.

    Running trials count as poor when a new one is requested, so that parallel trials do not sample one place. A
    proposal depends on the seed, the trial's number and the results so far. So sequential trials have the same points
    after a resume; those of parallel trials depend on the order in which they end.

    Args:
        trials: largest number of trials.
        seed: the search's seed; the first ten trials are those of `random_points`.
    """

    START = 10

    def __init__(self, space: Space, trials: int, seed: int) -> None:
        require("search", "searcher tpe")
        import optuna  # here, as it takes a second

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._optuna, self._space = optuna, space
        self._first = random_points(space, min(self.START, trials), seed)
        self._distributions = {each.name: distribution_of(each) for each in space.dimensions}
        self._seed, self._study = seed, optuna.create_study(direction="maximize")
        self._asked: dict[int, Any] = {}

    def ask(self, trial: int) -> Point:
        if trial < len(self._first.points):
            return self._first.ask(trial)
        # Each trial draws from a seed of its own: how often others were asked for is not known after a resume.
        seed = derive_seed(self._seed, "tpe", trial) % 2**32
        self._study.sampler = self._optuna.samplers.TPESampler(
            n_startup_trials=0, multivariate=True, constant_liar=True, seed=seed
        )
        asked = self._asked[trial] = self._study.ask(self._distributions)
        return {each.name: _value(each, asked.params[each.name]) for each in self._space.dimensions}

    def tell(self, trial: int, point: Point, scores: list[float], done: bool) -> None:
        states = self._optuna.trial.TrialState
        state = states.FAIL if not scores else states.COMPLETE if done else states.PRUNED
        if trial in self._asked:
            asked = self._asked.pop(trial)
            for report, score in enumerate(scores):
                asked.report(score, report)
            self._study.tell(asked, scores[-1] if state is states.COMPLETE else None, state)
        elif scores:
            params = {each.name: parameter_of(each, point[each.name]) for each in self._space.dimensions}
            self._study.add_trial(
                self._optuna.trial.create_trial(
                    state=state,
                    params=params,
                    distributions=self._distributions,
                    value=scores[-1],
                    intermediate_values=dict(enumerate(scores)),
                )
            )


def make_sampler(searcher: str, space: Space, trials: int, seed: int) -> Sampler:
    """Build the sampler that a search's `searcher` names."""
    made: dict[str, Callable[[], Sampler]] = {
        "grid": lambda: grid(space, trials),
        "random": lambda: random_points(space, trials, seed),
        "tpe": lambda: TPE(space, trials, seed),
    }
    return made[searcher]()


def distribution_of(dimension: Dimension) -> Any:
    """Return a setting's Optuna distribution; for a list: over positions in it, as Optuna takes no list values."""
    from optuna import distributions

    if not dimension.is_range:
        return distributions.CategoricalDistribution(list(range(len(dimension.values))))
    low, high = dimension.values
    log = dimension.kind == "log_uniform"
    if dimension.whole:
        return distributions.IntDistribution(round(low), round(high), log=log)
    return distributions.FloatDistribution(low, high, log=log)


def _value(dimension: Dimension, parameter: Any) -> Any:
    return parameter if dimension.is_range else dimension.values[parameter]


def parameter_of(dimension: Dimension, value: Any) -> Any:
    """Return a setting's value in Optuna's form."""
    return value if dimension.is_range else dimension.values.index(value)
