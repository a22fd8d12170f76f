"""replay: one tape to the influence of every row."""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from finfluence._files import atomic, digest
from finfluence._progress import Progress, silent
from finfluence.errors import ConfigError, DataError, explain
from finfluence.estimators._accumulate import sum_over
from finfluence.estimators._budget import Settings, remembered, settings_for
from finfluence.estimators._choose_pass import DIFFERENTIATIONS, Choice, Differentiation, choose_pass
from finfluence.estimators._costs import bytes_per_query, measure
from finfluence.estimators._fine import check_recording, fine_monte_carlo, fine_rao_blackwell
from finfluence.estimators._groups import Groups, Pairs, pair, to_pair
from finfluence.estimators._horizon import Horizon, horizon_for
from finfluence.estimators._late import Late, check_late, late_steps
from finfluence.estimators._subsets import Given, find_subsets
from finfluence.estimators._walk import Plan, Walk
from finfluence.result import SPREAD_ERROR, Influence, model_error, one_of, ratio_interval, two_sided
from finfluence.runs import AnyQuery, Tape, check_queries, gradients, read_tensors, seeded

METHODS = ("online", "full", "fine", "fine-mc")
SAVE_SECONDS = 10.0


def replay(
    tape: Tape,
    queries: Sequence[AnyQuery] | AnyQuery,
    method: Literal["online", "full", "fine", "fine-mc"] = "online",
    subsets: Given = None,
    *,
    horizon: int | Literal["auto"] = "auto",
    probe_budget: float = 0.25,
    late: float = 0.1,
    auxiliary: Tape | None = None,
    records: int = 100,
    seed: int | None = None,
    groups: Groups = "auto",
    memory_bytes: int = 2**30,
    differentiation: Differentiation = "auto",
    budget: float | None = None,
    out: str | os.PathLike[str] | None = None,
    progress: Progress = silent,
) -> Influence:
    """Estimate what removing each subset does to each query, from one training run.

    Walking the tape backwards with λ = ∂q/∂s gives for each step t the slope x_{t,i} = ⟨u_t, ∇ℓ_i(θ_t)⟩ of every
    row's loss along u_t = (∂U_t/∂g)ᵀλ_{t+1}, and with it

        effect(S) = Σ_t [mean_{j∈D∖S} x_{t,j} − mean_{j∈D} x_{t,j}]
        spread²   = Var over batch orders of Σ_t mean_{j∈B_t} x_{t,j}

    in the query's own unit, at a fixed number of steps. μ = effect/spread.

    Parameters
    ----------
    tape : Tape
        From `train`, or from `Tape.record` around a loop of your own.
    queries : Query or list
        `mean_loss`, `each_loss`, `own_loss`, or any `Query`.
    method : {"online", "full", "fine", "fine-mc"}
        *online*: each row is evaluated where the run used it. *full*: all rows at every step; exact and dear.
        *fine*, *fine-mc*: the published single-run algorithm of f-influence, in closed form and by Monte Carlo; it is
        first-order and gives μ only (effect and spread are NaN).
    subsets : None, {name: row ids} or list
        None: every row alone. Groups come from the same walk: their effect at first order is the sum of their rows'.
    horizon : "auto" or int
        How many epochs to walk back. "auto" stops, per query, where the response stops being stable.
    probe_budget : float
        Extra row evaluations for the spread under reshuffling, as a share of the rows that training saw (*online*).
    late : float
        Effects are those on the mean of the query over 8 states within this share of the steps walked, the last ones:
        the same but for what they change meanwhile, and the chance of one final state averages out. 0: on that alone.
    auxiliary : Tape, optional
        Second run for difference in differences (*fine-mc*).
    records : int
        Steps recorded (*fine*, *fine-mc*), after a burn-in of a tenth of the run.
    seed : int, optional
        For probe rows and Monte Carlo; default: the tape's order seed.
    groups : {"auto", "linear", "paired"}
        *paired*: each subset's effect to all orders, from a further run without it, paired with the tape's own: same
        start, same batches without the subset's rows. Costs a training for each subset and five more, stacked as
        memory allows. *linear*: from the walk alone. *auto*: pairs subsets of two or more rows if there are at most 11
        of them, or with five more no more than queries. Of paired subsets the result keeps `linear_effect`, too.
    memory_bytes : int
        Bound on the memory of a walk; queries that do not fit together walk one after the other.
    differentiation : {"auto", "exact", "finite-difference"}
        *exact*: forward over reverse. *finite-difference*: from gradients at θ ± εu, for smooth models only; it passes
        through fused attention and operations without a second derivative. *auto*: exact where the model allows it and
        its tangents fit in `memory_bytes`, else finite differences; the result says which and why.
    budget : float, optional
        Most time to spend on the walk, in multiples of one training run. Sets epochs back (up to `horizon`), probe
        rows, and whether all rows are evaluated, in this order, from a few timed steps. The result says what was
        chosen; the same options given by hand give the same numbers. Tracing, once a tape, and paired groups are apart.
    out : path, optional
        Folder for progress: an interrupted replay called again with it goes on, to the same numbers.
    progress : callable
        Called as `progress("replay", done, total)` in epochs.

    Returns
    -------
    Influence
        `effect_se`, `se`, `lower`, `upper` and `p_value` cover the sampling error of this run's own terms and of the
        spread. They do not cover what another seed would change, nor linearisation: pool runs, or verify.

    Raises
    ------
    ConfigError, DataError, StorageError, NotSupportedError

    Notes
    -----
    Cost: two to three training runs for one query over all epochs, a fifth of that or less for each further
    query; in proportion to the horizon. Memory: sums per (row, query), never gradients.

    Assumes that removal changes training little (linear response). Fails for chaotic training, and for large groups
    unless they are paired.

    References
    ----------
    f-influence, arXiv 2510.10510, for the question and the methods *fine* and *fine-mc*.

    Examples
    --------
    >>> import numpy as np
    >>> from torch import nn
    >>> from finfluence.runs import SGD, Recipe, Rows, own_loss, train
    >>> x, y = np.ones((4, 1)), np.array([0.0, 0.0, 0.0, 4.0])
    >>> recipe = Recipe(data=Rows(x=x, y=y), model=nn.Linear(1, 1, bias=False), optimizer=SGD(lr=0.1),
    ...                 loss=lambda m, b: 0.5 * (m(b["x"])[:, 0] - b["y"]) ** 2, batch_size=2, epochs=40)
    >>> influence = replay(train(recipe), own_loss([3]), method="full")
    >>> bool(influence.data.effect[3, 0] > 0)     # without row 3, its own loss is larger
    True
    """
    one_of(method, METHODS, "method")
    one_of(differentiation, DIFFERENTIATIONS, "differentiation")
    listed = check_queries(queries)
    tape.finish()
    found = find_subsets(tape, subsets)
    where = found.positions
    chosen = to_pair(groups, found.sizes, sum(len(q.names) for q in listed))
    _check_left(tape, found.names, where)
    seed = tape.seed if seed is None else seed
    model = tape.model()
    with seeded(0):
        own = _group_means(where, final_losses(tape, model))
    labels: dict[str, Any] = {
        "subsets": found.names,
        "sizes": found.sizes,
        "queries": [name for q in listed for name in q.names],
        "units": [q.unit for q in listed for _ in q.names],
        "signs": [q.sign for q in listed for _ in q.names],
        "own_loss": own,
    }
    if method in ("fine", "fine-mc"):
        check_recording(tape, auxiliary, records)
        extra = {}
        with seeded(0):
            if method == "fine":
                mu = fine_rao_blackwell(tape, listed, where, records, progress)
            else:
                mu, extra["mu_scan"] = fine_monte_carlo(
                    tape, auxiliary, listed, where, records, seed, progress
                )
        unknown = np.full_like(mu, np.nan)
        return Influence.build(
            effect=unknown, spread=unknown, se=unknown, p_value=unknown, mu=mu, extra=extra,
            attrs={**_attrs(tape, method), "records": records}, **labels,
        )  # fmt: skip
    if not 0 < probe_budget < np.inf:
        raise ConfigError(
            explain(
                "probe_budget above 0", repr(probe_budget), "a share was mistyped", "use the default, 0.25"
            )
        )
    check_late(late)
    plan = Plan(method == "full", probe_budget if tape.reshuffled else 0.0, seed)
    parts = _estimate(
        tape, listed, model, plan, horizon_for(horizon, tape), late, memory_bytes, differentiation, budget, out,
        progress,
    )  # fmt: skip
    together = max(1, int(memory_bytes // bytes_per_query(tape)))
    pairs = pair(tape, listed, found, chosen, together, seed, progress)
    plan = parts["plan"]
    return _assemble(tape, "full" if plan.full else method, plan, where, labels, parts, pairs)


def final_losses(tape: Tape, model: nn.Module, rows_at_once: int = 1024) -> np.ndarray:
    """Return each training row's loss under `model` [n], in evaluation mode."""
    model.eval()
    with torch.no_grad():
        parts = [tape.loss(model, tape.batch(p)) for p in torch.arange(len(tape.rows)).split(rows_at_once)]
    return torch.cat(parts).double().cpu().numpy()


def _estimate(
    tape: Tape,
    queries: list[AnyQuery],
    model: nn.Module,
    plan: Plan,
    horizon: Horizon,
    late: float,
    memory_bytes: int,
    differentiation: Differentiation,
    budget: float | None,
    out: str | os.PathLike[str] | None,
    progress: Progress,
) -> dict[str, Any]:
    """Walk all queries, as many together as memory allows; return their sums."""
    layout, epochs = tape.layout, len(tape.epochs)
    with seeded(0):
        values, slopes = gradients(queries, model, tape, layout.parameters(model))
    choice = choose_pass(tape, slopes, differentiation, memory_bytes)
    settings: Settings | None = None
    if budget is not None:
        costs = partial(measure, tape, choice.adjoint, slopes, memory_bytes)
        choose = partial(settings_for, budget, tape, plan, horizon.limit, len(slopes), costs, late)
        key = _key(tape, choice, plan, horizon, slopes, f"{budget}")
        settings = remembered(Path(out) if out is not None else None, key, choose)
        plan, horizon = settings.plan(plan), horizon.at_most(settings.horizon)
    walked = sum(len(epoch) for epoch in tape.epochs[-horizon.limit :])
    plan = replace(plan, late=late_steps(tape.steps, walked, late))
    together = max(1, int(memory_bytes // bytes_per_query(tape)))
    walks: list[dict[str, np.ndarray]] = []
    if len(plan.late) > 1:
        together = max(1, together // 2)
    chunks = slopes.split(together)
    for index, chunk in enumerate(chunks):
        start = torch.zeros(
            len(chunk),
            1 + len(tape.optimizer.slots),
            layout.size,
            dtype=chunk.dtype,
            device=chunk.device,
        )
        start[:, 0] = chunk
        columns = range(index * together, index * together + len(chunk))
        averaged = Late(tape, queries, columns, plan.late, model)
        walk = Walk(tape, choice.adjoint, start, plan, horizon, averaged)

        def tell(next_epoch: int, index: int = index) -> None:
            progress("replay", index * epochs + epochs - 1 - next_epoch, len(chunks) * epochs)

        with seeded(0):
            _run_resumable(walk, tape, choice, chunk, Path(out) if out is not None else None, tell)
        totals = walk.totals
        walks.append(
            {
                "effects": totals.effects.T.cpu().numpy(),
                "effect_variance": totals.effect_variance().T.cpu().numpy(),
                "variance": totals.variance().cpu().numpy(),
                "variance_error": totals.profile_error.sum(0).cpu().numpy(),
                "profile": totals.profile.T.cpu().numpy(),
                "horizon": totals.accepted.cpu().numpy(),
            }
        )
    progress("replay", len(chunks) * epochs, len(chunks) * epochs)
    joined = {name: np.concatenate([w[name] for w in walks]).T for name in walks[0]}
    return {**joined, "values": values, "choice": choice, "plan": plan, "settings": settings}


def _run_resumable(
    walk: Walk, tape: Tape, choice: Choice, start: Tensor, folder: Path | None, tell: Callable[[int], None]
) -> None:
    """Run the walk; with a folder, save its state now and then, and go on from a saved one."""
    if folder is None:
        walk.run(tell)
        return
    path = folder / f"replay-{_key(tape, choice, walk.plan, walk.horizon, start)}.safetensors"
    if path.exists():
        walk.restore(read_tensors(path))
    saved_at = time.monotonic()

    def after(next_epoch: int) -> None:
        nonlocal saved_at
        tell(next_epoch)
        if walk.done or time.monotonic() - saved_at > SAVE_SECONDS:
            with atomic(path) as part:
                save_file({k: v.contiguous().cpu() for k, v in walk.tensors().items()}, part)
            saved_at = time.monotonic()

    walk.run(after)


def _key(tape: Tape, choice: Choice, plan: Plan, horizon: Horizon, start: Tensor, more: str = "") -> str:
    """Return a hash of all that a walk's numbers depend on."""
    header = repr((tape.describe(), *tape.identity().values(), plan, horizon, choice.name, more))
    return digest(header.encode(), start.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())


def _assemble(
    tape: Tape,
    method: str,
    plan: Plan,
    where: list[np.ndarray],
    labels: dict[str, Any],
    parts: dict[str, Any],
    pairs: Pairs,
) -> Influence:
    n = len(tape.rows)
    scale = np.array([(n - 1) / (n - len(w)) for w in where])[:, None]
    effect = scale * sum_over(where, parts["effects"])
    effect_se = scale * np.sqrt(sum_over(where, parts["effect_variance"]))
    spread = np.broadcast_to(np.sqrt(parts["variance"]), effect.shape)
    effect, effect_se, extra = pairs.correct(effect, effect_se)
    lost = parts["horizon"] == 0
    effect, effect_se, spread = (np.where(lost, np.nan, v) for v in (effect, effect_se, spread))
    with np.errstate(divide="ignore", invalid="ignore"):
        relative = np.hypot(np.sqrt(parts["variance_error"]) / (2 * parts["variance"]), SPREAD_ERROR)
    df = np.broadcast_to(np.maximum(parts["horizon"] - 1, 1), effect.shape)
    model = model_error(pairs.chosen, parts["horizon"], len(tape.epochs))
    se, lower, upper = ratio_interval(effect, effect_se, spread, relative, df=df, model=model)
    epochs = len(tape.epochs)
    short = [
        f"'{q}' {int(h)}" for q, h in zip(labels["queries"], parts["horizon"], strict=True) if h < epochs
    ]
    choice: Choice = parts["choice"]
    settings: Settings | None = parts["settings"]
    findings = [*_findings(tape, choice.adjoint.engine), *choice.findings, *pairs.findings]
    findings += [settings.sentence] if settings is not None else []
    if lost.any():
        named = [repr(q) for q, gone in zip(labels["queries"], lost, strict=True) if gone]
        findings.append(
            f"nothing can be said of {', '.join(named[:4])}: the response is not finite in the last epoch already"
        )
    if short:
        findings.append(
            f"the walk covers fewer than the {epochs} epochs of training for {', '.join(short[:4])}"
            f"{' …' if len(short) > 4 else ''}; effects of earlier epochs are left out"
        )
    attrs = {
        **_attrs(tape, method),
        "horizon": [int(h) for h in parts["horizon"]],
        "epochs": epochs,
        "probe_budget": plan.budget,
        "late_states": list(plan.late),
        "engine": choice.adjoint.engine,
        "differentiation": choice.name,
        "differentiation_reason": choice.reason,
        "budget": None if settings is None else asdict(settings),
        "query_values": [parts["values"].tolist()],
        "spread_profile": parts["profile"].T.tolist(),
        "findings": findings,
    }
    return Influence.build(
        effect=effect,
        effect_se=effect_se,
        spread=spread,
        se=se,
        lower=lower,
        upper=upper,
        p_value=two_sided(effect, effect_se, df),
        attrs=attrs,
        extra=extra,
        **labels,
    )


def _attrs(tape: Tape, method: str) -> dict[str, Any]:
    return {
        "method": method,
        "runs": 1,
        "seeds": [tape.identity()],
        "covers": ["batch order"],
        "uncovered": tape.uncovered(),
        "n_rows": len(tape.rows),
        "recipe": tape.describe(),
        "recipe_digest": tape.digest(),
        "versions": {"finfluence": version("finfluence"), "torch": torch.__version__},
    }


def _check_left(tape: Tape, names: np.ndarray, where: list[np.ndarray]) -> None:
    n = len(tape.rows)
    for name, rows in zip(names, where, strict=True):
        if len(rows) == n:
            raise DataError(
                explain(
                    f"at least one row to be left without subset '{name}'",
                    f"all {n} rows in it",
                    "the subset is the whole data set",
                    "take a smaller subset",
                )
            )


def _findings(tape: Tape, engine: str) -> list[str]:
    found, uncovered = list(tape.notes), tape.uncovered()
    if "initialisation" in uncovered:
        found.append(
            "one run shows one initialisation: if yours is random, the spread leaves that out; pool several runs"
            if tape.recorded
            else "the initialisation is random and one run sees no other: the spread leaves it out; pool several runs"
        )
    if "dropout" in uncovered:
        found.append("the loss draws random numbers (dropout): the spread leaves them out; pool several runs")
    if "augmentation" in uncovered:
        found.append("batches were augmented: the spread leaves that out; pool several runs")
    if engine.startswith("eager") and not tape.stochastic:
        found.append(f"the model could not be traced and was replayed step by step, more slowly ({engine})")
    return found


def _group_means(where: list[np.ndarray], losses: np.ndarray) -> np.ndarray:
    return sum_over(where, losses[:, None])[:, 0] / np.array([len(w) for w in where])
