"""What the check by retraining says: what was measured, which way it went, and whether it is harm."""

from collections.abc import Mapping, Sequence
from typing import Any

from finfluence.jobs._words import between, change, counted

CLEANED, RANDOM = "cleaned − original", "random removals − original"
MOST_RECALL_LOST = 0.1
_SHARES = ("accuracy", "recall")
_SHOWN = 3


def check_sentence(check: Mapping[str, Any] | None) -> str:
    """Say what cleaning did to each measure on held-out rows, beside random removal.

    Parameters
    ----------
    check
        Content of `proof.json`, or None.

    Returns
    -------
    str
    """
    if check is None:
        return ""
    if not check["arms"]:
        return "The trainings of the retraining check diverged: nothing can be said about the effect of cleaning."
    rows, random = counted(check["changed_rows"], "row"), counted(check["changed_rows"], "random row")
    return (
        f"Trained again, {check['arms'][0]['runs']} times each (95 % intervals over trainings and held-out rows): "
        f"cleaning {rows} {measured(check, CLEANED)}. "
        f"Removing {random} instead {_of_loss(check, RANDOM)}."
    )


def measured(check: Mapping[str, Any], pair: str) -> str:
    """Return what one version did to each measure against another: what changed first, then what did not.

    Returns
    -------
    str
    """
    found = {d["metric"]: d for d in check["differences"] if d["name"] == pair}
    words, still = [], []
    for metric in check["metrics"]:
        name, of = metric["name"], found[metric["name"]]
        if name == "held-out bounded loss":
            continue
        if of["lower"] * of["upper"] > 0:
            words.append(change(name, of, scale=_scale(name), unit=_unit(metric)))
        else:
            still.append(f"the {name} ({between(of, scale=_scale(name), unit=_unit(metric))})")
    recall = _recalls(check.get("recall", ()), pair)
    if check.get("recall") and not recall:
        still.append("the recall of any class")
    if still:
        several = f"{', '.join(still[:-1])} or {still[-1]}" if len(still) > 1 else still[0]
        recall.append(f"does not measurably change {several}")
    return "; ".join([*words, *recall])


def harms(check: Mapping[str, Any] | None, pair: str = CLEANED) -> list[str]:
    """Return what a version surely made worse on held-out rows, in words; nothing where it did no harm.

    Harm is a loss that surely rises while the accuracy does not surely rise; an accuracy or a balanced accuracy that
    surely falls; and the recall of a class that surely falls (at 5 % over all classes), unless the balanced accuracy
    surely rises and the fall is less than ten points.

    Returns
    -------
    list of str

    Examples
    --------
    >>> up, down = {"value": 0.15, "lower": 0.1, "upper": 0.2}, {"value": -0.15, "lower": -0.2, "upper": -0.1}
    >>> loss, accuracy = ({"metric": f"held-out {m}", "name": CLEANED} for m in ("log loss", "accuracy"))
    >>> metrics = [{"name": "held-out log loss"}, {"name": "held-out accuracy"}]
    >>> harms({"metrics": metrics, "differences": [{**loss, **up}, {**accuracy, **down}]})
    ['raises the held-out log loss by 0.15 [0.1, 0.2]', 'lowers the held-out accuracy by 15 [10, 20] points']
    >>> harms({"metrics": metrics, "differences": [{**loss, **up}, {**accuracy, **up}]}), harms(None)
    ([], [])
    """
    if check is None or not check["differences"]:
        return []
    found = {d["metric"]: d for d in check["differences"] if d["name"] == pair}
    loss = check["metrics"][0]["name"]
    rises = {name: d["lower"] > 0 for name, d in found.items()}
    words = []
    if rises[loss] and not rises.get("held-out accuracy", False):
        words.append(change(loss, found[loss]))
    for name in ("held-out accuracy", "held-out balanced accuracy"):
        if name in found and found[name]["upper"] < 0:
            words.append(change(name, found[name], scale=100, unit="points"))
    balanced = rises.get("held-out balanced accuracy", False)
    for line in check.get("recall", ()):
        difference = line["changes"][pair]
        if difference["upper"] < 0 and not (balanced and difference["value"] > -MOST_RECALL_LOST):
            words.append(_recall(line, pair))
    return words


def harmed(check: Mapping[str, Any] | None, pair: str = CLEANED) -> bool:
    """Return whether a check shows harm, as `harms` says it."""
    return bool(harms(check, pair))


def surer(check: Mapping[str, Any]) -> bool:
    """Return whether cleaning surely raised the held-out loss of a classification without lowering its accuracy."""
    found = {d["metric"]: d for d in check["differences"] if d["name"] == CLEANED}
    loss = found.get(check["metrics"][0]["name"])
    accuracy = found.get("held-out accuracy")
    return loss is not None and accuracy is not None and loss["lower"] > 0 and accuracy["upper"] > 0


def _of_loss(check: Mapping[str, Any], pair: str) -> str:
    loss = check["metrics"][0]["name"]
    found = next(d for d in check["differences"] if d["metric"] == loss and d["name"] == pair)
    if found["lower"] * found["upper"] <= 0:
        return f"does not measurably change the {loss} ({between(found)})"
    return change(loss, found)


def _recalls(lines: Sequence[Mapping[str, Any]], pair: str) -> list[str]:
    """Return the classes whose recall surely changes, the largest change first."""
    sure = [line for line in lines if line["changes"][pair]["lower"] * line["changes"][pair]["upper"] > 0]
    sure.sort(key=lambda line: -abs(line["changes"][pair]["value"]))
    further = len(sure) - _SHOWN
    more = [f"changes the recall of {further:,} more classes (report)"] if further > 0 else []
    return [_recall(line, pair) for line in sure[:_SHOWN]] + more


def _recall(line: Mapping[str, Any], pair: str) -> str:
    return change(f"recall of “{line['class']}”", line["changes"][pair], scale=100, unit="points")


def _scale(name: str) -> float:
    return 100.0 if _is_share(name) else 1.0


def _is_share(name: str) -> bool:
    return any(word in name for word in _SHARES)


def _unit(metric: Mapping[str, Any]) -> str:
    if _is_share(metric["name"]):
        return "points"
    return "" if metric["unit"] == "nats" else str(metric["unit"])
