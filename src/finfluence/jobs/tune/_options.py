"""What a tuning is asked to do: options, checked before anything is read or written. Light to import."""

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from operator import le
from pathlib import Path
from typing import Any

from finfluence.errors import ConfigError, StorageError, explain
from finfluence.jobs._options import check, option

LOSSES = ("mean", "sum")
TOO_LONG = ("truncate", "drop", "refuse")
DTYPES = ("auto", "float32", "bfloat16")
_NOT_NUMBERS = ("out", "resume", "keep_tapes")


@dataclass(frozen=True, kw_only=True)
class TuneOptions:
    """Options of a tuning.

    Parameters
    ----------
    data
        JSON lines: a row a line.
    model
        Folder or name of a causal language model.
    out
        Folder for everything; nothing is written outside it.
    behaviour
        A file of behaviours (YAML).
    prompt_field, response_field, messages_field, id_field, group_field
        Names of the fields of a row; a conversation in place of prompt and response.
    lora_rank, lora_targets, layers, epochs, batch_size, lr
        The tuning: AdamW with a cosine schedule on adapters.
    loss
        Of a row: "mean" or "sum" over the tokens of its response.
    max_length, too_long
        Tokens of a row, and whether longer ones are cut ("truncate"), left out ("drop") or an error ("refuse").
    dtype
        Of the frozen weights; adapters are float32.
    runs
        Trainings to replay, each with a batch order of its own; adapters start from the same weights in all of them.
    budget
        What the estimate may cost in multiples of one training: `runs` × (training + replay). Ranking and retuning come
        on top.
    checkpoints
        States of the first run at which rows are ranked, each at the cost of one epoch.
    top
        Share of the rows, from the top of the ranking, that retuning takes out where nothing is named.
    retune
        Trainings without the rows that are taken out, without as many random ones, and with all; 0: none.
    answers
        Prompts of each behaviour that the model answers before and after; 0: none.
    fdr
        Accepted share of false names among named groups, and among named rows.
    seed
        Of adapters, batch orders, ranking and retuning.
    resume, keep_tapes
        Go on with an interrupted tuning; keep the recorded states.

    Raises
    ------
    ConfigError
        A name is unknown, or a number out of range.
    """

    data: str | os.PathLike[str] = option("JSON lines: one row a line.", flag="-")
    model: str = option("Folder or name of a causal language model (transformers).")
    out: str | os.PathLike[str] = option("Folder for all results (new or empty).", typed=Path)
    behaviour: str | os.PathLike[str] = option(
        "File of behaviours (YAML): what the model is asked.", typed=Path
    )
    prompt_field: str = option("Field with the prompt.", "prompt")
    response_field: str = option("Field with the response.", "completion")
    messages_field: str | None = option("Field with a conversation, in place of prompt and response.", None)
    id_field: str | None = option("Field with unique row ids; else row numbers from 0.", None, flag="--id")
    group_field: str | None = option("Field with the source: measured as a whole, too.", None, flag="--group")
    lora_rank: int = option("Rank of the adapters.", 16)
    lora_targets: str = option("auto (all linear layers) or names, separated by commas.", "auto")
    layers: str = option("all, or last:K for the K uppermost layers; the others are computed once.", "all")
    epochs: int = option("Passes over the rows.", 3)
    batch_size: int = option("Rows per step.", 8)
    lr: float = option("Learning rate, falling along a cosine.", 2e-4)
    loss: str = option("Loss of a row: mean or sum over the tokens of its response.", "mean")
    max_length: int = option("Tokens of a row, prompt and response together.", 512)
    too_long: str = option("Longer rows: truncate (cut, and counted), drop, or refuse.", "truncate")
    dtype: str = option("Of the frozen weights: auto, float32 or bfloat16.", "auto")
    runs: int = option("Trainings to record and replay; rows are named from several only.", 1)
    budget: float | None = option(
        "What the estimate may cost, in multiples of one training: to train and replay all runs.",
        None,
        shown="none",
        typed=str,
    )
    checkpoints: int = option("States at which rows are ranked; each costs one epoch.", 5)
    top: float = option("Share of the ranking that is taken out where nothing is named.", 0.05)
    retune: int = option("Trainings without the rows, without random ones, and with all; 0: none.", 3)
    answers: int = option("Prompts of each behaviour to answer before and after; 0: none.", 3)
    fdr: float = option("Accepted share of false names.", 0.1)
    seed: int = option("The same seed gives the same numbers.", 0)
    resume: bool = option("Go on with an interrupted tuning.", False)
    keep_tapes: bool = option("Keep the recorded states.", False)

    def __post_init__(self) -> None:
        for name, known in (("loss", LOSSES), ("too_long", TOO_LONG), ("dtype", DTYPES)):
            _one_of(getattr(self, name), known, name)
        least = (
            ("lora_rank", 1),
            ("epochs", 1),
            ("batch_size", 1),
            ("max_length", 2),
            ("runs", 1),
            ("retune", 0),
        )
        for name, smallest in (*least, ("checkpoints", 1), ("answers", 0), ("seed", 0)):
            check(self, name, f"a whole number of at least {smallest}", partial(le, smallest))
        check(self, "lr", "a positive number", lambda v: 0 < v < float("inf"))
        for name in ("fdr", "top"):
            check(self, name, "a number between 0 and 1, such as 0.1 for 10 %", lambda v: 0 < v < 1)
        if self.retune == 1:
            raise ConfigError(
                explain(
                    "--retune to be 0, or at least 2", "1", "one training has no interval", "use --retune 3"
                )
            )
        if self.budget is not None and not self.budget / self.runs > 1:
            raise ConfigError(
                explain(
                    f"--budget above {self.runs}, the number of runs: each is a training, and its replay comes on top",
                    f"{self.budget:g}",
                    "a budget that trainings alone use up",
                    f"write --budget {4 * self.runs}, or fewer --runs",
                )
            )

    @property
    def replay_budget(self) -> float | None:
        """What one replay may cost in training runs; None: no budget."""
        return None if self.budget is None else self.budget / self.runs - 1

    def described(self) -> dict[str, Any]:
        """Return what determines the numbers, as plain values; paths are absolute."""
        values = {k: v for k, v in asdict(self).items() if k not in _NOT_NUMBERS}
        for name in ("data", "behaviour"):
            values[name] = os.path.abspath(os.fspath(values[name]))
        if os.path.isdir(self.model):
            values["model"] = os.path.abspath(self.model)
        return values

    @classmethod
    def of_run(cls, run: Mapping[str, Any], out: Path) -> "TuneOptions":
        """Return the options that `described` described, from what run.yaml in `out` says.

        Returns
        -------
        TuneOptions

        Raises
        ------
        StorageError
            Options that this version does not have.
        """
        try:
            return cls(**run["options"], out=out)
        except (TypeError, KeyError) as error:
            raise StorageError(
                explain(
                    f"the options of a tuning in {out / 'run.yaml'}",
                    str(error),
                    "another version of finfluence made it, or the file was edited",
                    "tune again with this version into another folder",
                )
            ) from error


def _one_of(value: str, known: tuple[str, ...], name: str) -> None:
    if value not in known:
        raise ConfigError(
            explain(
                f"--{name.replace('_', '-')} to be one of {', '.join(known)}",
                repr(value),
                "a mistyped word",
                "use one of these",
            )
        )
