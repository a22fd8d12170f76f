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
    AS_OF,
    HELD_OUT,
    Behaviour,
    EncodedRows,
    Fields,
    LoraOptions,
    Prefix,
    TextRows,
    Window,
    add_lora,
    before_answers,
    check_texts,
    encode,
    load_model,
    mean_token_loss,
    read_behaviours,
    read_records,
    sum_token_loss,
    texts_of,
    through,
    writes_date,
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
    if behaviours is None:
        told_by = behaviours_digest(Path(options.behaviour), asked)
    else:
        told_by = digest(repr(behaviours).encode())
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
    notes += [*_special_notes(records.texts, loaded.tokenizer), *_repeated_notes(rows, queries)]
    names = {n: n for n, p in model.named_parameters() if p.requires_grad}
    trained = _above(_Trained(model, rows, queries, names), options, folder / HIDDEN, notes)
    groups = None if records.groups is None else _groups([records.groups[p] for p in found.positions], notes)
    digests = {
        "data": digest(records.content),
        "behaviours": told_by,
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


def behaviours_digest(path: Path, behaviours: list[Behaviour]) -> str:
    """Return a hash of a file of behaviours and of the held-out files that it names."""
    held_out = (repr(b.texts).encode() for b in behaviours if b.kind == HELD_OUT)
    return digest(path.read_bytes(), *held_out)


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


def _groups(names: list[str], notes: list[str]) -> np.ndarray | None:
    """Return the sources of rows, or None where all have one: nothing would be left without it."""
    if len(set(names)) == 1:
        notes.append(
            f"All rows have one source, {names[0]!r}: nothing is left without it, and it is not measured."
        )
        return None
    return np.array(names, dtype=object)


def _special_notes(texts: list[Any], tokenizer: Any) -> list[str]:
    """Say where texts hold the words of special tokens, which are read as these tokens."""
    special = list(getattr(tokenizer, "all_special_tokens", ()))
    holding, shown = 0, ""
    for text in texts:
        said = text if isinstance(text, tuple) else [turn["content"] for turn in text]
        found = next((word for word in special if any(word in part for part in said)), "")
        holding, shown = holding + bool(found), shown or found
    if not holding:
        return []
    return [
        f"{holding:,} rows hold the words of special tokens, such as {shown!r}, and are read with these tokens: a text "
        "that a chat template wrote before would be written by one twice."
    ]


def _repeated_notes(rows: TextRows, queries: list[Query]) -> list[str]:
    """Say which behaviours ask for texts that are trained on."""
    known = {row.tokens.tobytes() for row in rows.encoded}
    notes = []
    for query in queries:
        texts = texts_of(query)[0].encoded
        same = sum(row.tokens.tobytes() in known for row in texts)
        if same:
            notes.append(
                f"{same:,} of {len(texts):,} texts of behaviour {query.name!r} are rows that are trained on: of these "
                "it measures how well they were learned by heart."
            )
    return notes


def _template_note(tokenizer: Any, options: TuneOptions) -> list[str]:
    if not getattr(tokenizer, "chat_template", None):
        if options.messages_field is not None:
            return []
        return [
            "The tokenizer has no chat template: a row is its prompt followed by its response, as they stand."
        ]
    notes = []
    if writes_date(tokenizer):
        notes.append(
            f"The chat template writes today's date: {AS_OF:%d %b %Y} stands in its place, so that texts are the same "
            "on another day."
        )
    if head := before_answers(tokenizer):
        notes.append(
            f"The chat template writes {head!r} before an answer, and not where it is asked to begin one "
            "(add_generation_prompt): that is learned and measured with it."
        )
    return notes


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
