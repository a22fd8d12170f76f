"""The register of findings: every code there is, how grave it is, and what its page says."""

from dataclasses import dataclass

from finfluence.errors import ConfigError, explain
from finfluence.report._schema import Finding, Severity


@dataclass(frozen=True)
class FindingKind:
    """What a code stands for.

    Parameters
    ----------
    code : str
        "FI" and three digits.
    severity : {"error", "warning", "info"}
        How grave it is.
    title : str
        A few words.
    meaning : str
        What it says about the result.
    remedy : str
        What one can do.
    """

    code: str
    severity: Severity
    title: str
    meaning: str
    remedy: str

    @property
    def anchor(self) -> str:
        """Place on the page of findings in the documentation."""
        return self.code.lower()


FINDINGS = {
    kind.code: kind
    for kind in (
        FindingKind(
            "FI010",
            "info",
            "A note on the estimate",
            "The method says something about this estimate: what it could not cover, what it chose, or "
            "what it left out.",
            "Read the sentence. Where it names randomness that the spread leaves out, pool several training runs.",
        ),
        FindingKind(
            "FI011",
            "warning",
            "One step decides",
            "Of the variance of the slopes that effects and spread are made of, a single training step holds more than "
            "a fifth. With Adam it is often the first one: its update is nearly the sign of the gradient, and not "
            "linear on the scale of one row. The sentence says whether what each row changes was taken as it is, or "
            "its derivative was kept, and where not even that settles what a row does.",
            "Warm the learning rate up from zero. For rows that were used in a doubtful step, ask with "
            "groups='paired', which trains without them; or pool several runs, whose first batches differ.",
        ),
        FindingKind(
            "FI020",
            "warning",
            "A note on the decision",
            "The rule that names rows met something that qualifies its error rate: too few rows for an empirical null, "
            "values that are not finite, or a bulk that leans to the named side.",
            "With fewer than 50 rows p-values decide; ask for more rows, or hold the estimate against retraining by "
            "verify. A leaning bulk means that more of the named rows may be named wrongly than the rate says.",
        ),
        FindingKind(
            "FI021",
            "warning",
            "One training run",
            "The spread comes from one run: it covers the order of the batches, not the initialisation. Where every "
            "step saw all rows there is no such order, and no spread.",
            "Use several runs, for instance --runs 4, or pool the results of several tapes.",
        ),
        FindingKind(
            "FI022",
            "warning",
            "Columns read with a choice",
            "Columns were left out, more than a few cells were filled, cut or could not be read, or the spelling of "
            "numbers or dates was open.",
            "Look at the table of columns (finfluence scan FILE --columns), and write doubtful cells unambiguously.",
        ),
        FindingKind(
            "FI023",
            "info",
            "What naming labels rests on",
            "Labels are judged by models that have not seen the row. From one label a row an unlikely outcome and a "
            "wrong label cannot be told apart where classes overlap; where right labels contradict the models less and "
            "less often as these become surer, contradictions that fall more slowly, or no longer, are taken for wrong "
            "labels.",
            "Where classes are ambiguous by nature (ratings, incomes), look at the list for review before you change a "
            "label.",
        ),
        FindingKind(
            "FI024",
            "info",
            "Held-out rows left out",
            "The labels of held-out rows are judged like all others. Those that are named wrong, or are more likely "
            "wrong than right, take no part in the query and in the evaluation; holdout_labels.parquet lists all "
            "of them.",
            "Check these labels, and give the corrected rows by --holdout.",
        ),
        FindingKind(
            "FI025",
            "warning",
            "No label can be judged",
            "No model predicts rows that it has not seen better than a constant does, or there are too few rows to "
            "try: the label of no row is named wrong.",
            "Look at how the columns were read (finfluence scan FILE --columns), add columns that bear on the target, "
            "or more rows.",
        ),
        FindingKind(
            "FI026",
            "warning",
            "A bad source",
            "A group of rows carries more contradicted labels than the models' own doubts explain, or removing it "
            "lowers the loss on held-out rows of other groups; each at a level adjusted over all groups.",
            "Look at how the labels of that source were made; the rows named in it are the first ones to check. "
            "clean --group drops all of it, if training without it did no harm.",
        ),
        FindingKind(
            "FI027",
            "warning",
            "The network is no better than a constant",
            "In cross-validation the trained network predicts rows that it has not seen no better than a constant does "
            "(by two standard errors of the difference, row by row), or there are fewer than 20 rows to try: "
            "what it learned is noise, and its influence names no row.",
            "Look at how the columns were read (finfluence scan FILE --columns), add columns or rows, or name a model "
            "that suits the data by --model.",
        ),
        FindingKind(
            "FI028",
            "info",
            "Why influence names nothing",
            "Whether the network learned doubtful labels by heart, and how large the effect of a row would have had to "
            "be to be named.",
            "Ask for more runs (--runs 8) to see smaller effects; look at the list for review (finfluence show FOLDER "
            "--review) for doubtful labels.",
        ),
        FindingKind(
            "FI029",
            "warning",
            "Extremes that chance explains",
            "Of many effects that differ by little more than their errors, the largest are those whose errors are "
            "largest. Of the rows that are strongest on this query more than a quarter is expected to have no such "
            "effect, or the opposite one.",
            "Do not act on single rows of the top. Pool several runs (their errors average out), ask about groups, or "
            "hold the estimate against retraining by verify.",
        ),
        FindingKind(
            "FI030",
            "info",
            "What was done to the data",
            "Reading the data needed a choice: columns were left out or converted, missing values "
            "filled, rows removed.",
            "Check that the choice is the one that you would make, else prepare the columns yourself.",
        ),
        FindingKind(
            "FI040",
            "warning",
            "The same rows decide and judge",
            "The held-out rows that judge the cleaning (of a tuning: the prompts) also decided about it: before and "
            "after look better than they are.",
            "Give more held-out rows, so that they can be halved; of a tuning, other prompts (decide --behaviour).",
        ),
        FindingKind(
            "FI041",
            "warning",
            "Trainings that diverged",
            "Some trainings of the retraining check, or of decide, ended without finite numbers and were left out.",
            "Lower the learning rate, or read the check with more caution.",
        ),
        FindingKind(
            "FI042",
            "warning",
            "Surer, not better",
            "Cleaning raised the held-out loss but did not lower the accuracy: the models became surer "
            "of themselves, and "
            "held-out rows with wrong labels now cost more.",
            "Give held-out rows whose labels were checked.",
        ),
        FindingKind(
            "FI043",
            "warning",
            "The self-test failed",
            "Neutral rows that were planted on purpose were named more often than the error rate allows.",
            "Do not act on the named rows. Use more runs or another method, and test again.",
        ),
        FindingKind(
            "FI044",
            "warning",
            "First order only",
            "An effect is that of first order, and this run shows that it is not the whole: tuning again without the "
            "rows moved the behaviour by something else, or the rows were learned by heart, so that the gradient of "
            "each of them vanished while all of them together still teach the same. First order understates groups of "
            "near-duplicates.",
            "Believe what tuning again measured. What was not measured is a sign, not a size: verify it, or tune again "
            "without that source.",
        ),
        FindingKind(
            "FI045",
            "info",
            "A recommendation that rests on few questions",
            "What to do with the rows of a tuning was judged by a behaviour of a single text, whose interval holds for "
            "other trainings and not for other texts, or without asking how the model does otherwise.",
            "Write more prompts a behaviour, and add a behaviour of kind held_out with rows of the model's other use.",
        ),
        FindingKind(
            "FI050",
            "error",
            "Retraining contradicts the estimate",
            "Groups of rows were removed and the model was trained again many times: the estimate does "
            "not predict what "
            "happens.",
            "Do not use the ranking. Retraining itself, or pairs of runs for groups, gives the truth at a higher cost.",
        ),
        FindingKind(
            "FI051",
            "warning",
            "Retraining did not settle it",
            "Groups of rows were removed and the model was trained again, too few times to tell "
            "whether the estimate is "
            "right.",
            "Verify with more trainings; finished ones are kept and used again.",
        ),
        FindingKind(
            "FI052",
            "info",
            "Retraining settled the order, not the size",
            "Groups of rows, or single ones, were removed and the model was trained again: the estimate orders them "
            "rightly; by what its effects have to be multiplied, these trainings do not tell.",
            "Use the ranking. Verify with more subsets if the size of effects matters; finished trainings are used "
            "again.",
        ),
        FindingKind(
            "FI060",
            "info",
            "Accuracy without labels is an estimate",
            "How right a model is on rows without labels is read from how sure it is of them, by what labelled rows "
            "taught. No such estimate can hold for every shift: classes whose shares changed and new classes break it.",
            "Label some of the new rows, a hundred say, and give them by --holdout.",
        ),
        FindingKind(
            "FI061",
            "warning",
            "The file without labels is read with losses",
            "Cells of the file without labels could not be read as in training, are unknown or missing there, or lie "
            "far outside: the model sees less of these rows than of those that it was judged by.",
            "Export the file as the training file was, or map the new spellings to the old ones.",
        ),
        FindingKind(
            "FI062",
            "warning",
            "A sign that accuracy without labels cannot hold",
            "Something on the rows without labels is not as on the labelled ones: other shares of predicted classes, "
            "rows that the model is less sure of than of any labelled one, or rows unlike all that it has seen.",
            "Do not trust the estimate before some of these rows were labelled.",
        ),
    )
}


def finding(code: str, text: str) -> Finding:
    """Return a finding of a registered code, with the severity that the register gives it.

    Parameters
    ----------
    code : str
        One of `FINDINGS`.
    text : str
        What was found here.

    Returns
    -------
    Finding

    Raises
    ------
    ConfigError
        The code is not registered.

    Examples
    --------
    >>> finding("FI050", "The order is not to be trusted.").severity
    'error'
    """
    if code not in FINDINGS:
        raise ConfigError(
            explain(
                f"a registered code of a finding: {', '.join(FINDINGS)}",
                repr(code),
                "a new finding that was not registered, or a file of another version",
                "register it in finfluence.report with its severity, title, meaning and remedy",
            )
        )
    return Finding(code=code, severity=FINDINGS[code].severity, text=text)


def findings_page() -> str:
    """Return the page of the documentation that explains every code, as Markdown.

    Returns
    -------
    str

    Examples
    --------
    >>> findings_page().splitlines()[0]
    '# Findings'
    """
    parts = [
        "# Findings",
        "A finding qualifies a result. Its code stands in the report, in `scan.json` and in the "
        "terminal; this page says "
        "what each code means and what to do.",
    ]
    for kind in FINDINGS.values():
        parts += [
            f"## {kind.code}: {kind.title} {{#{kind.anchor}}}",
            f"*Severity: {kind.severity}.* {kind.meaning}",
            f"**What to do.** {kind.remedy}",
        ]
    return "\n\n".join(parts) + "\n"
