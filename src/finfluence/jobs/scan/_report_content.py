"""The page of a scan: verdict, qualifications, the rows themselves, before and after, and how it was made."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from finfluence.evaluate import jaccard, jaccard_by_chance, top_ids
from finfluence.ingest import Table as Rows
from finfluence.jobs._words import counted
from finfluence.jobs.scan._check_words import CLEANED, check_sentence
from finfluence.jobs.scan._decisions import Decided
from finfluence.jobs.scan._estimate import Estimate
from finfluence.jobs.scan._folder import CHOICE
from finfluence.jobs.scan._options import HELD_OUT, OWN
from finfluence.jobs.scan._tables import networks_tried
from finfluence.jobs.scan._words import about_wrong
from finfluence.labels import by_doubt
from finfluence.report import (
    Agreement,
    Arm,
    Cleaning,
    Difference,
    Measure,
    Metric,
    Origin,
    Point,
    Preview,
    ReportContent,
    RowEntry,
    Table,
    finding,
    thumbnail,
)
from finfluence.report import Verification as Section
from finfluence.result import Influence, distribution, meaning, query_infos, row_entries
from finfluence.stats import RowTest, name_rows
from finfluence.verification import Verification

SHOWN, SHOWN_FURTHER = 250, 50


def content(
    run: Mapping[str, Any],
    train: Rows,
    estimate: Estimate,
    decided: Decided,
    verdict: str,
    findings: list[tuple[str, str]],
    proof: Mapping[str, Any] | None,
    tested: Mapping[str, Any] | None,
    command: str,
    verification: Verification | None = None,
    labels: Mapping[str, Any] | None = None,
    of_groups: Sequence[Table] = (),
) -> ReportContent:
    """Return everything that the report shows."""
    influence = estimate.influence
    rows: list[RowEntry] = []
    distributions = []
    previews: dict[int, Preview] = {}
    for name in influence.queries:
        rows += _rows(influence, name, decided.lines, train, previews)
        if name != OWN:
            distributions += distribution(influence.data, name, _threshold(decided, name, influence))
    tables = [*of_groups, *_recalls(proof), *networks_tried(run.get(CHOICE)), *_models_tried(labels)]
    tables += [*_review(labels, decided.lines)]
    tables += [*_agreement(estimate, train.ids), *_self_test(tested)]
    tables += _columns(train.column_decisions)
    source = run["options"]["source"]
    target = run["options"]["target"]
    return ReportContent(
        title=f"{str(source).rsplit('/', 1)[-1]}" + (f", target “{target}”" if target else ""),
        verdict=verdict,
        queries=query_infos(influence.data, influence.queries),
        rows=tuple(rows),
        findings=tuple(finding(code, text) for code, text in findings),
        meaning=meaning(influence.data, influence.queries),
        distributions=tuple(distributions),
        cleaning=_cleaning(proof),
        verification=None if verification is None else verification_section(verification),
        tables=tuple(tables),
        origin=Origin(facts=_facts(run, influence), command=command),
        level=influence.provenance.level,
    )


def agreement(each: np.ndarray, ids: np.ndarray) -> dict[str, Any] | None:
    """Return how far the runs agree: Jaccard index of their k most harmful rows, and Spearman, over all pairs."""
    if len(each) < 2:
        return None
    k = max(1, min(100, len(ids) // 10))
    pairs = list(itertools.combinations(range(len(each)), 2))
    tops = [top_ids(one, ids, k) for one in each]
    return {
        "k": k,
        "jaccard": float(np.mean([jaccard(tops[a], tops[b]) for a, b in pairs])),
        "chance": jaccard_by_chance(k, len(ids)),
        "spearman": float(np.mean([spearmanr(each[a], each[b])[0] for a, b in pairs])),
    }


def preview_of(train: Rows, i: int) -> Preview:
    """Return what row `i` looks like."""
    shown = train.preview(i)
    if "image" in shown:
        return Preview(image_png=thumbnail(np.ascontiguousarray(shown["image"])))
    return Preview(cells=shown["cells"])


def short_previews(train: Rows, lines: pd.DataFrame, most: int = 2_000) -> pd.DataFrame:
    """Return a few words on the named rows, the most doubtful labels and the strongest rows, for the terminal."""
    doubtful = set(review_list(lines, SHOWN)["row_id"])
    order = lines.assign(_far=lines["mu"].abs(), _doubtful=lines["row_id"].isin(doubtful)).sort_values(
        ["flagged", "_doubtful", "_far"], ascending=False, kind="stable"
    )
    ids = order["row_id"].drop_duplicates().head(most)
    at = pd.Index(train.ids).get_indexer(ids)
    return pd.DataFrame(
        {"row_id": ids.astype(str).to_numpy(), "preview": [_short(train, int(i)) for i in at]}
    )


def review_list(lines: pd.DataFrame, top: int) -> pd.DataFrame:
    """Return the rows with the most doubtful labels, one line each, in the order of `finfluence.labels.by_doubt`."""
    rows = lines[(lines["query"] == HELD_OUT) & lines["oof_loss"].notna()]
    first = by_doubt(rows["p_wrong"].to_numpy(), rows["oof_loss"].to_numpy())[:top]
    return rows.iloc[first].reset_index(drop=True)


def _models_tried(labels: Mapping[str, Any] | None) -> list[Table]:
    if labels is None:
        return []
    classes = labels["task"] == "classification"
    return [
        Table(
            title="Models on rows that they had not seen",
            columns=("model", "log loss" if classes else "absolute error", "standard error")
            + (("accuracy",) if classes else ())
            + ("used",),
            rows=tuple(
                (s["name"], s["loss"], s["se"])
                + ((s["accuracy"],) if classes else ())
                + ("yes" if s["name"] in labels["used"] else "",)
                for s in labels["scores"]
            ),
            note="Every row is predicted by models trained on other folds. Labels are judged by the average of the "
            "used ones; if the constant one is best, no label is judged.",
        )
    ]


def _review(labels: Mapping[str, Any] | None, lines: pd.DataFrame) -> list[Table]:
    if labels is None or not labels["told"]:
        return []
    low, high = labels["expected_wrong"]
    rows = review_list(lines, labels["listed"])
    return [
        Table(
            title="Labels for review, the most doubtful first",
            columns=("row", "label", "models say", "chance that it is wrong", "out-of-fold loss", "action"),
            rows=tuple(
                (
                    str(line["row_id"]),
                    str(line["label"]),
                    str(line["predicted"]),
                    float(line["p_wrong"]),
                    float(line["oof_loss"]),
                    str(line["suggested_action"]),
                )
                for line in rows.to_dict("records")
            ),
            note=f"Of these {counted(len(rows), 'label')} {about_wrong(round(low), round(high))}. {labels['planted']}",
        )
    ]


def _short(train: Rows, i: int) -> str:
    if train.pictures is not None:
        return str(train.ids[i]) if train.source.format == "folder" else "image"
    cells = train.preview(i, max_cells=8, max_text=40)["cells"]
    return ", ".join(
        f"… {v}" if k == "…" else f"{k}={v}" for k, v in cells.items() if k not in train.shown_first
    )


def _rows(
    influence: Influence, name: str, lines: pd.DataFrame, train: Rows, previews: dict[int, Preview]
) -> list[RowEntry]:
    frame = lines[lines["query"] == name].reset_index(drop=True)
    harm = influence.harm(name)
    at = pd.Index(influence.subsets).get_indexer(frame["row_id"])
    entries = row_entries(
        frame,
        harm[at],
        SHOWN if name == HELD_OUT else SHOWN_FURTHER,
        action=frame["suggested_action"].tolist(),
        reason=frame["reason"].tolist(),
        label=[str(v) for v in frame["label"]],
        suggested_label=["" if v is None or v != v else str(v) for v in frame["suggested_label"]],
        group=frame["group"].tolist(),
        preview=_Lazy(train, at, previews),
    )
    return entries


class _Lazy:
    """Previews by line, made only for the rows that are shown."""

    def __init__(self, train: Rows, at: np.ndarray, made: dict[int, Preview]) -> None:
        self._train, self._at, self._made = train, at, made

    def __getitem__(self, line: int) -> Preview:
        row = int(self._at[line])
        if row not in self._made:
            self._made[row] = preview_of(self._train, row)
        return self._made[row]


def _threshold(decided: Decided, name: str, influence: Influence) -> float:
    """Return the least harmfulness on a query that was named because of it."""
    lines = decided.lines[decided.lines["query"] == name]
    test = RowTest(name, influence.harm(name), q_values=lines["q_influence"].to_numpy())
    return name_rows([test], decided.decisions.fdr, paid=decided.decisions.tests).thresholds[0]


def verification_section(done: Verification) -> Section:
    """Return estimate against truth: every pair, the figures, and how many trainings that took."""
    several = len(done.made["queries"]) > 1
    points = tuple(
        Point(
            label=f"{p['subset']}, {p['size']} rows" + (f", {p['query']}" if several else ""),
            estimated=float(p["estimate"]),
            estimated_lower=float(p["estimate_lower"]),
            estimated_upper=float(p["estimate_upper"]),
            retrained=float(p["truth"]),
            retrained_lower=float(p["truth_lower"]),
            retrained_upper=float(p["truth_upper"]),
            kind=cast(Any, p["kind"]),
        )
        for p in done.to_frame().to_dict("records")
    )
    made = done.made
    return Section(
        sentence=done.sentence,
        verdict=done.verdict,
        points=points,
        slope=done.figure("slope").value,
        figures=tuple(
            Agreement(
                name=f.name, value=f.value, lower=f.lower, upper=f.upper, best=f.best, meaning=f.meaning
            )
            for f in done.figures
        ),
        note=f"{made['trainings']:,} trainings: {made['runs_with']:,} on all rows and {made['runs']:,} without each of "
        f"{made['subsets']} subsets of {made['rows_each']} rows, taken from the top, the bottom and the middle of the "
        f"estimate and at random. What varied between them: {', '.join(made['covers'])}. “At best” is what a perfect "
        "estimate would reach: the retrained values are noisy themselves."
        + "".join(f" {text[:1].upper()}{text[1:]}." for text in done.findings),
    )


def _agreement(estimate: Estimate, ids: np.ndarray) -> list[Table]:
    found = agreement(estimate.each, ids)
    if found is None:
        return []
    return [
        Table(
            title="Agreement between the single runs",
            columns=("figure", "mean over pairs of runs", "by chance"),
            rows=(
                (
                    f"share of common rows among the {found['k']} most harmful (Jaccard)",
                    found["jaccard"],
                    found["chance"],
                ),
                ("rank correlation of μ over all rows (Spearman)", found["spearman"], 0.0),
            ),
            note="How alike single trainings rank the rows on the held-out loss; the decisions use all of them pooled. "
            "Agreement alone does not prove that a ranking is right.",
        )
    ]


def _columns(decisions: pd.DataFrame | None) -> list[Table]:
    if decisions is None:
        return []
    shares = ("missing", "unreadable", "holdout_lost")
    return [
        Table(
            title="How each column was read",
            columns=(
                "column",
                "read as",
                "format",
                "missing",
                "unreadable",
                "lost in hold-out",
                "used as",
                "note",
            ),
            rows=tuple(
                tuple(
                    f"{100 * v:.3g} %" if k in shares and v else "" if k in shares else str(v)
                    for k, v in line.items()
                )
                for line in decisions.head(SHOWN).to_dict("records")
            ),
            note="Missing and unreadable: shares of the training cells. Lost in hold-out: cells there that cannot be "
            "read as in training, or are levels that training does not know.",
        )
    ]


def _self_test(tested: Mapping[str, Any] | None) -> list[Table]:
    if tested is None:
        return []
    kinds = [
        ("rows that differ from their own copy", "rejected", "pairs", f"{100 * tested['level']:.3g} %"),
        (
            "copies of unnamed rows that are named",
            "named_copies",
            "copies",
            f"at most {100 * tested['fdr']:.3g} %",
        ),
        ("held-out rows put into the training that are named", "named_swaps", "swaps", "as training rows"),
    ]
    rows = tuple(
        (
            what,
            tested[count],
            tested[of],
            *(tested[f"{count}_rate"][k] for k in ("value", "lower", "upper")),
            expected,
        )
        for what, count, of, expected in kinds
        if tested[of]
    )
    return [
        Table(
            title="Self-test: planted neutral rows",
            columns=("what", "count", "of", "rate", "lower", "upper", "expected"),
            rows=rows,
            note=f"{tested['sentence']} The planted rows took part in trainings of their own; the results above are "
            "untouched.",
        )
    ]


def _cleaning(proof: Mapping[str, Any] | None) -> Cleaning | None:
    if proof is None or not proof["arms"]:
        return None
    return Cleaning(
        sentence=check_sentence(proof),
        metrics=tuple(Metric(**m) for m in proof["metrics"]),
        arms=tuple(
            Arm(name=a["name"], runs=a["runs"], values={k: Measure(**v) for k, v in a["values"].items()})
            for a in proof["arms"]
        ),
        differences=tuple(Difference(**d) for d in proof["differences"]),
    )


def _recalls(proof: Mapping[str, Any] | None) -> list[Table]:
    """Return the recall of each class before and after cleaning; none for a regression or an earlier version's scan."""
    lines = [] if proof is None else proof.get("recall", [])
    if not lines:
        return []
    return [
        Table(
            title="Recall of each class, before and after cleaning",
            columns=("class", "held-out rows", "original", "cleaned", "change", "lower", "upper", "verdict"),
            rows=tuple(
                (
                    line["class"],
                    line["rows"],
                    line["arms"]["original"]["value"],
                    line["arms"]["cleaned"]["value"],
                    *(line["changes"][CLEANED][k] for k in ("value", "lower", "upper")),
                    _says(line["changes"][CLEANED]),
                )
                for line in lines[:SHOWN]
            ),
            note="The share of a class's held-out rows that is predicted as that class, mean over trainings. Intervals "
            "are over trainings and held-out rows, at 5 % over all classes together.",
        )
    ]


def _says(change: Mapping[str, float]) -> str:
    if change["lower"] * change["upper"] <= 0:
        return "not told apart"
    return "better" if change["value"] > 0 else "worse"


def _facts(run: Mapping[str, Any], influence: Influence) -> dict[str, Any]:
    data, training = run["data"], run["training"]
    made = influence.provenance
    optimizer = training["optimizer"]
    horizon = ", ".join(str(h) for h in sorted(set(made.horizon or ())))
    return {
        "data": f"{data['train_rows']:,} training rows, {data['asked_rows']:,} held-out rows asked, "
        f"{data['judging_rows']:,} held-out rows that judge",
        "digest of the data": data["source"]["digest"][:16],
        "task": data["task"],
        "model": f"{training['model']}, {training['parameters']:,} parameters",
        "training": f"{optimizer['name']} at {optimizer['lr']:g}, {training['epochs']} epochs, batches of "
        f"{training['batch_size']}, {training['steps']:,} steps",
        "method": f"replay, {made.method}",
        "horizon": f"the last {horizon} of {training['epochs']} epochs",
        "training runs replayed": made.runs,
        **({"budget": run["budget"]["sentence"]} if run.get("budget") else {}),
        "randomness in the spread": ", ".join(made.covers),
        "seed": run["options"]["seed"],
        "versions": ", ".join(f"{k} {v}" for k, v in run["versions"].items()),
    }
