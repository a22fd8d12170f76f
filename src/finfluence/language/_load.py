"""Load a causal model and its tokenizer by path or name, and put adapters on it: transformers and peft."""

import re
import warnings
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from finfluence.errors import ConfigError, NotSupportedError, explain
from finfluence.language._model import causal_model
from finfluence.runs import seeded

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
AUTO, ALL = "auto", "all"
_LAST = re.compile(r"last:(\d+)")
_NO_WEIGHTS = ("safetensors", "pytorch_model", "weights")


@dataclass(frozen=True, kw_only=True)
class LoraOptions:
    """Which adapters are trained.

    Parameters
    ----------
    rank : int
        r of W + (α/r) B A, with α = 2r.
    targets : str
        "auto": every linear layer inside the chosen layers. Else names, separated by commas, such as "q_proj,v_proj".
    layers : str
        "all", or "last:K" for the K uppermost: what lies below is frozen, and can be computed once.
    seed : int
        Of A; B is zero, so that training starts from the model as it is.

    Raises
    ------
    ConfigError
        A rank below 1, or other words.
    """

    rank: int = 16
    targets: str = AUTO
    layers: str = ALL
    seed: int = 0

    def __post_init__(self) -> None:
        fits = self.layers == ALL or (_LAST.fullmatch(self.layers) and self.count(1) > 0)
        if self.rank < 1 or not fits or not self.targets.strip(" ,"):
            raise ConfigError(
                explain(
                    "a rank of at least 1, layers 'all' or 'last:K', and targets 'auto' or names",
                    f"rank {self.rank}, layers {self.layers!r}, targets {self.targets!r}",
                    "a mistyped option",
                    "write for instance --lora-rank 16 --layers last:4 --lora-targets q_proj,v_proj",
                )
            )

    def count(self, layers: int) -> int:
        """Return how many of a model's layers carry adapters."""
        found = _LAST.fullmatch(self.layers)
        return layers if found is None else int(found[1])


@dataclass(frozen=True, eq=False)
class Loaded:
    """A model and its tokenizer.

    Attributes
    ----------
    model : nn.Module
        In evaluation mode, without a parameter that is trained.
    """

    model: nn.Module
    tokenizer: Any


def load_tokenizer(name: str) -> Any:
    """Return the tokenizer of a model; no code of the model's own is run.

    Returns
    -------
    PreTrainedTokenizer

    Raises
    ------
    ConfigError
        transformers is not installed, or there is no tokenizer.
    """  # noqa: DOC501 - made by a function
    transformers = _library("transformers")
    try:
        return transformers.AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    except (OSError, ValueError, TypeError, ImportError, KeyError) as error:
        raise _unloaded(name, "a tokenizer", error) from error


def load_model(name: str, dtype: str = AUTO) -> Loaded:
    """Load a causal language model by path or name; no code of the model's own is run, no pickle is read.

    Parameters
    ----------
    name : str
        A folder, or a name that transformers knows where to find.
    dtype : {"auto", "float32", "bfloat16"}
        *auto*: float32 on a CPU; on a GPU that of the weights.

    Returns
    -------
    Loaded
        On the GPU, if there is one.

    Raises
    ------
    ConfigError
        transformers is not installed, another dtype, a folder without weights, or without some of them.
    NotSupportedError
        The model is no causal language model, is quantised, or needs code of its own.
    """  # noqa: DOC501 - made by a function
    transformers = _library("transformers")
    if dtype != AUTO and dtype not in DTYPES:
        raise ConfigError(
            explain(
                f"--dtype to be {AUTO}, {' or '.join(DTYPES)}",
                repr(dtype),
                "another precision",
                "use one of these",
            )
        )
    _check_folder(name)
    tokenizer = load_tokenizer(name)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        config = transformers.AutoConfig.from_pretrained(name, trust_remote_code=False)
        _check_causal(config, transformers)
        model, read = transformers.AutoModelForCausalLM.from_pretrained(
            name, config=config, trust_remote_code=False, use_safetensors=True, dtype=_dtype(dtype, device),
            output_loading_info=True,
        )  # fmt: skip
    except torch.OutOfMemoryError:
        raise
    except (OSError, ValueError, TypeError, ImportError, KeyError, RuntimeError, SafetensorError) as error:
        raise _unloaded(name, "weights", error) from error
    _check_complete(model, name, sorted(read["missing_keys"]))
    causal_model(model)
    model.to(device).eval().requires_grad_(False)
    return Loaded(model, tokenizer)


def add_lora(model: nn.Module, options: LoraOptions = LoraOptions()) -> Any:
    """Put adapters of low rank on linear layers of a model that is the caller's own: they become part of it.

    Adapters are float32, whatever the model's precision; without dropout, so that training draws nothing but its batch
    order.

    Parameters
    ----------
    model : nn.Module
        As of `load_model`.
    options : LoraOptions

    Returns
    -------
    peft.PeftModel

    Raises
    ------
    ConfigError
        peft is not installed, more layers than there are, or a target that none of them has; candidates are named.
    """
    peft = _library("peft")
    inner = causal_model(model)
    total = inner.config.num_hidden_layers
    count = options.count(total)
    if count > total:
        raise ConfigError(
            explain(
                f"--layers last:K with K of at most {total}, the model's layers",
                options.layers,
                "the layers of another model",
                f"write --layers last:{max(1, total // 8)}, or --layers all",
            )
        )
    names = _targets(inner, options, range(total - count, total))
    config = peft.LoraConfig(
        r=options.rank, lora_alpha=2 * options.rank, target_modules=names, lora_dropout=0.0, bias="none",
        task_type="CAUSAL_LM", fan_in_fan_out=any(_transposed(inner.get_submodule(name)) for name in names),
    )  # fmt: skip
    with seeded(options.seed), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of transformers, to peft
        made = peft.get_peft_model(model, config)
    return made.eval()


def _targets(inner: Any, options: LoraOptions, layers: range) -> list[str]:
    """Return the names of the modules that get adapters."""
    linear = {}
    for name, module in inner.named_modules():
        parts = name.split(".")
        number = next((int(part) for part in parts if part.isdigit()), None)
        if number in layers and _is_linear(module):
            linear[name] = parts[-1]
    wanted = [word.strip() for word in options.targets.split(",") if word.strip()]
    unknown = [word for word in wanted if word not in linear.values()]
    if options.targets == AUTO:
        return sorted(linear)
    if unknown:
        candidates = ", ".join(sorted(set(linear.values())))
        raise ConfigError(
            explain(
                f"--lora-targets among the linear layers of {type(inner).__name__}: {candidates}",
                ", ".join(map(repr, unknown)),
                "names of another architecture",
                "use some of these, separated by commas, or auto for all of them",
            )
        )
    return sorted(name for name, last in linear.items() if last in wanted)


def _is_linear(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear) or _transposed(module)


def _transposed(module: nn.Module) -> bool:
    """Whether it is a linear layer that keeps its weight the other way round, as in GPT-2."""
    return type(module).__name__ == "Conv1D"


def _dtype(name: str, device: torch.device) -> Any:
    if name != AUTO:
        return DTYPES[name]
    return torch.float32 if device.type == "cpu" else "auto"


def _library(name: str) -> Any:
    try:
        return import_module(name)
    except (ImportError, RuntimeError) as error:
        raise ConfigError(
            explain(
                f"the library {name}, for language models",
                str(error).splitlines()[0],
                "it is not installed, or another package that it loads is broken (torchvision, for instance)",
                "pip install 'finfluence[lm]'",
            )
        ) from error


def _check_folder(name: str) -> None:
    place = Path(name)
    if place.is_dir() and not (place / "config.json").exists():
        raise _no_weights(name, "no config.json in it")
    if place.is_dir() and not list(place.glob("*.safetensors")):
        other = sorted(p.name for p in place.glob("*.bin")) + sorted(p.name for p in place.glob("*.gguf"))
        raise _no_weights(name, f"none; there is {', '.join(other[:3])}" if other else "none")


def _check_causal(config: Any, transformers: Any) -> None:
    known = set(transformers.models.auto.modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values())
    named = list(getattr(config, "architectures", None) or [])
    quantised = getattr(config, "quantization_config", None)
    if (named and not known & set(named)) or quantised is not None:
        raise NotSupportedError(
            explain(
                "a causal language model with plain weights",
                "quantised weights" if quantised is not None else ", ".join(named),
                "a model that fills masks, classifies, embeds, translates, or was compressed for inference",
                "name a model that writes text, in float32 or bfloat16",
            )
        )


def _check_complete(model: nn.Module, name: str, missing: list[str]) -> None:
    if missing:
        more = f" and {len(missing) - 2} more" if len(missing) > 2 else ""
        raise ConfigError(
            explain(
                f"weights for every parameter of {type(model).__name__} at {name}",
                f"none for {', '.join(missing[:2])}{more}, which would be random numbers",
                "a body that was saved without its head, a file that was edited, or another architecture's",
                "save the whole model again with save_pretrained, or name another folder",
            )
        )


def _no_weights(name: str, got: str) -> ConfigError:
    return ConfigError(
        explain(
            f"a model at {name}: config.json, tokenizer, and weights as .safetensors",
            got,
            "the folder above or below the right one, an interrupted download, or weights in another format",
            "name the folder that save_pretrained wrote; other formats are converted by loading and saving once",
        )
    )


def _unloaded(name: str, what: str, error: Exception) -> Exception:
    text = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
    if "trust_remote_code" in str(error) or "custom code" in str(error):
        return NotSupportedError(
            explain(
                "a model that transformers knows",
                f"{name}, which needs code of its own",
                "its folder brings Python files that would run here",
                "use a model of a known architecture; code from a model's folder is never run",
            )
        )
    if any(word in str(error) for word in _NO_WEIGHTS):
        return _no_weights(name, text)
    return ConfigError(
        explain(
            f"{what} of the model {name}",
            text,
            "a mistyped path, a name that cannot be reached from here, or a damaged file",
            "name a folder that holds the model, or one that was downloaded before",
        )
    )
