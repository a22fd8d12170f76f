"""Find the rows that taught a model a hidden behaviour, among rows that look like them and did not."""

import numpy as np
import pandas as pd

from finfluence._seeds import stream
from finfluence.evaluate import average_precision, recall_at
from finfluence.jobs.bench._answers import Answer, Ask
from finfluence.jobs.bench._bench import (
    Bench,
    Outcome,
    grouped,
    mean_and_range,
    not_measured,
    timings,
    with_effects,
)
from finfluence.jobs.bench._planted import ATTACKS, Attack, Planted, plant
from finfluence.jobs.bench._retrained import MASTER, remove_groups
from finfluence.report import Line, Section, lines
from finfluence.runs import own_loss

FRACTIONS = tuple(round(0.02 * k, 2) for k in range(1, 26))
SHOWN = (0.04, 0.08)
WORKS = 3.0
"""A behaviour is there if training without its rows lowers it by at least so many spreads."""
TAUGHT = "rows that teach it"
WHAT = {
    "backdoor": "Some rows of one class bear a white patch in the last corner of the image and are labelled as "
    "another one.",
    "steering": "Some rows of one class bear a white patch in the last corner of the image; all labels are right.",
}


class LookAlikes:
    """Rows with low own losses that teach a hidden behaviour, and look-alikes that bear the patch elsewhere.

    The query is the probability of the wrong class for rows held out that bear the trigger; rows rank by how much
    removing them would lower it.
    """

    name = "look-alikes"
    summary = (
        "find the rows behind a backdoor or a steered class, among look-alikes, where own loss must fail"
    )

    def run(self, bench: Bench) -> Outcome:
        """Return for each attack whether it works, and how well every method finds its rows."""
        sections: list[Section] = []
        tables: dict[str, list[pd.DataFrame]] = {"works": [], "scores": [], "recall": [], "timings": []}
        for attack in ATTACKS:
            planted = [plant(bench.data, bench.options.rows, attack, seed) for seed in bench.seeds]
            works = pd.concat([_works(one, bench) for one in planted], ignore_index=True)
            asked = bench.ask(
                [Ask(p.problem, m, p.problem.seed, [p.behaviour]) for m in bench.methods for p in planted],
                attack,
            )
            answers = with_effects(asked)
            measured = [(a, planted[a.seed]) for a in answers if a.measured]
            scores = pd.DataFrame([_scored(*pair) for pair in measured], columns=_SCORES)
            recall = pd.DataFrame([line for pair in measured for line in _recall(*pair)])
            listed = grouped(answers)
            best = scores.groupby("method")["average_precision"].mean()
            order = sorted(listed, key=lambda m: -best.get(m, -1.0))
            sections += [_found(attack, order, listed, scores, recall, planted, bench), _shown(attack, works)]
            for name, frame in zip(tables, (works, scores, recall, timings(asked)), strict=True):
                tables[name].append(frame.assign(attack=attack))
        joined = {name: pd.concat(frames, ignore_index=True) for name, frames in tables.items()}
        return Outcome(_verdict(joined["scores"], joined["works"]), sections, joined)


_SCORES = ["method", "seed", "average_precision", "among_look_alikes"]


def _scored(answer: Answer, planted: Planted) -> dict[str, object]:
    harm, near = answer.values()[:, 0], planted.taught | planted.alike
    among = average_precision(harm[near], planted.taught[near])
    return dict(
        zip(
            _SCORES, (answer.method, answer.seed, average_precision(harm, planted.taught), among), strict=True
        )
    )


def _recall(answer: Answer, planted: Planted) -> list[dict[str, object]]:
    harm = answer.values()[:, 0]
    return [
        {"method": answer.method, "seed": answer.seed, "fraction": fraction,
         "recall": recall_at(harm, planted.taught, round(fraction * len(harm)))}
        for fraction in FRACTIONS
    ]  # fmt: skip


def _works(planted: Planted, bench: Bench) -> pd.DataFrame:
    """Return what training without some rows does to the behaviour, and the own losses of these rows."""
    taught, alike = np.flatnonzero(planted.taught), np.flatnonzero(planted.alike)
    other = np.flatnonzero(~planted.taught & ~planted.alike)
    drawn = stream(MASTER, "bench other rows", planted.problem.seed).choice(other, len(taught), replace=False)
    groups = {TAUGHT: taught, "look-alikes": alike, "as many other rows": np.sort(drawn)}
    bank, seed, runs = bench.bank(planted.problem), planted.problem.seed, bench.options.runs
    listed = {name: rows.tolist() for name, rows in groups.items()}
    removed = remove_groups(bank, [planted.behaviour], listed, runs, bench.progress)
    losses = bank.values([removed.first], [own_loss(planted.problem.ids)])[0]
    return removed.frame(planted.behaviour.names).assign(
        seed=seed, rows=[len(rows) for rows in groups.values()], with_all=removed.with_all.mean(),
        own_loss=[float(np.median(losses[rows])) for rows in groups.values()],
        of_all_rows=float(np.median(losses)),
    )  # fmt: skip


def _shown(attack: Attack, works: pd.DataFrame) -> Section:
    def row(one: pd.Series) -> list[str]:
        moved = one["mu"] <= -WORKS
        remark = (
            "" if one["group"] != TAUGHT else "it works" if moved else "it does not work: ranks say nothing"
        )
        return [
            str(one["seed"]), one["query"], f"{one['rows']} {one['group']}", f"{one['with_all']:.3f}",
            f"{one['with_all'] + one['effect']:.3f}", f"{one['mu']:.1f} ± {one['mu_se']:.1f}",
            f"{one['own_loss']:.3f}", remark,
        ]  # fmt: skip

    return Section(
        f"Whether it works: {attack}",
        ["seed", "query", "without", "trained on all rows", "without them", "moved by, in spreads",
         "their median own loss", "remark"],
        [row(one) for _, one in works.iterrows()],
        [
            "The query after training on all rows and without some, mean over trainings with seeds of their own. It "
            f"works if the query falls by at least {WORKS:g} of its spread over trainings without the rows that teach "
            "it. The look-alikes are twice as many. Median own loss of all rows: "
            f"{works.groupby('seed')['of_all_rows'].first().mean():.3f} nats.",
        ],
    )  # fmt: skip


def _found(
    attack: Attack,
    order: list[str],
    listed: dict[str, list[Answer]],
    scores: pd.DataFrame,
    recall: pd.DataFrame,
    planted: list[Planted],
    bench: Bench,
) -> Section:
    n, taught, alike = len(planted[0].problem.ids), planted[0].taught.sum(), planted[0].alike.sum()
    mean = None if recall.empty else recall.groupby(["method", "fraction"])["recall"].mean()
    return Section(
        f"Rows behind a hidden behaviour: {attack}",
        ["method", "average precision", "among look-alikes only", *(f"recall at {f:.0%}" for f in SHOWN), "remark"],
        [_row(m, listed[m], scores, recall) for m in order],
        [
            f"{bench.data.summary}; {n:,} rows. {WHAT[attack]} {taught} rows teach it; {alike} look-alikes bear the "
            "same patch in the first corner and are labelled right. Mean over seeds of data, classes, rows and "
            "training, with the least and the largest.",
            f"By chance: {taught / n:.2f}, among look-alikes {taught / (taught + alike):.2f}. Scores of rows by "
            "themselves rank the most suspect first.",
        ],
        None if mean is None else lines(
            [Line(m, [0.0, *mean[m].index], [0.0, *mean[m].to_numpy()])
             for m in order if m in mean.index.get_level_values(0)],
            "inspected fraction", "recall of the rows that teach it", f"Recall of the rows behind the {attack}",
        ),
    )  # fmt: skip


def _row(method: str, answers: list[Answer], scores: pd.DataFrame, recall: pd.DataFrame) -> list[str]:
    mine = scores[scores["method"] == method]
    if mine.empty:
        return [method, "", "", *("" for _ in SHOWN), not_measured(answers)]
    found = recall[recall["method"] == method]
    at = [mean_and_range(found[found["fraction"] == f]["recall"].tolist(), "{:.2f}".format) for f in SHOWN]
    by_itself = "scores rows by themselves, whatever is asked" if answers[0].kind == "rows" else ""
    return [
        method, mean_and_range(mine["average_precision"].tolist()),
        mean_and_range(mine["among_look_alikes"].tolist()), *at, not_measured(answers) or by_itself,
    ]  # fmt: skip


def _verdict(scores: pd.DataFrame, works: pd.DataFrame) -> str:
    if scores.empty:
        return "No method could be asked"
    said = []
    for attack in ATTACKS:
        mine = works[(works["attack"] == attack) & (works["group"] == TAUGHT)]
        count = int((mine["mu"] <= -WORKS).sum())
        each = scores[scores["attack"] == attack].groupby("method")["average_precision"]
        mean = each.mean()[each.size() == each.size().max()]  # of methods that answered for all seeds
        best = [m for m in mean.index if mean[m] == mean.max()]
        beside = f", by own loss {mean['own-loss']:.3f}" if "own-loss" in mean.index.difference(best) else ""
        found = f"{' and '.join(best)}, average precision {mean.max():.3f}{beside}"
        said.append(f"{attack} (works in {count} of {len(mine)}): {found}")
    return f"The rows behind a hidden behaviour are found best by: {'; '.join(said)}"
