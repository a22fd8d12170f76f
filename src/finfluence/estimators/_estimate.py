"""estimate: any method by its name. One table says which there are; a method is loaded when it is used."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from importlib import import_module
from typing import Any, Literal

from finfluence._progress import Progress, silent
from finfluence.errors import ConfigError, NotSupportedError, explain
from finfluence.estimators._base import AbstractEstimator, Source, option_docs
from finfluence.result import Influence
from finfluence.runs import AnyQuery
from finfluence.runs.describe import Given

METHODS: dict[str, str] = {
    "replay": "finfluence.estimators.replay:Replay",
    "retrain": "finfluence.estimators.retrain:Retrain",
    "fine": "finfluence.estimators.first_order:Fine",
    "fine-mc": "finfluence.estimators.first_order:FineMonteCarlo",
    "grad-dot": "finfluence.estimators.first_order:GradientDot",
    "grad-cosine": "finfluence.estimators.first_order:GradientCosine",
    "tracin": "finfluence.estimators.first_order:TracIn",
    "less": "finfluence.estimators.first_order:Less",
    "in-run-shapley": "finfluence.estimators.first_order:InRunShapley",
    "if-explicit": "finfluence.estimators.influence_functions:Explicit",
    "if-cg": "finfluence.estimators.influence_functions:ByConjugateGradients",
    "if-lissa": "finfluence.estimators.influence_functions:ByLissa",
    "if-arnoldi": "finfluence.estimators.influence_functions:ByArnoldi",
    "if-nystrom": "finfluence.estimators.influence_functions:ByNystrom",
    "if-kfac": "finfluence.estimators.influence_functions:ByKfac",
    "if-ekfac": "finfluence.estimators.influence_functions:ByEkfac",
    "if-ekfac-cg": "finfluence.estimators.influence_functions:ByEkfacCg",
    "datainf": "finfluence.estimators.influence_functions:ByDataInf",
    "relatif": "finfluence.estimators.influence_functions:Relatif",
    "trak": "finfluence.estimators.influence_functions:Trak",
    "kernel-trak": "finfluence.estimators.influence_functions:KernelTrak",
    "source": "finfluence.estimators.unrolling:Segments",
    "adamw-influence": "finfluence.estimators.unrolling:AdamWInfluence",
    "d-tda": "finfluence.estimators.unrolling:Distributional",
    "z0-inf": "finfluence.estimators.forward_only:Z0Inf",
    "mirrored": "finfluence.estimators.forward_only:Mirrored",
    "untrac": "finfluence.estimators.unlearning:UnTrac",
    "untrac-inv": "finfluence.estimators.unlearning:UnTracInv",
    "turn-over": "finfluence.estimators.resampling:TurnOverDropout",
    "data-oob": "finfluence.estimators.resampling:DataOob",
    "own-loss": "finfluence.estimators.baselines:OwnLoss",
    "mean-loss": "finfluence.estimators.baselines:MeanLoss",
    "forgetting": "finfluence.estimators.baselines:Forgetting",
    "margin": "finfluence.estimators.baselines:Margin",
    "neighbours": "finfluence.estimators.baselines:Neighbours",
    "gradient-norm": "finfluence.estimators.baselines:GradientNorm",
    "cleanlab": "finfluence.estimators.baselines:Cleanlab",
    "random": "finfluence.estimators.baselines:Random",
}


@dataclass(frozen=True)
class Method:
    """What the table knows of a method.

    Attributes
    ----------
    name, family : str
        What `estimate` calls it; the package it lives in.
    summary : str
        What it does, in one sentence.
    needs : {"tape", "recipe"}
        What it works on: one run, or a training that can be repeated.
    yields : {"mu", "score"}
        μ, in units of training randomness; or a score that only ranks.
    candidates : bool
        Whether it can estimate what adding rows does.
    paper : str
        Its source.
    options : dict
        Each option and what it means.
    """

    name: str
    family: str
    summary: str
    needs: Literal["tape", "recipe"]
    yields: Literal["mu", "score"]
    candidates: bool
    paper: str
    options: dict[str, str]


def estimate(
    source: Source,
    queries: Sequence[AnyQuery] | AnyQuery,
    method: str = "replay",
    subsets: Given = None,
    *,
    candidates: Any = None,
    progress: Progress = silent,
    **options: Any,
) -> Influence:
    """Estimate what removing each subset does to each query, by the method of this name.

    Parameters
    ----------
    source : Tape or Recipe
        One run of a training, or its description; `methods()` says which a method needs.
    queries : Query or list
        `mean_loss`, `each_loss`, `own_loss`, or any `Query`.
    method : str
        One of `methods()`.
    subsets : None, {name: row ids} or list
        None: every row alone. With candidates: of their ids. An empty subset is legal: its effect is zero.
    candidates : Rows, mapping of arrays or map-style Dataset, optional
        Rows that training never saw: the effect of *adding* each, in place of removing rows.
    progress : callable
        Called as `progress(stage, done, total)`.
    **options
        Of the method, by name; each has a default.

    Returns
    -------
    Influence
        With μ, positive where removing the subset raises the query; or with a score alone, larger where the subset is
        more harmful or more suspect. Both say so when printed.

    Raises
    ------
    ConfigError
        An unknown method or option, or a value that cannot be used.
    NotSupportedError
        The method cannot work on this source, or takes no candidates; the message says why, and which methods can.
    DataError
        Subsets or candidates that cannot be used.

    Examples
    --------
    >>> import numpy as np
    >>> from torch import nn
    >>> from finfluence.runs import SGD, Recipe, Rows, own_loss, train
    >>> x, y = np.ones((4, 1)), np.array([0.0, 0.0, 0.0, 4.0])
    >>> recipe = Recipe(data=Rows(x=x, y=y), model=nn.Linear(1, 1, bias=False), optimizer=SGD(lr=0.1),
    ...                 loss=lambda m, b: 0.5 * (m(b["x"])[:, 0] - b["y"]) ** 2, batch_size=2, epochs=40)
    >>> estimate(train(recipe), own_loss([3]), "own-loss").top(1).row_id.item()
    3
    """
    made = method_class(method)
    estimator = made(_options(made, options))
    try:
        return estimator.estimate(source, queries, subsets, candidates=candidates, progress=progress)
    except NotSupportedError as error:
        support = estimator.supports(source)
        if not support:
            raise NotSupportedError(
                f"{support.reason}; on this source work: {_named(supporting(source))}"
            ) from error
        if candidates is not None and not made.takes_candidates():
            adding = [m.name for m in methods() if m.candidates]
            raise NotSupportedError(f"{error}: {_named(adding)}") from error
        raise  # a query that cannot be used


def methods() -> list[Method]:
    """Return what is known of every method; `pandas.DataFrame(fi.methods())` is a table of them.

    Returns
    -------
    list of Method
        In the order of the table.

    Examples
    --------
    >>> [m.name for m in methods() if m.needs == "recipe"]
    ['retrain', 'd-tda', 'data-oob']
    """
    return [_described(method_class(name)) for name in METHODS]


def methods_table() -> str:
    """Return the methods as a table in Markdown: what each does, needs, gives and takes.

    Returns
    -------
    str

    Examples
    --------
    >>> print(methods_table().splitlines()[0])
    | Method | What it does | Needs | Gives | Options | Source |
    """
    lines = ["| Method | What it does | Needs | Gives | Options | Source |", "|---|---|---|---|---|---|"]
    for m in methods():
        gives = "μ" if m.yields == "mu" else "score"
        options = ", ".join(f"`{name}`" for name in m.options) or "none"
        lines.append(f"| `{m.name}` | {m.summary} | {m.needs} | {gives} | {options} | {m.paper} |")
    return "\n".join(lines) + "\n"


def method_class(name: str) -> type[AbstractEstimator[Any, Any]]:
    """Return the class of a method, loaded now.

    Parameters
    ----------
    name : str
        As in `METHODS`.

    Returns
    -------
    type

    Raises
    ------
    ConfigError
        No method of this name; all names are listed.
    """
    if name not in METHODS:
        near = difflib.get_close_matches(str(name), METHODS, n=1)
        raise ConfigError(
            explain(
                f"a method among {_named(METHODS)}",
                repr(name),
                "a mistyped name",
                f"did you mean {near[0]!r}?" if near else "use one of the names listed",
            )
        )
    module, _, attribute = METHODS[name].partition(":")
    found: type[AbstractEstimator[Any, Any]] = getattr(import_module(module), attribute)
    return found


def supporting(source: Source) -> list[str]:
    """Return the names of the methods that can work on a source."""
    return [name for name in METHODS if method_class(name)().supports(source)]


def _options(made: type[AbstractEstimator[Any, Any]], given: dict[str, Any]) -> Any:
    """Return the options of a method, or raise with what each of them means."""
    known = {f.name for f in fields(made.Options)}
    unknown = [name for name in given if name not in known]
    if unknown:
        docs = "; ".join(f"{name} ({text})" for name, text in option_docs(made.Options).items())
        near = difflib.get_close_matches(unknown[0], known, n=1)
        raise ConfigError(
            explain(
                f"options of method {made.name!r}: {docs or 'it has none'}",
                ", ".join(map(repr, unknown)),
                "a mistyped name, or an option of another method",
                f"did you mean {near[0]!r}?" if near else "use the options listed, or leave it out",
            )
        )
    return made.Options(**given)


def _described(made: type[AbstractEstimator[Any, Any]]) -> Method:
    return Method(
        name=made.name,
        family=made.family,
        summary=(made.__doc__ or "").splitlines()[0].rstrip("."),
        needs="tape" if made.needs.__name__ == "Tape" else "recipe",
        yields=made.yields,
        candidates=made.takes_candidates(),
        paper=made.paper,
        options=option_docs(made.Options),
    )


def _named(names: Any) -> str:
    return ", ".join(repr(name) for name in names) or "none"
