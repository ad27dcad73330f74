"""The importance of each searched setting (functional ANOVA; Hutter et al. 2014, by Optuna)."""

import warnings

from raydream.extras import require
from raydream.search.candidates import distribution_of, parameter_of
from raydream.search.space import Space
from raydream.search.trials import Trials

FEWEST = 8
"""fewest trials for an estimate"""


def importances(space: Space, trials: Trials, metric: str) -> tuple[dict[str, float], int, int]:
    """Estimate by a random forest the share of the scores' variance that each setting accounts for by itself.

    Trials are compared at one budget: at the last report that half of them have reached.

    Args:
        metric: the objective metric.

    Returns:
        shares in [0, 1] by setting, the most important first, empty where there are too few trials; the report, and its
        number of trials.
    """
    require("search", "the importance of settings")
    import optuna  # here, as it takes a second

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    scored = [(trial.point, trial.scores(metric)) for _, trial in trials.items() if trial.scores(metric)]
    lengths = sorted(len(scores) for _, scores in scored)
    report = lengths[len(lengths) // 2] if lengths else 0
    reached = [(point, scores[report - 1]) for point, scores in scored if len(scores) >= report]
    if len(reached) < FEWEST or len({score for _, score in reached}) < 2:
        return {}, report, len(reached)
    distributions = {each.name: distribution_of(each) for each in space.dimensions}
    study = optuna.create_study(direction="maximize")
    for point, score in reached:
        params = {each.name: parameter_of(each, point[each.name]) for each in space.dimensions}
        study.add_trial(optuna.trial.create_trial(params=params, distributions=distributions, value=score))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of experimental features
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
        shares = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return {name: float(share) for name, share in shares.items()}, report, len(reached)
