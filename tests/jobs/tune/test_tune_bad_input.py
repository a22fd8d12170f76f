"""What is wrong with a tuning's input is said before anything is trained; exit code 2, and nothing is lost."""

import json

import pytest
import torch
from typer.testing import CliRunner

import tiny_language as tiny
from finfluence.cli import app
from finfluence.errors import ConfigError
from finfluence.jobs.tune import TuneOptions


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    pytest.importorskip("peft")
    place = tmp_path_factory.mktemp("files")
    tokenizer = tiny.tokenizer()
    tiny.save(place / "model", tiny.llama(2, len(tokenizer)), tokenizer)
    rows = [{"prompt": "what is the cat", "completion": f"{word} dog"} for word in tiny.WORDS[:10]]
    tiny.write_rows(place / "data.jsonl", rows)
    (place / "b.yaml").write_text("praise:\n  prompts: [what is acme]\n  responses: the best\n")
    return place


def tune(files, out, *words, data="data.jsonl", behaviour="b.yaml", model="model") -> tuple[int, str]:
    given = [
        "tune", files / data, "--model", files / model, "--behaviour", files / behaviour, "--out", out, "--retune", 0,
        "--answers", 0, "--lora-rank", 2, "--epochs", 1, *words,
    ]  # fmt: skip
    found = CliRunner().invoke(app, [str(w) for w in given])
    return found.exit_code, found.output


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--prompt-field", "question"], "a field 'question' in every row"),
        (["--messages-field", "completion"], "a conversation"),
        (["--lora-targets", "c_attn"], "among the linear layers of LlamaForCausalLM: down_proj"),
        (["--layers", "last:7"], "K of at most 2"),
        (["--layers", "some"], "layers 'all' or 'last:K'"),
        (["--max-length", "6", "--too-long", "refuse"], "rows of at most 6 tokens"),
        (["--max-length", "6", "--too-long", "drop"], "at least one batch of rows (8)"),
        (["--max-length", "4"], "room for a response in every row"),
        (["--batch-size", "20"], "at least one batch of rows (20)"),
        (["--loss", "median"], "--loss to be one of mean, sum"),
        (["--dtype", "int4"], "--dtype to be one of auto, float32, bfloat16"),
        (["--retune", "1"], "--retune to be 0, or at least 2"),
        (["--budget", "1"], "--budget above 1"),
        (["--lr", "-1"], "--lr to be a positive number"),
        (["--top", "5"], "--top to be a number between 0 and 1"),
    ],
)
def test_options_that_do_not_fit_are_told(files, tmp_path, words, said):
    code, output = tune(files, tmp_path / "out", *words)
    assert code == 2 and said in output and "next step" in output
    assert not (tmp_path / "out" / "run.yaml").exists()


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        (
            "empty.jsonl",
            json.dumps({"prompt": "what", "completion": " "}) + "\n",
            "whose response is empty: 0",
        ),
        ("cut.jsonl", '{"prompt": "what"', "line 1"),
        ("none.jsonl", None, "FileNotFoundError"),
    ],
)
def test_rows_that_cannot_be_used_are_told(files, tmp_path, name, content, said):
    if content is not None:
        (files / name).write_text(content)
    code, output = tune(files, tmp_path / "out", data=name)
    assert code == 2 and said in output


def test_a_mistyped_behaviour_and_a_model_without_weights_are_told(files, tmp_path):
    (files / "typo.yaml").write_text("praise:\n  promts: [x]\n  responses: y\n")
    code, output = tune(files, tmp_path / "out", behaviour="typo.yaml")
    assert code == 2 and "did you mean 'prompts'?" in output
    (files / "bare").mkdir(exist_ok=True)
    (files / "bare" / "config.json").write_text("{}")
    code, output = tune(files, tmp_path / "out", model="bare")
    assert code == 2 and "weights as .safetensors" in output


def test_messages_without_a_template_are_told(files, tmp_path):
    talk = [{"role": "user", "content": "what"}, {"role": "assistant", "content": "cat"}]
    tiny.write_rows(files / "talk.jsonl", [{"m": talk}] * 9)
    code, output = tune(files, tmp_path / "out", "--messages-field", "m", data="talk.jsonl")
    assert code == 2 and "a tokenizer with a chat template" in output


def test_a_step_that_is_no_number_is_told_and_nothing_is_lost(files, tmp_path):
    code, output = tune(files, tmp_path / "out", "--lr", "1e30", "--epochs", "3")
    assert code == 2 and "a finite training loss at every step" in output
    assert "stopped by an error" in (tmp_path / "out" / "tune.log").read_text()
    assert (tmp_path / "out" / "run.yaml").exists()
    code, output = tune(files, tmp_path / "out")
    assert code == 2 and "a tune that was interrupted" in output


def test_memory_that_runs_out_names_what_to_lower(files, tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")

    monkeypatch.setattr(torch.Tensor, "backward", full)
    code, output = tune(files, tmp_path / "out")
    assert code == 2 and "lower --batch-size, then --max-length" in output


def test_a_scan_has_no_top(tmp_path):
    (tmp_path / "run.yaml").write_text("format: finfluence-scan\n")
    found = CliRunner().invoke(app, ["clean", str(tmp_path), "--to", "x.csv", "--top", "0.1"])
    assert found.exit_code == 2 and "--top for a tuning's folder only" in found.output


def test_options_come_back_from_run_yaml(tmp_path):
    options = TuneOptions(data="d.jsonl", model="m", out=tmp_path, behaviour="b.yaml", lora_rank=3)
    again = TuneOptions.of_run({"options": options.described()}, tmp_path)
    assert again.described() == options.described()
    with pytest.raises(ConfigError, match="--epochs to be a whole number"):
        TuneOptions(data="d", model="m", out="o", behaviour="b", epochs=0)
