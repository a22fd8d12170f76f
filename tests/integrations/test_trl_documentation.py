"""The scripts in the documentation of TRL's trainers, as they are installed, plus two lines."""

import inspect
import json
import os
import re
import warnings

import numpy as np
import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    pytest.importorskip("trl", reason="TRL is not installed: make trl")
    import transformers
    import trl

import tiny_language as tl

pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]
IMPORT = "from finfluence.integrations.huggingface import TapeCallback\n"
CALLBACK = 'trainer.add_callback(recorded := TapeCallback("tape"))\n'


def script(trainer: type) -> str:
    """Return the example in the trainer's docstring, with the two lines."""
    example = inspect.cleandoc(trainer.__doc__).split("```python\n")[1].split("```")[0]
    code = "".join(line[4:] + "\n" for line in example.splitlines() if line[:3] in (">>>", "..."))
    assert code.count("trainer.train()\n") == 1
    return IMPORT + code.replace("trainer.train()\n", f"{CALLBACK}trainer.train()\n")


def words(draw, count):
    return " ".join(draw.choice(tl.WORDS, size=count))


def row(kind: str, draw) -> dict:
    if kind == "SFTTrainer":
        return {"text": words(draw, 6)}
    return {"prompt": words(draw, 3), "chosen": words(draw, 3), "rejected": words(draw, 2)}


@pytest.mark.parametrize("trainer", [trl.SFTTrainer, trl.DPOTrainer])
def test_a_script_of_the_documentation_and_two_lines(trainer, tmp_path, monkeypatch):
    """Its names of a model and of data are folders here: a tiny model, rows written by the test."""
    monkeypatch.chdir(tmp_path)
    # TRL trains under bf16 autocast, which transformers offers without a GPU only where a script asks for the CPU.
    monkeypatch.setattr(transformers.training_args, "is_torch_bf16_gpu_available", lambda: True)
    code = script(trainer)
    data, split = re.search(r'load_dataset\("([^"]+)", split="([^"]+)"\)', code).groups()
    model = re.search(r'model="([^"]+)"', code)[1]
    tl.save(tmp_path / model, tl.llama(), tl.tokenizer())
    os.makedirs(data)
    draw, count = np.random.default_rng(0), 8 * (100 if "1%" in split else 1)
    with open(f"{data}/train.jsonl", "w") as file:
        file.writelines(json.dumps(row(trainer.__name__, draw)) + "\n" for _ in range(count))
    names: dict = {}
    exec(compile(code, f"documentation of {trainer.__name__}", "exec"), names)
    tape = names["recorded"].tape
    assert tape.steps == 3 and len(tape.epochs) == 3 and len(tape.rows) == 8
    assert tape.notes[0].startswith("self-check: steps 0, 1 of 3 taken again")
