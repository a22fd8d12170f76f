"""CausalPFN as the outcome regression of `fi.assess.policy_effect`, from weights on disk."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from finfluence._extras import require
from finfluence.errors import DataError, StorageError, explain

MOST_CONTEXT = 4096
_AT_ONCE = 4096
_CONVERT = (
    "on a machine where you trust the file: ckpt = torch.load(PATH, weights_only=True); "
    "safetensors.torch.save_file({k: v.contiguous() for k, v in ckpt['model_state_dict'].items()}, "
    "'causalpfn.safetensors', {'model_config': json.dumps(ckpt['model_config'])})"
)


class CausalPFN:
    r"""Expected outcome of both arms by a transformer that reads the subjects as its context: nothing is trained.

    Pass it as the regressor of `policy_effect(…, models=(CausalPFN(path), classifier))`. The package's own interval for
    a mean effect treats subjects as if their predictions erred independently and is too narrow; the cross-fitted score
    of `policy_effect`, with :math:`\hat g(t, w)` from here, has one that does not rest on the network.

    Parameters
    ----------
    weights
        Local safetensors file of the network's state with its `model_config` as JSON in the metadata. A pickle is
        refused, and nothing is downloaded.

    Raises
    ------
    StorageError
        No such file, or not of this kind: a pickle, one without its configuration, or one that does not fit it.
    ConfigError
        The library causalpfn is not installed.

    Notes
    -----
    At most 4,096 subjects as context, on CPU; memory grows with context × subjects asked. Effects of single rows are
    far below what its training resolves (targets smoothed by half a standard deviation of an arm): it is for policies.

    References
    ----------
    Balazadeh et al., "CausalPFN: amortized causal effect estimation via in-context learning" (NeurIPS 2025).
    """

    def __init__(self, weights: str | os.PathLike[str]) -> None:
        models = require("causalpfn.models", "predicts both arms' outcomes", "causalpfn")
        state, config = _read(Path(weights))
        try:
            self.network = models.InContextModel.load(model_state=state, model_config=config).eval()
            self.most_covariates = int(config["model"]["max_num_features"]) - 1
        except (RuntimeError, KeyError, TypeError, ValueError, AttributeError) as error:
            raise StorageError(
                explain(
                    f"weights that fit the model_config beside them in {weights}",
                    f"{type(error).__name__}: {str(error).splitlines()[0]}",
                    "another version of causalpfn wrote them, or names were changed on the way",
                    _CONVERT,
                )
            ) from error

    def regression(
        self, included: np.ndarray, outcome: np.ndarray, covariates: np.ndarray
    ) -> Callable[[int, np.ndarray], np.ndarray]:
        """Return g(arm, covariates), the expected outcome with these subjects as context.

        Returns
        -------
        callable

        Raises
        ------
        DataError
            More subjects or covariates than the network reads.
        """
        if len(outcome) > MOST_CONTEXT or covariates.shape[1] > self.most_covariates:
            raise DataError(
                explain(
                    f"at most {MOST_CONTEXT:,} subjects to learn from and {self.most_covariates} covariates",
                    f"{len(outcome):,} and {covariates.shape[1]}",
                    "a longer or wider table than the network was trained for",
                    "draw subjects by chance, keep the leading principal components, or use the default models",
                )
            )
        context = [_tensor(v) for v in (covariates, included, outcome)]

        def g(arm: int, asked: np.ndarray) -> np.ndarray:
            found = []
            with torch.no_grad():
                for part in np.array_split(asked, max(1, -(-len(asked) // _AT_ONCE))):
                    said = self.network.predict_cepo(
                        *context, _tensor(part), _tensor(np.full(len(part), arm)), torch.ones(1)
                    )
                    found.append(said[0, 0].double().numpy())
            return np.concatenate(found)

        return g


def _tensor(values: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.asarray(values, dtype=np.float32))[None]


def _read(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    try:
        with safe_open(path, "pt") as file:
            config = (file.metadata() or {}).get("model_config")
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise StorageError(
            explain(
                f"a safetensors file of CausalPFN's weights at {path}",
                str(error).splitlines()[0],
                "the published checkpoint is a pickle, which could run any code and is not read here",
                _CONVERT,
            )
        ) from error
    if config is None:
        raise StorageError(
            explain(
                f"the network's model_config in the metadata of {path}",
                f"keys {', '.join(list(state)[:3])} … without it",
                "another network's weights, or a file that was written without metadata",
                _CONVERT,
            )
        )
    return state, json.loads(config)
