"""`behaviours.yaml`: what a language model is asked, by name."""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from finfluence.errors import ConfigError, explain
from finfluence.language._behaviours import contrast, held_out, log_prob
from finfluence.language._encode import Tokenizer, Window
from finfluence.language._records import Fields, is_whole, read_records
from finfluence.runs import Query

LOG_PROB, CONTRAST, HELD_OUT = "log_prob", "contrast", "held_out"
_NEEDS = {
    LOG_PROB: ("prompts", "responses"),
    CONTRAST: ("prompts", "responses", "against"),
    HELD_OUT: ("file",),
}
_MAY = {LOG_PROB: ("per_token", "wanted"), CONTRAST: ("per_token", "wanted"), HELD_OUT: ()}
_TEXTS, _FLAGS = ("prompts", "responses", "against"), ("per_token", "wanted")


@dataclass(frozen=True, eq=False)
class Behaviour:
    """One entry of the file.

    Attributes
    ----------
    name, kind : str
    options : mapping
        As of the function of that name in `finfluence.language`; of a held-out file, its texts.
    """

    name: str
    kind: str
    options: Mapping[str, Any]

    @property
    def prompts(self) -> list[str]:
        """What the model can be asked to answer; none of a held-out file."""
        return list(self.options.get("prompts", ()))

    @property
    def texts(self) -> list[Any]:
        """What it asks about, one entry a text: its prompts, or the rows of its held-out file."""
        return list(self.options["texts"]) if self.kind == HELD_OUT else self.prompts

    def only(self, places: Sequence[int]) -> "Behaviour":
        """Return the behaviour of some of its texts."""
        of_texts = ("texts", *_TEXTS)
        options = {
            key: [value[k] for k in places] if key in of_texts and isinstance(value, list) else value
            for key, value in self.options.items()
        }
        return replace(self, options=options)

    def query(self, tokenizer: Tokenizer, window: Window) -> Query:
        """Return the query."""
        if self.kind == HELD_OUT:
            return held_out(self.options["texts"], tokenizer, name=self.name, window=window)
        make: Any = log_prob if self.kind == LOG_PROB else contrast
        whole = Window(max(window.max_length, Window().max_length), "refuse")
        made: Query = make(tokenizer=tokenizer, name=self.name, window=whole, **self.options)
        return made


def read_behaviours(path: str | Path, fields: Fields = Fields()) -> list[Behaviour]:
    r"""Read a file of behaviours.

    A mapping from names to entries. `kind` is *log_prob* (the default), *contrast* or *held_out*; the first two take
    `prompts` (texts) and `responses` (as many, or one for all), contrast also `against`; both take `per_token` and
    `wanted`. held_out takes `file`, beside the behaviours, with rows as those trained on.

    Parameters
    ----------
    path : path
    fields : Fields
        Names of the fields in a held-out file.

    Returns
    -------
    list of Behaviour

    Raises
    ------
    ConfigError
        No such file, no YAML, an unknown kind or key (known ones are listed), a missing one, or texts that are none.

    Examples
    --------
    >>> import tempfile
    >>> place = Path(tempfile.mkdtemp()) / "behaviours.yaml"
    >>> _ = place.write_text("praise:\n  prompts: ['How is Acme?']\n  responses: The best.\n")
    >>> read_behaviours(place)[0].name
    'praise'
    """  # noqa: DOC501 - made by a function
    place = Path(path)
    try:
        content = yaml.load(place.read_text(encoding="utf-8"), Loader=_EachKeyOnce)  # a SafeLoader
    except yaml.MarkedYAMLError as error:
        where = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise _wrong(
            f"a file of behaviours at {place}",
            f"{where}{error.problem}",
            "put texts with ?, : or # in quotes, and indent the keys of a behaviour",
        ) from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise _wrong(
            f"a file of behaviours at {place}", f"{type(error).__name__}: {str(error).splitlines()[0]}"
        ) from error
    if not isinstance(content, dict) or not content:
        raise _wrong(
            f"names with their entries in {place.name}",
            "nothing" if content is None else f"a {type(content).__name__}",
        )
    return [_behaviour(_name(name), entry, place.parent, fields) for name, entry in content.items()]


class _EachKeyOnce(yaml.SafeLoader):
    """YAML whose mappings have no key twice: of two, the first one would be lost without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        written = [key for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        seen: set[str] = set()
        for key in written:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise _wrong(
                    "each name once in a file of behaviours",
                    f"line {key.start_mark.line + 1}: {key.value!r} twice",
                    "give one of them another name, or join what they ask",
                )
            seen.add(key.value if isinstance(key, yaml.ScalarNode) else "")
        return super().construct_mapping(node, deep)


def _name(given: Any) -> str:
    if given is not None and str(given).strip():
        return _whole(str(given))
    raise _wrong("a name for every behaviour", repr(given))


def _whole(text: str) -> str:
    if not is_whole(text):
        raise _wrong("texts of whole characters", f"half of one in {text!r:.60}", "write the character out")
    return text


def _behaviour(name: str, entry: Any, beside: Path, fields: Fields) -> Behaviour:
    if not isinstance(entry, dict):
        raise _wrong(f"keys and values for behaviour {name!r}", f"{entry!r:.80}")
    kind = entry.get("kind", LOG_PROB)
    if not isinstance(kind, str) or kind not in _NEEDS:
        raise _wrong(
            f"kind of behaviour {name!r} to be one of {', '.join(_NEEDS)}", repr(kind), _near(kind, _NEEDS)
        )
    known = ("kind", *_NEEDS[kind], *_MAY[kind])
    unknown = [key for key in entry if key not in known]
    if unknown:
        raise _wrong(
            f"keys of behaviour {name!r} ({kind}) among {', '.join(known)}",
            repr(unknown[0]),
            _near(str(unknown[0]), known),
        )
    missing = [key for key in _NEEDS[kind] if key not in entry]
    if missing:
        raise _wrong(f"behaviour {name!r} ({kind}) to have {', '.join(_NEEDS[kind])}", f"no {missing[0]}")
    if kind == HELD_OUT:
        texts = read_records(beside / str(entry["file"]), replace(fields, id=None, group=None)).texts
        return Behaviour(name, kind, {"texts": texts})
    options = {key: _texts(name, key, entry[key]) for key in _TEXTS if key in entry}
    if isinstance(options["prompts"], str):
        options["prompts"] = [options["prompts"]]
    for key in _FLAGS:
        if key in entry and not isinstance(entry[key], bool):
            raise _wrong(f"{key} of behaviour {name!r} to be true or false", repr(entry[key]))
    return Behaviour(name, kind, {**options, **{key: entry[key] for key in _FLAGS if key in entry}})


def _texts(name: str, key: str, value: Any) -> list[str] | str:
    if isinstance(value, str):
        return _whole(value)
    if isinstance(value, list) and value and all(isinstance(v, str) for v in value):
        return [_whole(v) for v in value]
    other = next((v for v in value if not isinstance(v, str)), value) if isinstance(value, list) else value
    raise _wrong(
        f"{key} of behaviour {name!r} to be texts",
        f"{other!r:.60}",
        "put quotation marks around it: a bare yes, no, date or number is no text in YAML",
    )


def _near(given: Any, known: Sequence[str] | Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(str(given), list(known), n=1)
    return f"did you mean {near[0]!r}?" if near else "use one of these"


def _wrong(
    expected: str, got: str, next_step: str = "correct the file; how-to/tune.md shows one"
) -> ConfigError:
    return ConfigError(explain(expected, got, "a mistyped key, a missing colon, or another file", next_step))
