"""Three lines in the training loop of PyTorch's quickstart, and the rows that its test loss owes most to.

The loop is that of https://pytorch.org/tutorials/beginner/basics/quickstart_tutorial.html ("Optimizing the Model
Parameters"), unchanged but for the lines marked with `# +`. The data are scikit-learn's digits in place of a download.

python examples/record_pytorch_quickstart.py
"""

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import finfluence as fi  # +

device = "cuda" if torch.cuda.is_available() else "cpu"
batch_size = 64


class NeuralNetwork(nn.Module):
    """The quickstart's model, for images of 8×8."""

    def __init__(self) -> None:
        super().__init__()
        self.flatten = nn.Flatten()
        self.linear_relu_stack = nn.Sequential(
            nn.Linear(8 * 8, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)
        )

    def forward(self, x):
        """Return logits."""
        x = self.flatten(x)
        logits = self.linear_relu_stack(x)
        return logits


def row_loss(model, batch):
    """The loss of each row, whose mean the loop descends."""
    return nn.functional.cross_entropy(model(batch["x"]), batch["y"], reduction="none")


def train(dataloader, model, loss_fn, optimizer, tape=None):
    """The quickstart's training loop."""
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
        if tape is not None:
            tape.step(ids=range(batch * batch_size, batch * batch_size + len(X)))  # +

        if batch % 100 == 0:
            loss, current = loss.item(), (batch + 1) * len(X)
            print(f"loss: {loss:>7f}  [{current:>5d}/{size:>5d}]")


def data():
    """Return training and test data: images in [0, 1] and classes."""
    x, y = load_digits(return_X_y=True)
    x, y = torch.from_numpy(x / 16).float().view(-1, 1, 8, 8), torch.from_numpy(y)
    return TensorDataset(x[:1000], y[:1000]), TensorDataset(x[1000:], y[1000:])


def main(epochs: int = 5, record: bool = True) -> tuple[nn.Module, fi.Influence | None]:
    """Train as the quickstart does; return the model and the influence of every row on the test loss."""
    training_data, test_data = data()
    train_dataloader = DataLoader(training_data, batch_size=batch_size)
    model = NeuralNetwork().to(device)
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-1)

    tape = fi.Tape.record(model, optimizer, loss=row_loss, data=training_data) if record else None  # +
    for t in range(epochs):
        print(f"Epoch {t + 1}\n-------------------------------")
        train(train_dataloader, model, loss_fn, optimizer, tape)
    print("Done!")
    if tape is None:
        return model, None
    test_x, test_y = test_data.tensors
    return model, fi.replay(tape, fi.mean_loss(test_x, test_y, name="test loss"))  # +


if __name__ == "__main__":
    print(main()[1])
