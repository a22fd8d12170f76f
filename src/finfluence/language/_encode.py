"""From a prompt and its response, or a conversation, to tokens, of which those of the responses are learned."""

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Literal, Protocol

import numpy as np

from finfluence.errors import ConfigError, DataError, explain

TooLong = Literal["truncate", "drop", "refuse"]
TOO_LONG: tuple[TooLong, ...] = ("truncate", "drop", "refuse")
_SHOWN = 3
_MARK = "\u2603"
_TODAY = re.compile(r"""strftime_now\(\s*(['"])(.*?)\1\s*\)""")
AS_OF = date(2024, 7, 26)
"""What a chat template gets in place of today's date: the same tokens on another day. Llama's own stands in there."""


class Tokenizer(Protocol):
    """What is asked of a tokenizer; those of transformers have it."""

    chat_template: Any
    eos_token_id: int | None
    bos_token_id: int | None

    def __call__(self, text: str, *, add_special_tokens: bool) -> Mapping[str, Any]:
        """Return the tokens of a text as `input_ids`."""

    def apply_chat_template(self, conversation: Any, **options: Any) -> Any:
        """Return a conversation as one text."""


@dataclass(frozen=True, eq=False)
class Encoded:
    """One text as a model reads it.

    Attributes
    ----------
    tokens : array [L] of int64
    learned : array [L] of bool
        Tokens of a response: those that the loss is of. Never the first.
    """

    tokens: np.ndarray
    learned: np.ndarray

    def __len__(self) -> int:
        return len(self.tokens)


@dataclass(frozen=True)
class Window:
    """What becomes of texts that are too long.

    Parameters
    ----------
    max_length : int
        Tokens of a row, prompt and response together.
    too_long : {"truncate", "drop", "refuse"}
        *truncate*: the end of the response is cut off. *drop*: the row is left out. *refuse*: an error that names them.

    Raises
    ------
    ConfigError
        A length below 2, or another word.
    """

    max_length: int = 512
    too_long: TooLong = "truncate"

    def __post_init__(self) -> None:
        if self.max_length < 2 or self.too_long not in TOO_LONG:
            raise ConfigError(
                explain(
                    f"max_length of at least 2, and too_long one of {', '.join(TOO_LONG)}",
                    f"{self.max_length} and {self.too_long!r}",
                    "a mistyped option",
                    "correct it, or leave it out: 512 tokens, longer rows truncated",
                )
            )


@dataclass(frozen=True, eq=False)
class EncodedRows:
    """Texts as tokens, and what was done to those that were too long.

    Attributes
    ----------
    rows : list of Encoded
    positions : list of int
        Of the texts that are left, in the order of the given ones.
    truncated, dropped : list
        Ids of the texts that were cut, and of those that were left out.
    """

    rows: list[Encoded]
    positions: list[int]
    truncated: list[Any]
    dropped: list[Any]

    def sentences(self, window: Window) -> list[str]:
        """Say what was cut or left out."""
        said = []
        for verb, ids in (("cut to", self.truncated), ("left out, being longer than", self.dropped)):
            if ids:
                said.append(f"{len(ids):,} rows were {verb} {window.max_length} tokens: {_named(ids)}.")
        return said


def encode(
    texts: Sequence[Any],
    tokenizer: Tokenizer,
    ids: Sequence[Any] | None = None,
    window: Window = Window(),
    chat: bool | None = None,
) -> EncodedRows:
    """Return texts as tokens.

    Parameters
    ----------
    texts : sequence
        Pairs (prompt, response), or conversations: lists of {"role", "content"}.
    tokenizer : Tokenizer
        Of transformers, or one that has what these have.
    ids : sequence, optional
        How errors call the texts (default: their positions).
    window : Window
        What becomes of texts that are too long.
    chat : bool, optional
        Whether pairs are written as a conversation by the tokenizer's chat template (default: where it has one).
        Without it a row is the prompt, the response and the token that ends a text, behind the one that begins a text,
        if the tokenizer has these and the text does not hold them already.

    Returns
    -------
    EncodedRows

    Raises
    ------
    DataError
        An empty response or conversation, a prompt that leaves no room for a response, or a row that is too long
        where these are refused; the rows are named.
    ConfigError
        A conversation, or `chat=True`, and no chat template.

    Notes
    -----
    In a conversation the content of every turn of the assistant is learned, with what the template writes behind it:
    the token that ends the turn and, in many templates, a line break.

    Prompt and response are tokens of their own, as they are when a model answers: none spans both. A blank that a
    tokenizer puts before every text (sentencepiece) stands before the first piece only.
    """  # noqa: DOC501 - made by a function
    names = list(range(len(texts))) if ids is None else list(ids)
    templated = _templated(texts, tokenizer, chat)
    _check_responses(texts, names)
    found = EncodedRows([], [], [], [])
    too_long, full, blank = [], [], _puts_blank(tokenizer)
    for position, (text, name) in enumerate(zip(texts, names, strict=True)):
        segments = _of_chat(text, tokenizer, name) if templated else _plain(text)
        row = _joined(segments, tokenizer, not templated, blank)
        if len(row) > window.max_length:
            too_long.append(name)
            if window.too_long == "drop":
                found.dropped.append(name)
                continue
            row = Encoded(row.tokens[: window.max_length], row.learned[: window.max_length])
            found.truncated.append(name)
            if not row.learned.any():
                full.append(name)
        found.rows.append(row)
        found.positions.append(position)
    if too_long and window.too_long == "refuse":
        raise _long(too_long, window, f"rows of at most {window.max_length} tokens", "some texts are longer")
    if full:
        raise _long(full, window, "room for a response in every row", "their prompts alone fill the window")
    return found


def before_answers(tokenizer: Tokenizer) -> str:
    """Return what the chat template writes before an answer beyond what it begins one with (add_generation_prompt).

    It is learned with the answer: an empty thought, say, or the name of the role where the template begins no answer.

    Returns
    -------
    str

    Raises
    ------
    ConfigError
        The template cannot write a turn of the user and its answer.
    """
    (_, _), (learned, _) = _of_chat(("?", _MARK), tokenizer, "?")
    return learned[: learned.find(_MARK)]


def asked(prompt: str, tokenizer: Tokenizer) -> tuple[list[int], int | None]:
    """Return the tokens that stand before the response to a prompt, and the special token that ends a response.

    Returns
    -------
    (list of int, int or None)
    """
    row = encode([(prompt, "x")], tokenizer, window=Window(max_length=sys.maxsize)).rows[0]
    first = int(row.learned.argmax())
    special = set(getattr(tokenizer, "all_special_ids", ())) - {getattr(tokenizer, "unk_token_id", None)}
    ends = [int(t) for t in row.tokens[first:] if int(t) in special]
    return row.tokens[:first].tolist(), ends[-1] if ends else None


def _long(ids: list[Any], window: Window, expected: str, cause: str) -> DataError:
    return DataError(
        explain(
            expected,
            f"{len(ids)} rows beyond {window.max_length} tokens: {_named(ids)}",
            cause,
            "raise the length (--max-length), or leave such rows out (--too-long drop)",
        )
    )


def _templated(texts: Sequence[Any], tokenizer: Tokenizer, chat: bool | None) -> bool:
    has = bool(getattr(tokenizer, "chat_template", None))
    conversations = any(not _is_pair(text) for text in texts)
    if has or not (conversations or chat):
        return has if chat is None else chat or conversations
    raise ConfigError(
        explain(
            "a tokenizer with a chat template, for conversations",
            "one without",
            "the model was trained on plain text, or its folder lacks chat_template.jinja",
            "take the instruction-tuned version of the model, or give prompts and responses as two fields: they are "
            "then joined as they stand",
        )
    )


def _is_pair(text: Any) -> bool:
    return isinstance(text, tuple) and len(text) == 2


def _check_responses(texts: Sequence[Any], names: list[Any]) -> None:
    empty = [name for text, name in zip(texts, names, strict=True) if not _has_response(text)]
    if empty:
        raise DataError(
            explain(
                "a response in every row",
                f"{len(empty)} rows whose response is empty: {_named(empty)}",
                "missing cells, or conversations that end with the user",
                "fill in these responses, or take the rows out",
            )
        )


def _has_response(text: Any) -> bool:
    if _is_pair(text):
        return bool(str(text[1]).strip())
    return any(turn["role"] == "assistant" and str(turn["content"]).strip() for turn in text)


def _plain(text: Any) -> list[tuple[str, bool]]:
    prompt, response = text
    return [(str(prompt), False), (str(response), True)]


def _of_chat(text: Any, tokenizer: Tokenizer, name: Any) -> list[tuple[str, bool]]:
    """Return a conversation in pieces, each with whether it is learned: what the template adds for a turn included."""
    turns = _turns(text)
    pieces: list[tuple[str, bool]] = []
    written, asked_up_to = "", 0
    for k, turn in enumerate(turns):
        if turn["role"] != "assistant":
            continue
        if k == 0:
            raise _unasked(name)
        before = _written(turns[:k], tokenizer, name, add_generation_prompt=True)
        after = _written(turns[: k + 1], tokenizer, name)
        if not (before.startswith(written) and after.startswith(before)):
            raise ConfigError(
                explain(
                    "a chat template that writes a conversation turn by turn",
                    f"one that writes earlier turns otherwise once there are more of them (row {name!r})",
                    "it leaves thoughts of earlier turns out, adds a closing line, or opens a thought before an answer",
                    "give the last answers alone, as two fields for prompt and response, with a plain tokenizer",
                )
            )
        pieces += [(before[len(written) :], False), (after[len(before) :], True)]
        _check_written(turns[asked_up_to:k], pieces[-2][0], name)
        _check_written([turn], pieces[-1][0], name)
        written, asked_up_to = after, k + 1
    return pieces


def _check_written(turns: list[dict[str, str]], written: str, name: Any) -> None:
    """Raise unless the template wrote what was said in these turns."""
    lost = next((turn for turn in turns if turn["content"].strip() not in written), None)
    if lost is not None:
        raise ConfigError(
            explain(
                "a chat template that writes every turn as it stands",
                f"row {name!r}, of whose {lost['role']} turn it leaves something out or changes it: "
                f"{lost['content'].strip()!r:.80}",
                "it takes thoughts (<think>…</think>) out of answers, or knows no such role",
                "write into the rows what the template keeps, give the tokenizer a template that keeps it, or give "
                "prompts and responses as two fields with a plain tokenizer",
            )
        )


def _written(turns: list[dict[str, str]], tokenizer: Tokenizer, name: Any, **options: Any) -> str:
    if writes_date(tokenizer):
        options["chat_template"] = _TODAY.sub(
            lambda call: repr(AS_OF.strftime(call[2])), tokenizer.chat_template
        )
    try:
        return str(tokenizer.apply_chat_template(turns, tokenize=False, **options))
    except Exception as error:  # whatever a template of another's raises
        raise ConfigError(
            explain(
                f"a chat template that writes row {name!r}",
                f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}",
                "roles or an order of turns that the model was not trained with, or a damaged template",
                "write such turns otherwise (a system turn into the first user turn), or give prompts and responses as "
                "two fields",
            )
        ) from error


def writes_date(tokenizer: Tokenizer) -> bool:
    """Whether the chat template asks for today's date."""
    template = getattr(tokenizer, "chat_template", None)
    return isinstance(template, str) and _TODAY.search(template) is not None


def _unasked(name: Any) -> DataError:
    return DataError(
        explain(
            "a conversation that begins with the user or the system",
            f"row {name!r}, which begins with the assistant",
            "it was cut, or holds a greeting",
            "put what it answers before it, or take the turn out",
        )
    )


def _turns(text: Any) -> list[dict[str, str]]:
    if _is_pair(text):
        return [
            {"role": "user", "content": str(text[0])},
            {"role": "assistant", "content": str(text[1])},
        ]
    return [{"role": str(turn["role"]), "content": str(turn["content"])} for turn in text]


def _joined(pieces: list[tuple[str, bool]], tokenizer: Tokenizer, ends: bool, blank: bool) -> Encoded:
    tokens: list[int] = []
    learned: list[bool] = []
    before = ""
    for k, (text, is_response) in enumerate(pieces):
        ids = _behind(before, text, tokenizer) if before and blank else _ids(text, tokenizer)
        before += text
        if k == 0:
            ids = _with_start(ids, tokenizer, ends)
        tokens += ids
        learned += [is_response] * len(ids)
    if (
        ends
        and tokenizer.eos_token_id is not None
        and (not learned[-1] or tokens[-1] != tokenizer.eos_token_id)
    ):
        tokens.append(tokenizer.eos_token_id)
        learned.append(True)
    return Encoded(np.array(tokens, dtype=np.int64), np.array(learned, dtype=bool))


def _ids(text: str, tokenizer: Tokenizer) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def _puts_blank(tokenizer: Tokenizer) -> bool:
    """Whether a text has a blank before it that it has not within another text."""
    alone, within = _ids("x", tokenizer), _ids("0x", tokenizer)
    return within[-len(alone) :] != alone


def _behind(before: str, text: str, tokenizer: Tokenizer) -> list[int]:
    """Return the tokens of a text that stands behind another, without a blank of the tokenizer's own before it."""
    for anchor in (before, "\n", "0"):
        whole, head = _ids(anchor + text, tokenizer), _ids(anchor, tokenizer)
        if whole[: len(head)] == head:
            return whole[len(head) :]
    return _ids(text, tokenizer)


def _with_start(ids: list[int], tokenizer: Tokenizer, plain: bool) -> list[int]:
    """Return a prompt's tokens with the token that begins a text; a response needs one before it."""
    start = tokenizer.bos_token_id
    if plain and start is not None and ids[:1] != [start]:
        ids = [start, *ids]
    if ids:
        return ids
    first = start if start is not None else tokenizer.eos_token_id
    if first is None:
        raise DataError(
            explain(
                "a prompt of at least one token",
                "an empty prompt, and a tokenizer without a token that begins or ends a text",
                "rows of text without an instruction",
                "give each row a prompt, such as a line break",
            )
        )
    return [first]


def _named(ids: Sequence[Any]) -> str:
    shown = ", ".join(repr(i) for i in ids[:_SHOWN])
    return shown + (f" and {len(ids) - _SHOWN:,} more" if len(ids) > _SHOWN else "")
