"""The three lines work in a loop that nobody here wrote: PyTorch's quickstart, from its documentation."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

import finfluence as fi
import finfluence.runs as fr
from finfluence.runs import seeded

pytest.importorskip("sklearn", reason="needs scikit-learn's digits")
PLACE = Path(__file__).parents[3] / "examples" / "record_pytorch_quickstart.py"
# "Optimizing the Model Parameters" of https://pytorch.org/tutorials/beginner/basics/quickstart_tutorial.html
LOOP = """
    size = len(dataloader.dataset)
    model.train()
    for batch, (X, y) in enumerate(dataloader):
        X, y = X.to(device), y.to(device)

        # Compute prediction error
        pred = model(X)
        loss = loss_fn(pred, y)

        # Backpropagation
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
"""


@pytest.fixture(scope="module")
def quickstart():
    spec = importlib.util.spec_from_file_location("record_pytorch_quickstart", PLACE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def flat(model: torch.nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().reshape(-1) for p in model.parameters()])


def test_the_loop_is_that_of_the_page_but_for_the_marked_lines():
    text = PLACE.read_text()
    assert LOOP in text and sum(line.rstrip().endswith("# +") for line in text.splitlines()) == 4


def test_three_lines_in_pytorchs_quickstart(quickstart, capsys):
    with seeded(0):
        plain, nothing = quickstart.main(epochs=2, record=False)
    with seeded(0):
        recorded, influence = quickstart.main(epochs=2)
    assert nothing is None and torch.equal(flat(plain), flat(recorded))
    data = influence.data
    assert data.sizes["subset"] == 1000 and np.isfinite(data.mu.values).all()
    assert (
        data.attrs["findings"][0]
        == "self-check: steps 0, 1, 3, 10, 30 of 32 taken again, with the same result"
    )
    assert "Done!" in capsys.readouterr().out


@pytest.mark.slow
def test_the_same_numbers_as_train(quickstart, capsys):
    """`train` on the page's batches in the page's order: the same states, and the same influence to 1e-5."""

    class InOrder(fr.Recipe):
        def epoch_order(self, seed, epoch, keep=None):
            return list(torch.arange(len(self.rows)).split(self.batch_size))

    with seeded(0):
        start = quickstart.NeuralNetwork()
    with seeded(0):
        recorded, influence = quickstart.main(epochs=2)
    training, test = quickstart.data()
    rows = fr.Rows(x=training.tensors[0], y=training.tensors[1])
    recipe = InOrder(
        data=rows, model=start, loss=quickstart.row_loss, optimizer=fr.SGD(lr=0.1), batch_size=64, epochs=2,
        drop_last=False,
    )  # fmt: skip
    tape = fi.train(recipe)
    assert torch.equal(tape.state(), flat(recorded))
    ours = fi.replay(tape, fi.mean_loss(*test.tensors, name="test loss"), seed=0)
    for name in ("effect", "spread", "mu"):
        np.testing.assert_allclose(influence.data[name].values, ours.data[name].values, rtol=1e-4, atol=1e-9)
