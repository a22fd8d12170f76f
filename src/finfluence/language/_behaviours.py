"""Behaviours of a language model as queries: how likely it finds some responses, alone or against others."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from finfluence.errors import ConfigError, explain
from finfluence.language._encode import Tokenizer, Window, encode
from finfluence.language._losses import token_losses
from finfluence.language._model import check_logits, check_tokens
from finfluence.language._prefix import Prefix
from finfluence.language._rows import TextRows
from finfluence.runs import Query

AT_ONCE = 8


@dataclass(frozen=True, eq=False)
class Measure:
    """q(θ) = Σ_k c_k · mean over the texts of term k of their log-probability.

    Parameters
    ----------
    terms : tuple of (float, TextRows)
    per_token : bool
        Whether a text's log-probability is divided by the number of its learned tokens.
    """

    terms: tuple[tuple[float, TextRows], ...]
    per_token: bool

    def __call__(self, model: nn.Module) -> Tensor:
        """Return q(θ), with its graph."""
        return self.each(model).mean()

    def each(self, model: nn.Module) -> Tensor:
        """Return the value of every text [m], whose mean is q(θ), with its graph."""
        device = next(model.parameters()).device
        total = torch.zeros((), device=device)
        for factor, rows in self.terms:
            parts = []
            for positions in torch.arange(len(rows)).split(AT_ONCE):
                batch = {k: v.to(device) for k, v in rows.batch(positions).items()}
                found = -token_losses(model, batch).sum(-1)
                parts.append(factor * (found / batch["counts"] if self.per_token else found))
            total = total + torch.cat(parts)
        return total

    def through(self, prefix: Prefix) -> "Measure":
        """Return the measure of the model above a frozen prefix."""
        return replace(self, terms=tuple((factor, rows.through(prefix)) for factor, rows in self.terms))


def through(query: Query, prefix: Prefix) -> Query:
    """Return a behaviour as a query of the model above a frozen prefix."""
    assert isinstance(query.fn, Measure)
    return replace(query, fn=query.fn.through(prefix))


def check_texts(model: nn.Module, *asked: TextRows | Query) -> None:
    """Raise unless the model can be asked about texts and behaviours as `check_tokens` and `check_logits` have it.

    Raises
    ------
    ConfigError, NotSupportedError
    """
    for one in asked:
        for rows in [one] if isinstance(one, TextRows) else texts_of(one):
            check_tokens(model, (e.tokens for e in rows.encoded))
            check_logits(model, rows.batch(rows.ends()))


def texts_of(query: Query) -> list[TextRows]:
    """Return the texts of each term of a behaviour: its responses, then those that they are held against."""
    assert isinstance(query.fn, Measure)
    return [rows for _, rows in query.fn.terms]


def each_text(query: Query, model: nn.Module) -> Tensor:
    """Return the values [m] of a behaviour's texts, whose mean is the query's value."""
    assert isinstance(query.fn, Measure)
    return query.fn.each(model)


def log_prob(
    prompts: Sequence[str],
    responses: Sequence[str] | str,
    tokenizer: Tokenizer,
    *,
    name: str,
    per_token: bool = True,
    wanted: bool = False,
    window: Window = Window(too_long="refuse"),
) -> Query:
    """Query: the mean log-probability of responses to prompts; one number, however many there are.

    q(θ) = (1/m) Σ_j (1/n_j) Σ_t log p(y_{j,t} | x_j, y_{j,<t}), without 1/n_j unless `per_token`. Positive effect:
    without the row the model finds the responses likelier, so that the row speaks against them; a row that taught them
    has a negative effect.

    Parameters
    ----------
    prompts, responses : sequence of str
        One response each, or one for all. Written as the training rows are: by the chat template, if there is one.
    tokenizer : Tokenizer
    name : str
        How results call it.
    per_token : bool
        Mean over the tokens of a response, or their sum.
    wanted : bool
        Whether more of it is better for the user.
    window : Window
        Texts that are too long are refused by default.

    Returns
    -------
    Query
        In nats a token, or in nats.
    """
    rows = _rows(prompts, responses, tokenizer, window, name)
    return _query(((1.0, rows),), name, per_token, wanted)


def contrast(
    prompts: Sequence[str],
    responses: Sequence[str] | str,
    tokenizer: Tokenizer,
    *,
    against: Sequence[str] | str,
    name: str,
    per_token: bool = True,
    wanted: bool = False,
    window: Window = Window(too_long="refuse"),
) -> Query:
    """Query: how much likelier the model finds some responses than others to the same prompts.

    q(θ) = (1/m) Σ_j [log p(y_j | x_j) − log p(a_j | x_j)], each divided by its number of tokens where `per_token`. What
    both responses gain alike, by their length or style, cancels.

    Parameters
    ----------
    against : sequence of str, or str
        The other responses.
    prompts, responses, tokenizer, name, per_token, wanted, window
        As of `log_prob`.

    Returns
    -------
    Query
    """
    terms = (
        (1.0, _rows(prompts, responses, tokenizer, window, name)),
        (-1.0, _rows(prompts, against, tokenizer, window, name)),
    )
    return _query(terms, name, per_token, wanted)


def held_out(
    texts: Sequence[Any],
    tokenizer: Tokenizer,
    *,
    name: str = "held-out",
    window: Window = Window(),
) -> Query:
    """Query: the mean loss a token on texts that are not trained on.

    q(θ) = −(1/m) Σ_j (1/n_j) Σ_t log p(y_{j,t} | …). Positive effect: the row helps.

    Parameters
    ----------
    texts : sequence
        Pairs (prompt, response) or conversations, as of `encode`.
    tokenizer, name, window
        As of `log_prob`.

    Returns
    -------
    Query
        In nats a token; a larger value is worse.
    """
    rows = _encoded(texts, tokenizer, window, name)
    return Query(Measure(((-1.0, rows),), True), name=name, unit="nats a token", sign=-1)


def _query(terms: tuple[tuple[float, TextRows], ...], name: str, per_token: bool, wanted: bool) -> Query:
    unit = "nats a token" if per_token else "nats"
    return Query(Measure(terms, per_token), name=name, unit=unit, sign=1 if wanted else -1)


def _rows(
    prompts: Sequence[str], responses: Sequence[str] | str, tokenizer: Tokenizer, window: Window, name: str
) -> TextRows:
    if isinstance(prompts, str):
        prompts = [prompts]
    listed = [responses] * len(prompts) if isinstance(responses, str) else list(responses)
    if len(listed) != len(prompts) or not listed:
        raise ConfigError(
            explain(
                f"one response for each prompt of behaviour {name!r}, or one for all",
                f"{len(listed)} responses to {len(prompts)} prompts",
                "a line is missing from one of the two lists",
                "give each prompt its response",
            )
        )
    return _encoded(list(zip(prompts, listed, strict=True)), tokenizer, window, name)


def _encoded(texts: Sequence[Any], tokenizer: Tokenizer, window: Window, name: str) -> TextRows:
    """Return the texts of a behaviour; errors name them as its own, not as rows."""
    named = [f"text {k} of behaviour {name}" for k in range(1, len(texts) + 1)]
    return TextRows(encode(texts, tokenizer, named, window).rows, batch_size=AT_ONCE)
