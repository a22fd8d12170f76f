"""JSON lines of texts: which fields hold the prompt and the response, or the conversation."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finfluence.errors import ConfigError, DataError, explain

_ROLES = ("system", "user", "assistant", "tool")
_BESIDE = ("tool_calls", "function_call", "reasoning_content", "reasoning", "thinking", "images", "audio")
"""What a chat template may write of a turn beside its content."""


@dataclass(frozen=True)
class Fields:
    """Names of the fields of a row.

    Parameters
    ----------
    prompt, response : str
        Fields with texts.
    messages : str, optional
        Field with a conversation, in their place: a list of {"role", "content"}.
    id, group : str, optional
        Fields with the row's id and with its source.

    Raises
    ------
    ConfigError
        One name for two fields.
    """

    prompt: str = "prompt"
    response: str = "completion"
    messages: str | None = None
    id: str | None = None
    group: str | None = None

    def __post_init__(self) -> None:
        named = [n for n in (*self.texts, self.id, self.group) if n is not None]
        if len(set(named)) < len(named):
            raise ConfigError(
                explain(
                    "a field of its own for prompt, response, id and group",
                    ", ".join(map(repr, named)),
                    "one name was given twice",
                    "name each field once",
                )
            )

    @property
    def texts(self) -> tuple[str, ...]:
        """The fields that are read as text."""
        return (self.messages,) if self.messages is not None else (self.prompt, self.response)


@dataclass(frozen=True, eq=False)
class Records:
    """What a file holds.

    Attributes
    ----------
    texts : list
        Pairs (prompt, response), or conversations.
    ids : list
        As in the file, or row numbers from 0.
    groups : list of str or None
    content : bytes
        Of the file, for its hash.
    """

    texts: list[Any]
    ids: list[Any]
    groups: list[str] | None
    content: bytes


def read_records(path: str | Path, fields: Fields = Fields()) -> Records:
    """Read a file of JSON lines.

    Parameters
    ----------
    path : path
    fields : Fields

    Returns
    -------
    Records

    Raises
    ------
    DataError
        No such file, a line that is no JSON object, a field that is missing or holds no text, repeated ids, or a data
        set that was packed into sequences of tokens.
    """  # noqa: DOC501 - made by a function
    place = Path(path)
    try:
        content = place.read_bytes()
        lines = [
            (k, line) for k, line in enumerate(content.decode("utf-8-sig").split("\n"), 1) if line.strip()
        ]
    except (OSError, UnicodeDecodeError) as error:
        raise _unread(
            place, f"{type(error).__name__}: {getattr(error, 'strerror', None) or error}"
        ) from error
    if not lines:
        raise _unread(place, "no lines")
    rows = [_object(line, number, place) for number, line in lines]
    numbers = [number for number, _ in lines]
    texts = [
        _text(row, fields, f"line {number} of {place.name}")
        for row, number in zip(rows, numbers, strict=True)
    ]
    ids = list(range(len(rows)))
    if fields.id is not None:
        ids = [_field(r, fields.id, f"line {n} of {place.name}") for r, n in zip(rows, numbers, strict=True)]
        _check_ids(ids, fields.id)
    groups = None
    if fields.group is not None:
        groups = [
            _group(r, fields.group, f"line {n} of {place.name}") for r, n in zip(rows, numbers, strict=True)
        ]
    return Records(texts, ids, groups, content)


def _object(line: str, number: int, place: Path) -> Mapping[str, Any]:
    try:
        row = json.loads(line, object_pairs_hook=_each_key_once)
    except ValueError as error:
        raise _unread(place, f"line {number}: {error}") from error
    except RecursionError as error:
        raise _unread(place, f"line {number}: lists or objects nested too deep") from error
    if not isinstance(row, dict):
        raise _unread(place, f"line {number}: a {type(row).__name__} instead of an object")
    if "\\ud" in line.lower() and not is_whole(json.dumps(row, ensure_ascii=False)):
        raise DataError(
            explain(
                "texts of whole characters",
                f"half of one (\\ud800 to \\udfff) in line {number} of {place.name}",
                "a character beyond \\uffff, such as an emoji, that was cut in two",
                "write the character out, or take it out",
            )
        )
    return row


def _each_key_once(members: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(members)
    if len(found) < len(members):
        names = [name for name, _ in members]
        twice = next(name for k, name in enumerate(names) if name in names[:k])
        raise ValueError(f"{twice!r} twice in one object, of which a program takes the one or the other")
    return found


def is_whole(text: str) -> bool:
    """Whether a text has no half of a character (a lone surrogate), which no file and no tokenizer takes."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _text(row: Mapping[str, Any], fields: Fields, where: str) -> Any:
    if fields.messages is not None:
        return _conversation(_field(row, fields.messages, where), where)
    return tuple(_string(_field(row, name, where), name, where) for name in fields.texts)


def _field(row: Mapping[str, Any], name: str, where: str) -> Any:
    if name in row and row[name] is not None:
        return row[name]
    packed = "input_ids" in row
    raise DataError(
        explain(
            f"a field {name!r} in every row",
            f"{where} without it; it has {', '.join(map(repr, list(row)[:8])) or 'none'}",
            "texts were packed into sequences of tokens, in which no row can be told from its neighbours"
            if packed
            else "another name, or a missing value",
            "give one text a line, before packing"
            if packed
            else "name the fields by --prompt-field and --response-field, or --messages-field; --id and --group",
        )
    )


def _string(value: Any, name: str, where: str) -> str:
    if isinstance(value, str):
        return value
    raise DataError(
        explain(
            f"text in field {name!r}",
            f"a {type(value).__name__} in {where}",
            "a conversation, or a number",
            "name a conversation by --messages-field; write numbers as text",
        )
    )


def _group(row: Mapping[str, Any], name: str, where: str) -> str:
    value = _field(row, name, where)
    if isinstance(value, (str, int, float)) and str(value).strip():
        return str(value)
    raise DataError(
        explain(
            f"a text or a number in {name!r}, the source of each row",
            f"{value!r:.60} in {where}",
            "the field is empty, or holds no name but a list or an object",
            "name another field by --group, or fill it in",
        )
    )


def _conversation(value: Any, where: str) -> list[dict[str, str]]:
    wrong = "an empty list" if value == [] else f"a {type(value).__name__}"
    if isinstance(value, list) and value:
        found = [_wrong_turn(turn) for turn in value]
        if not any(found):
            return [{"role": turn["role"], "content": turn["content"]} for turn in value]
        wrong = next(f"{text} turn {k}" for k, text in enumerate(found) if text)
    raise DataError(
        explain(
            'a conversation: a list of {"role": "user", "assistant", "system" or "tool", "content": text}',
            f"{where}: {wrong}",
            "another layout of conversations (from, value; parts), images, tool calls or thoughts beside the text",
            "rename the keys, write all that is said into content, or give prompts and responses as two fields",
        )
    )


def _wrong_turn(turn: Any) -> str | None:
    """Say what is wrong with a turn, up to its number."""
    if not isinstance(turn, dict):
        return f"a {type(turn).__name__} as"
    role, content = turn.get("role"), turn.get("content")
    if role is None:
        return "no role in"
    if role not in _ROLES:
        return f"{role!r} as role of"
    beside = [key for key in _BESIDE if turn.get(key)]
    if not isinstance(content, str):
        kind = type(content).__name__
        return f"{kind if content is None else f'a {kind}'} as content of"
    return f"{beside[0]!r} in" if beside else None


def _check_ids(ids: list[Any], name: str) -> None:
    bad = next((i for i in ids if not isinstance(i, (str, int)) or isinstance(i, bool)), None)
    seen: set[str] = set()
    repeated = next((i for i in ids if str(i) in seen or seen.add(str(i))), None)  # type: ignore[func-returns-value]
    if bad is not None or repeated is not None:
        raise DataError(
            explain(
                f"texts or whole numbers in {name!r}, each once",
                repr(bad) if bad is not None else f"{repeated!r} twice",
                "the field is no key",
                "name another field by --id, or none: rows are then counted from 0",
            )
        )


def _unread(place: Path, got: str) -> DataError:
    return DataError(
        explain(
            f"a file of JSON lines, one row each, at {place}",
            got,
            "a mistyped path, another format, or a file that was cut short",
            'write one JSON object a line, such as {"prompt": …, "completion": …}',
        )
    )
