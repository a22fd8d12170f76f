"""decide of a tuning: keep, drop or weigh down, whichever does best on prompts that took no part."""

import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from finfluence._files import write_json
from finfluence._progress import Progress, silent
from finfluence._seeds import stream, torch_seed
from finfluence.ensemble import one_thread
from finfluence.errors import ConfigError, explain
from finfluence.jobs._log import logged, recorded
from finfluence.jobs._words import change, counted
from finfluence.jobs.scan import DROP, KEEP, MITIGATE, RELABEL, REWEIGHT, Advice, DecideOptions
from finfluence.jobs.tune._decide import GROUP, RANK, Decided, decide
from finfluence.jobs.tune._estimate import load_estimate
from finfluence.jobs.tune._folder import DECISION, HIDDEN, LOG, RETUNED, TuneFolder
from finfluence.jobs.tune._options import TuneOptions
from finfluence.jobs.tune._prepared import (
    Prepared,
    behaviours_digest,
    check_data,
    check_model,
    fields_of,
    prepare,
)
from finfluence.jobs.tune._report import rewrite_page
from finfluence.jobs.tune._retune import ALL, measured_each, values_after
from finfluence.language import HELD_OUT, Behaviour, read_behaviours, read_records
from finfluence.stats import crossed_interval, mean_interval, pooled_d
from finfluence.verification import duration

RUNS, LEVEL = 5, 0.95
NOT_OF_A_TUNING = {
    RELABEL: "the right response to a prompt is not known",
    MITIGATE: "a language model's head is its vocabulary, and heads on frozen features are for classes",
}


def decide_tune(
    out: str | os.PathLike[str],
    options: DecideOptions | None = None,
    announce: Callable[[str], None] | None = None,
    progress: Progress = silent,
) -> Advice:
    """Tune again with the named rows dropped and with doubtful rows weighed down, and recommend what does best.

    "drop" leaves out what the tuning named, or the top of its ranking, where it named nothing; in "reweight" each
    training leaves a row out with the chance 1 − q, by the row's own q-value or its source's. All versions share their
    batch orders and are measured on the behaviours that are given: prompts and rows that were asked or trained on
    before are left out. An action is recommended only if, at 5 % over all actions and behaviours together, it surely
    improves a behaviour and surely makes none worse; of several, the one that improves the first behaviour most.

    Relabelling and new heads (mitigation) do not apply to a language model: the advice says why.

    Parameters
    ----------
    out
        Folder of a finished tuning.
    options
        The file of behaviours, and how often to tune (five times by default).
    announce
        Called with a sentence once the first tuning was timed: how many there are, and how long they take.
    progress
        Called as `progress("decide", done, total)` in tunings.

    Returns
    -------
    Advice
        Also in `decision.json`. Finished tunings stay in the folder; the same call goes on with them.

    Raises
    ------
    StorageError
        No finished tuning there, damaged files of it, or a model that has changed.
    DataError
        The data has changed since.
    ConfigError
        Rows without labels, which a tuning has no use for; or behaviours that cannot be used, such as those of which
        every prompt was asked before.
    """
    options = options or DecideOptions()
    if options.unlabelled is not None:
        raise ConfigError(
            explain(
                "of a tuning no rows without labels",
                f"--unlabelled {options.unlabelled}",
                "accuracy without labels is of classes, and a language model predicts none",
                "give prompts that took no part by --behaviour FILE",
            )
        )
    folder = TuneFolder(out)
    folder.read_summary()  # or it is told that the tuning has not ended
    run = folder.read_run()
    tuned = TuneOptions.of_run(run, folder.path)
    check_data(run)
    fresh, findings = _asked(tuned, options.behaviour)
    with one_thread(), logged(folder / LOG) as log:
        judged = prepare(tuned, folder.path, fresh)
        check_model(run, {**judged.described(), "behaviours_digest": _digest_now(tuned)})
        estimate = load_estimate(folder, tuned.runs, judged.texts.groups is not None)
        decided = decide(estimate, judged, tuned.fdr, tuned.top)

        def tell(sentence: str) -> None:
            log.info("decision: %s", sentence)
            if announce is not None:
                announce(sentence)

        runs = options.runs or RUNS
        masks, left_out = _alternatives(judged, decided, tuned.seed, runs)
        work = _Work(judged, folder, tuned.seed, tell, recorded(log, progress))
        values = _trained(work, masks, runs)
        on = _judged_on(judged, options.behaviour is not None)
        tried = _tried(judged, masks, values)
        action = _best(tried)
        whole = sum(_finite(values)) if masks else runs
        if whole < runs:
            findings.append(("FI041", f"{runs - whole} of {runs} tunings diverged and were left out."))
        sentence = _sentence(action, tried, decided, on)
        advice = Advice(action, sentence, tried, left_out, None, on, tuple(findings))
        write_json(folder / DECISION, vars(advice))
        rewrite_page(folder, judged.texts.texts, estimate, decided, run)
        shutil.rmtree(folder / HIDDEN, ignore_errors=True)
        log.info("decision: %s", advice.sentence)
    return advice


class _Work:
    """What every tuning again needs, with the clock of the first one."""

    def __init__(
        self, judged: Prepared, folder: TuneFolder, seed: int, tell: Callable[[str], None], progress: Progress
    ) -> None:
        self.judged, self.folder, self.progress, self._tell = judged, folder, progress, tell
        self._seed, self._told = seed, False

    def values(self, run: int, keep: np.ndarray, left: int) -> list[list[float]]:
        """Return every behaviour's values by text after one tuning; the first that is not kept is timed."""
        begun, kept = time.perf_counter(), self._kept()
        seed = torch_seed(self._seed, "decided", run) % 2**31
        found: list[list[float]] = values_after(self.judged, seed, keep, self.folder, measured_each)
        if not self._told and self._kept() > kept:
            each = time.perf_counter() - begun
            self._told = True
            self._tell(
                f"{left:,} tunings are left, and one takes {duration(each)}: about {duration(each * left)}."
            )
        return found

    def _kept(self) -> int:
        return len(list((self.folder / RETUNED).glob("*.json")))


def _asked(
    tuned: TuneOptions, path: str | os.PathLike[str] | None
) -> tuple[list[Behaviour] | None, list[tuple[str, str]]]:
    """Return the behaviours to judge by, None for those that were tuned with, and what qualifies them."""
    fields = fields_of(tuned)
    before = read_behaviours(Path(tuned.behaviour), fields)
    asked = before if path is None else read_behaviours(Path(path), fields)
    findings: list[tuple[str, str]] = []
    fresh = None
    if path is None:
        findings.append(
            ("FI040", "The prompts that judge are those that named the rows: give others by --behaviour.")
        )
    else:
        seen = {key for b in before for text in b.texts for key in _keys(b.kind, text)}
        rows = read_records(Path(tuned.data), fields).texts
        seen |= {key for text in rows for key in _keys(HELD_OUT, text)}
        fresh = [_fresh(b, seen, findings) for b in asked]
    alone = [b.name for b in fresh or asked if len(b.texts) < 2]
    if alone:
        named = ", ".join(map(repr, alone))
        findings.append(
            ("FI045", f"{named}: one text, whose interval holds for other trainings, not for other texts.")
        )
    if not any(b.kind == HELD_OUT for b in asked):
        text = "Whether the model is otherwise as good was not asked: add a behaviour of kind held_out."
        findings.append(("FI045", text))
    return fresh, findings


def _fresh(behaviour: Behaviour, seen: set[str], findings: list[tuple[str, str]]) -> Behaviour:
    """Return a behaviour without the texts that were asked or trained on."""
    texts = behaviour.texts
    left = [k for k, text in enumerate(texts) if _keys(behaviour.kind, text)[0] not in seen]
    if not left:
        raise ConfigError(
            explain(
                f"texts of behaviour {behaviour.name!r} that were neither asked nor trained on",
                f"none of {len(texts)}",
                "the file that was tuned with, or prompts of the training rows",
                "write other prompts, or leave --behaviour out: then those that were asked judge, which flatters",
            )
        )
    if len(left) < len(texts):
        gone = len(texts) - len(left)
        text = f"{behaviour.name!r}: {gone} of {len(texts)} texts were asked or trained on, and left out."
        findings.append(("FI030", text))
    return behaviour.only(left)


def _keys(kind: str, text: Any) -> list[str]:
    """Return what a text is known by: a prompt by itself; a row as a whole, then by its prompts."""
    if kind != HELD_OUT:
        return [str(text).strip()]
    prompts = [text[0]] if isinstance(text, tuple) else [t["content"] for t in text if t["role"] == "user"]
    return [repr(text), *(str(p).strip() for p in prompts)]


def _digest_now(tuned: TuneOptions) -> str:
    path = Path(tuned.behaviour)
    return behaviours_digest(path, read_behaviours(path, fields_of(tuned)))


def _alternatives(
    judged: Prepared, decided: Decided, seed: int, runs: int
) -> tuple[dict[str, list[np.ndarray]], dict[str, str]]:
    """Return which rows each run of each version leaves out, and why other versions cannot be tried."""
    least = judged.recipe.batch_size
    chance = _chance_of_harm(decided, judged.rows.ids, judged.texts.groups)
    down = [stream(seed, "reweight", run).random(len(chance)) < chance for run in range(runs)]
    found, left_out = {}, dict(NOT_OF_A_TUNING)
    if (~decided.removed).sum() < least:
        left_out[DROP] = "fewer rows than a batch would be left"
    else:
        found[DROP] = [decided.removed] * runs
    if not chance.any():
        left_out[REWEIGHT] = (
            "one run ranks rows and gives them no chance of harm (--runs 4, or a --group)"
            if decided.why == RANK
            else "no row has a chance of harm"
        )
    elif any((~mask).sum() < least for mask in down):
        left_out[REWEIGHT] = "fewer rows than a batch would be left"
    elif DROP in found and not (np.any(down, 0) & ~decided.removed).any():
        left_out[REWEIGHT] = "no other row than those that drop leaves out is doubtful"
    else:
        found[REWEIGHT] = down
    return found, left_out


def _chance_of_harm(decided: Decided, ids: np.ndarray, groups: np.ndarray | None) -> np.ndarray:
    """Return 1 − q of each row [n], q the smallest of its own and its source's q-values over the behaviours."""
    by_row = decided.lines.groupby("row_id")["q_value"].min()
    q = by_row.reindex(ids).fillna(1.0).to_numpy(dtype=float)
    if groups is not None and not decided.groups.empty:
        of_source = decided.groups.groupby("group")["q_value"].min().fillna(1.0)
        q = np.minimum(q, [float(of_source.get(str(name), 1.0)) for name in groups])
    return np.asarray(1.0 - q)


def _trained(
    work: _Work, masks: Mapping[str, Sequence[np.ndarray]], runs: int
) -> dict[str, list[list[list[float]]]]:
    """Return of each version, run and behaviour the values of the texts; nothing where nothing can be tried."""
    if not masks:
        return {}
    every = np.arange(len(work.judged.rows))
    arms = {ALL: [np.zeros(len(every), bool)] * runs, **masks}
    total = len(arms) * runs
    values: dict[str, list[list[list[float]]]] = {}
    for place, (name, gone) in enumerate(arms.items()):
        values[name] = []
        for run, mask in enumerate(gone):
            done = place * runs + run
            values[name].append(work.values(run, np.flatnonzero(~mask), total - done - 1))
            work.progress("decide", done + 1, total)
    return values


def _finite(values: Mapping[str, Sequence[Sequence[Sequence[float]]]]) -> list[bool]:
    """Return which runs ended in numbers in every version."""
    arms = zip(*values.values(), strict=True)
    return [all(np.isfinite(v).all() for arm in run for v in arm) for run in arms]


def _tried(
    judged: Prepared, masks: Mapping[str, Sequence[np.ndarray]], values: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Return what each action did to each behaviour, beside keeping all rows."""
    if not masks:
        return []
    whole = np.flatnonzero(_finite(values))
    level = 1 - (1 - LEVEL) / (len(masks) * len(judged.queries))
    tried = []
    for action, gone in masks.items():
        rows = int(np.any(gone, 0).sum())
        line: dict[str, Any] = {
            "action": action,
            "rows": rows,
            "runs": len(whole),
            "differences": [],
            "mu": {},
        }
        for k, query in enumerate(judged.queries) if len(whole) >= 2 else ():
            before, after = (np.array([values[arm][r][k] for r in whole]) for arm in (ALL, action))
            difference = after - before
            several = difference.shape[1] > 1
            found = (crossed_interval if several else mean_interval)(
                difference if several else difference[:, 0], level=level
            )
            moved = float(pooled_d(before.mean(1), after.mean(1)))
            line["mu"][query.name] = moved if np.isfinite(moved) else None
            line["differences"].append(
                {
                    "metric": query.name,
                    "name": f"{action} − {KEEP}",
                    "unit": query.unit,
                    "wanted": query.sign > 0,
                    "value": float(found.estimate),
                    "lower": float(found.lower),
                    "upper": float(found.upper),
                }
            )
        ways = [_way(d) for d in line["differences"]]
        said = [_change(d) for d in line["differences"]]
        line["did"] = "; ".join(said) or "diverged in training"
        line["better"] = 1 in ways
        line["harms"] = [text for text, way in zip(said, ways, strict=True) if way < 0]
        tried.append(line)
    return tried


def _way(d: Mapping[str, Any]) -> int:
    """Return 1 where a behaviour is surely better, −1 where it is surely worse, else 0."""
    if d["lower"] * d["upper"] <= 0:
        return 0
    return 1 if (d["value"] > 0) == d["wanted"] else -1


def _change(d: Mapping[str, Any]) -> str:
    return change(repr(d["metric"]), d, unit=d["unit"]).replace(" the ", " ", 1)


def _best(tried: Sequence[Mapping[str, Any]]) -> str:
    def gain(one: Mapping[str, Any]) -> float:
        first = one["differences"][0]
        return float(first["value"] if first["wanted"] else -first["value"])

    good = [one for one in tried if one["better"] and not one["harms"]]
    return str(max(good, key=gain)["action"]) if good else KEEP


def _judged_on(judged: Prepared, apart: bool) -> str:
    count = sum(len(b.texts) for b in judged.texts.behaviours)
    texts = counted(count, "text")
    return f"{texts} that took no part" if apart else f"the {texts} that were asked, too, which flatters it"


def _sentence(action: str, tried: Sequence[Mapping[str, Any]], decided: Decided, on: str) -> str:
    if not tried:
        return "Recommended: keep the rows as they are. There is nothing to try."
    if action == KEEP:
        return f"Recommended: keep the rows as they are. Nothing that was tried surely does better on {on}."
    did = next(one for one in tried if one["action"] == action)
    which = {GROUP: "rows of the named sources", RANK: "rows at the top of the ranking"}.get(
        decided.why, "named rows"
    )
    what = {
        DROP: f"drop the {did['rows']:,} {which}",
        REWEIGHT: f"train with each of {did['rows']:,} doubtful rows at its q-value, the chance that it does no harm",
    }[action]
    return f"Recommended: {what}. On {on}, this {did['did']}."
