"""One callback in a Lightning training, and the rows that its test loss owes most to.

The data are scikit-learn's digits.

python examples/record_lightning.py
"""

import lightning.pytorch as L
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, Dataset

import finfluence as fi  # +
from finfluence.integrations.lightning import RecordTape


class Digits(Dataset):
    """Images in [0, 1] and classes; every item says which row it is."""

    def __init__(self, rows: slice) -> None:
        x, y = load_digits(return_X_y=True)
        self.x, self.y = torch.from_numpy(x / 16).float()[rows], torch.from_numpy(y)[rows]

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.y)

    def __getitem__(self, i: int) -> dict:
        """Return image, class and id."""
        return {"x": self.x[i], "y": self.y[i], "id": i}


def row_loss(module, batch):
    """The loss of each row, whose mean the training descends."""
    return nn.functional.cross_entropy(module(batch["x"]), batch["y"], reduction="none")


class Classifier(L.LightningModule):
    """A small network with dropout, AdamW and a learning rate that falls to zero."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(64, 64), nn.GELU(), nn.Dropout(0.1), nn.Linear(64, 10))

    def forward(self, x):
        """Return logits."""
        return self.net(x)

    def training_step(self, batch, index):
        """Return the mean loss."""
        return row_loss(self, batch).mean()

    def validation_step(self, batch, index):
        """Log the test loss."""
        self.log("test loss", row_loss(self, batch).mean())

    def configure_optimizers(self):
        """Return optimiser and schedule."""
        optimizer = torch.optim.AdamW(self.parameters(), lr=3e-3)
        steps = self.trainer.estimated_stepping_batches
        return [optimizer], [
            {"scheduler": torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps), "interval": "step"}
        ]


def main(epochs: int = 5, record: bool = True) -> tuple[nn.Module, fi.Influence | None]:
    """Train; return the module and the influence of every row on the test loss."""
    L.seed_everything(0)
    training, test = Digits(slice(1000)), Digits(slice(1000, None))
    module = Classifier()
    recorded = RecordTape(loss=row_loss, data=training)  # +
    trainer = L.Trainer(
        max_epochs=epochs, gradient_clip_val=1.0, accumulate_grad_batches=2, logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        callbacks=[recorded] if record else [],  # +
    )  # fmt: skip
    trainer.fit(module, DataLoader(training, batch_size=25, shuffle=True), DataLoader(test, batch_size=400))
    if not record:
        return module, None
    return module, fi.replay(recorded.tape, fi.mean_loss(test.x, test.y, name="test loss"))  # +


if __name__ == "__main__":
    print(main()[1])
