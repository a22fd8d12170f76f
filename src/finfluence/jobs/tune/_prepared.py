"""What a tuning works with: rows as tokens, the model with its adapters, the recipe, the queries."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from finfluence._files import digest
from finfluence._seeds import torch_seed
from finfluence.errors import DataError, NotSupportedError, StorageError, explain
from finfluence.jobs.tune._folder import HIDDEN
from finfluence.jobs.tune._options import TuneOptions
from finfluence.language import (
    ALL,
    Behaviour,
    EncodedRows,
    Fields,
    LoraOptions,
    Prefix,
    TextRows,
    Window,
    add_lora,
    begins_answers,
    check_texts,
    encode,
    load_model,
    mean_token_loss,
    read_behaviours,
    read_records,
    sum_token_loss,
    through,
)
from finfluence.runs import AdamW, Query, Recipe
from finfluence.runs.describe import checksums

WEIGHT_DECAY = 0.0


@dataclass(frozen=True, eq=False)
class Texts:
    """What the files say.

    Attributes
    ----------
    texts : list
        Pairs or conversations of the rows that are trained on.
    groups : array of str [n] or None
    digests : mapping
        Of the data and of the file of behaviours.
    notes : list of str
        What was cut or left out.
    """

    texts: list[Any]
    groups: np.ndarray | None
    behaviours: list[Behaviour]
    digests: dict[str, str]
    notes: list[str]


@dataclass(frozen=True, eq=False)
class Prepared:
    """Everything before the first training.

    Attributes
    ----------
    model : PeftModel
        Whole, with adapters that change nothing yet.
    recipe : Recipe
        Of the trained part alone, where the layers below are computed once.
    trained : _Trained
        What of it is trained: with the names of the parameters, and those that they have in `model`.
    """

    texts: Texts
    tokenizer: Any
    model: Any
    recipe: Recipe
    trained: "_Trained"

    @property
    def rows(self) -> TextRows:
        """The rows that are trained on."""
        return self.trained.rows

    @property
    def queries(self) -> list[Query]:
        """The behaviours."""
        return self.trained.queries

    def order_seed(self, seed: int, run: int) -> int:
        """Return the seed of the batch order of a run."""
        return torch_seed(seed, "order of run", run) % 2**31

    def described(self) -> dict[str, Any]:
        """Return what the numbers depend on, beside the options, as plain values."""
        weights = checksums((n, p) for n, p in self.model.named_parameters())
        return {
            "rows": len(self.rows),
            "tokens": int(sum(len(e) for e in self.rows.encoded)),
            "shapes": [list(self.rows.shapes.lengths), [list(r) for r in self.rows.shapes.responses]],
            "data_digest": self.texts.digests["data"],
            "behaviours_digest": self.texts.digests["behaviours"],
            "model_digest": digest(repr(sorted(weights.items())).encode()),
            "trained": int(sum(p.numel() for p in self.model.parameters() if p.requires_grad)),
            "frozen_layers": self.trained.frozen_layers,
            "recipe_digest": self.recipe.digest(),
            "behaviours": [b.name for b in self.texts.behaviours],
        }


def fields_of(options: TuneOptions) -> Fields:
    """Return the names of a row's fields."""
    return Fields(
        options.prompt_field,
        options.response_field,
        options.messages_field,
        options.id_field,
        options.group_field,
    )


def prepare(options: TuneOptions, folder: Path, behaviours: list[Behaviour] | None = None) -> Prepared:
    """Read the files, load the model and describe the training; `behaviours`: others than those of the options' file.

    Returns
    -------
    Prepared

    Raises
    ------
    DataError
        The rows cannot be used: a field is missing, a response empty, a text too long.
    ConfigError
        The behaviours, the model's folder or the adapters' targets are not what they should be.
    NotSupportedError
        The model is none that can be tuned here.
    """
    fields = fields_of(options)
    records = read_records(Path(options.data), fields)
    asked = read_behaviours(Path(options.behaviour), fields) if behaviours is None else behaviours
    given = Path(options.behaviour).read_bytes() if behaviours is None else repr(behaviours).encode()
    loaded = load_model(options.model, options.dtype)
    window = Window(options.max_length, options.too_long)  # type: ignore[arg-type]
    found = encode(records.texts, loaded.tokenizer, records.ids, window)
    rows = _rows(found, records.ids, options)
    queries = [b.query(loaded.tokenizer, window) for b in asked]
    check_texts(loaded.model, rows, *queries)
    lora = LoraOptions(
        rank=options.lora_rank,
        targets=options.lora_targets,
        layers=options.layers,
        seed=torch_seed(options.seed, "adapters") % 2**31,
    )
    model = add_lora(loaded.model, lora)
    notes = [*found.sentences(window), *_template_note(loaded.tokenizer, options)]
    names = {n: n for n, p in model.named_parameters() if p.requires_grad}
    trained = _above(_Trained(model, rows, queries, names), options, folder / HIDDEN, notes)
    groups = (
        None
        if records.groups is None
        else np.array([records.groups[p] for p in found.positions], dtype=object)
    )
    digests = {
        "data": digest(records.content),
        "behaviours": digest(given),
    }
    recipe = Recipe(
        data=trained.rows,
        model=trained.model,
        loss=mean_token_loss if options.loss == "mean" else sum_token_loss,
        optimizer=AdamW(lr=options.lr, weight_decay=WEIGHT_DECAY),
        batch_size=options.batch_size,
        epochs=options.epochs,
        schedule="cosine",
    )
    texts = Texts([records.texts[p] for p in found.positions], groups, asked, digests, notes)
    return Prepared(texts, loaded.tokenizer, model, recipe, trained)


def check_data(run: Mapping[str, Any]) -> None:
    """Raise DataError unless the rows are those that were tuned on."""
    path = Path(run["options"]["data"])
    try:
        now = digest(path.read_bytes())
    except OSError as error:
        now = str(error.strerror)
    if now != run["data"]["data_digest"]:
        raise DataError(
            explain(
                f"{path} with the content that was tuned on (hash {run['data']['data_digest']})",
                now,
                "the file was changed, moved or removed since",
                "restore it, or tune again into another folder",
            )
        )


def check_model(run: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise StorageError unless model, behaviours and training are those that were tuned with."""
    then = run["data"]
    differing = [
        key for key in ("model_digest", "behaviours_digest", "recipe_digest") if then[key] != now[key]
    ]
    if differing:
        raise StorageError(
            explain(
                "the model, the behaviours and the training that were tuned with",
                f"others ({', '.join(differing)})",
                "the model's folder or the file of behaviours was changed, or another version makes other tokens",
                "tune again into another folder, and go on with that",
            )
        )


def _rows(found: EncodedRows, ids: list[Any], options: TuneOptions) -> TextRows:
    if len(found.rows) < max(2, options.batch_size):
        raise DataError(
            explain(
                f"at least one batch of rows ({max(2, options.batch_size)})",
                f"{len(found.rows)} rows" + (f", {len(found.dropped)} left out" if found.dropped else ""),
                "a short file, or most rows are longer than the window",
                f"lower --batch-size to {max(1, len(found.rows) // 4)}, or raise --max-length",
            )
        )
    return TextRows(found.rows, [ids[p] for p in found.positions], batch_size=options.batch_size)


def _template_note(tokenizer: Any, options: TuneOptions) -> list[str]:
    if not getattr(tokenizer, "chat_template", None):
        if options.messages_field is not None:
            return []
        return [
            "The tokenizer has no chat template: a row is its prompt followed by its response, as they stand."
        ]
    if begins_answers(tokenizer):
        return []
    return [
        "The chat template begins no answer (it takes no notice of add_generation_prompt): what it writes before an "
        "answer, such as the name of the role, is learned and measured with it."
    ]


@dataclass(frozen=True, eq=False)
class _Trained:
    """What is trained, with rows and queries to match."""

    model: nn.Module
    rows: TextRows
    queries: list[Query]
    names: dict[str, str]
    frozen_layers: int = 0


def _above(whole: _Trained, options: TuneOptions, folder: Path, notes: list[str]) -> _Trained:
    """Return what lies above the frozen layers, if some are and the model can be entered there."""
    if options.layers == ALL:
        return whole
    try:
        prefix = Prefix(whole.model, folder)
    except NotSupportedError as error:
        notes.append(f"Frozen layers are computed again at every step: {str(error).splitlines()[1].strip()}.")
        return whole
    return _Trained(
        prefix.upper,
        whole.rows.through(prefix),
        [through(q, prefix) for q in whole.queries],
        prefix.names,
        prefix.layers,
    )
