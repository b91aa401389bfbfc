"""How much of a sweep's outcome each setting explains: fANOVA (Hutter et al. 2014), by Optuna."""

from collections.abc import Mapping, Sequence

from cifar10.report.sweep.scales import scale_of

FEWEST = 8  # jobs
TREES = 32  # half of what is usual, and of the time: a second for 200 jobs


def importances(settings: Mapping[str, Sequence[str]], results: Sequence[float]) -> dict[str, float]:
    """The share of the variance of the results that each setting alone explains, greatest first.

    settings: by name, as they were typed, one for each result. What the shares lack to 1 is joint effects. A setting
    that does not vary is left out. Needs Optuna (ImportError). Raises ValueError where there is nothing to explain.
    """
    import optuna

    varying = {key: texts for key, texts in settings.items() if len(set(texts)) > 1}
    if len(results) < FEWEST:
        raise ValueError(f"fewer than {FEWEST} jobs have finished")
    if len(varying) < 2:
        raise ValueError("a single setting differs among the finished jobs")
    if max(results) == min(results):
        raise ValueError("all jobs ended with the same value")
    distributions, values = {}, {}
    for key, texts in varying.items():
        scale = scale_of(texts)
        if scale.kind == "categories":
            distributions[key] = optuna.distributions.CategoricalDistribution(sorted(set(texts)))
            values[key] = list(texts)
        else:  # the logarithm here, as the evaluator itself would take a rate from 1e-5 to 0.1 as it is
            values[key] = scale.values.tolist()
            distributions[key] = optuna.distributions.FloatDistribution(min(values[key]), max(values[key]))
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        study = optuna.create_study()
        study.add_trials(
            optuna.create_trial(params={key: values[key][index] for key in values}, distributions=distributions,
                                value=result)
            for index, result in enumerate(results)
        )  # fmt: skip
        return optuna.importance.FanovaImportanceEvaluator(n_trees=TREES, seed=0).evaluate(study)
    finally:
        optuna.logging.set_verbosity(verbosity)
