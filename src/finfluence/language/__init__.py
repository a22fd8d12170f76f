"""Language models: rows of texts, their losses, and behaviours as queries. Needs torch alone; `fi.lm` is this package.

Names are loaded on first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from finfluence.language._behaviour_file import HELD_OUT as HELD_OUT
    from finfluence.language._behaviour_file import Behaviour as Behaviour
    from finfluence.language._behaviour_file import read_behaviours as read_behaviours
    from finfluence.language._behaviours import check_texts as check_texts
    from finfluence.language._behaviours import contrast as contrast
    from finfluence.language._behaviours import each_text as each_text
    from finfluence.language._behaviours import held_out as held_out
    from finfluence.language._behaviours import log_prob as log_prob
    from finfluence.language._behaviours import texts_of as texts_of
    from finfluence.language._behaviours import through as through
    from finfluence.language._encode import AS_OF as AS_OF
    from finfluence.language._encode import Encoded as Encoded
    from finfluence.language._encode import EncodedRows as EncodedRows
    from finfluence.language._encode import Window as Window
    from finfluence.language._encode import asked as asked
    from finfluence.language._encode import before_answers as before_answers
    from finfluence.language._encode import encode as encode
    from finfluence.language._encode import writes_date as writes_date
    from finfluence.language._load import ALL as ALL
    from finfluence.language._load import Loaded as Loaded
    from finfluence.language._load import LoraOptions as LoraOptions
    from finfluence.language._load import add_lora as add_lora
    from finfluence.language._load import load_model as load_model
    from finfluence.language._load import load_tokenizer as load_tokenizer
    from finfluence.language._losses import DPO as DPO
    from finfluence.language._losses import PreferenceRows as PreferenceRows
    from finfluence.language._losses import SmoothedLoss as SmoothedLoss
    from finfluence.language._losses import mean_token_loss as mean_token_loss
    from finfluence.language._losses import sum_token_loss as sum_token_loss
    from finfluence.language._losses import token_losses as token_losses
    from finfluence.language._model import check_logits as check_logits
    from finfluence.language._model import token_log_probs as token_log_probs
    from finfluence.language._prefix import Prefix as Prefix
    from finfluence.language._ranking import joint_ranking as joint_ranking
    from finfluence.language._ranking import kernel_regression as kernel_regression
    from finfluence.language._ranking import ranking_features as ranking_features
    from finfluence.language._ranking import ranking_scores as ranking_scores
    from finfluence.language._records import Fields as Fields
    from finfluence.language._records import read_records as read_records
    from finfluence.language._rows import TextRows as TextRows

_HOME = {
    **dict.fromkeys(("HELD_OUT", "Behaviour", "read_behaviours"), "_behaviour_file"),
    **dict.fromkeys(
        ("check_texts", "contrast", "each_text", "held_out", "log_prob", "texts_of", "through"), "_behaviours"
    ),
    **dict.fromkeys(
        ("AS_OF", "Encoded", "EncodedRows", "Window", "asked", "before_answers", "encode", "writes_date"),
        "_encode",
    ),
    **dict.fromkeys(("ALL", "LoraOptions", "Loaded", "add_lora", "load_model", "load_tokenizer"), "_load"),
    **dict.fromkeys(
        ("DPO", "PreferenceRows", "SmoothedLoss", "mean_token_loss", "sum_token_loss", "token_losses"),
        "_losses",
    ),
    **dict.fromkeys(("check_logits", "token_log_probs"), "_model"),
    "Prefix": "_prefix",
    **dict.fromkeys(("joint_ranking", "kernel_regression", "ranking_features", "ranking_scores"), "_ranking"),
    **dict.fromkeys(("Fields", "read_records"), "_records"),
    "TextRows": "_rows",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'finfluence.language' has no attribute {name!r}")
    return getattr(import_module(f"finfluence.language.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
