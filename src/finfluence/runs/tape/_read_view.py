"""What estimators read of a run, whoever made it: rows, loss, update, epochs and steps."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from finfluence.errors import ConfigError, explain
from finfluence.grads import Batch, Layout, RowLoss
from finfluence.runs.describe import Recipe, RowSource, description_digest
from finfluence.runs.steps import RecipeSteps, RecordedSteps, Step, Stepper, Update


class TapeFace(ABC):
    """The steps of a run, as a recipe or a recording tells them.

    Attributes
    ----------
    memo : dict
        What is worked out once for this run, such as traced graphs; never saved.
    """

    memo: dict[str, Any]

    @property
    @abstractmethod
    def _run(self) -> RecipeSteps | RecordedSteps:
        """The run itself."""

    @property
    def rows(self) -> RowSource:
        """The training rows."""
        return self._run.rows

    @property
    def loss(self) -> RowLoss:
        """The loss of each row, `loss(model, batch) -> Tensor[B]`."""
        return self._run.loss

    @property
    def step_loss(self) -> RowLoss:
        """Row losses of a batch of `at` or `batch`: `loss`, scaled as the step weighs its rows."""
        return self._run.step_loss

    @property
    def working(self) -> nn.Module:
        """A copy of the model in the training's mode, whose parameters are overwritten at every use."""
        return self._run.model

    @property
    def layout(self) -> Layout:
        """Where the trained parameters lie in θ."""
        return self._run.layout

    @property
    def optimizer(self) -> Update:
        """The functional update of a step."""
        return self._run.optimizer

    @property
    def stochastic(self) -> bool:
        """Whether a step's loss is to be evaluated under its own random state (dropout), untraced."""
        return self._run.eager

    @property
    def reshuffled(self) -> bool:
        """Whether no row is drawn twice within an epoch."""
        return self._run.reshuffled

    @property
    def recorded(self) -> bool:
        """Whether the tape is of a loop of the user's own, not of `train`."""
        return isinstance(self._run, RecordedSteps)

    @property
    def notes(self) -> list[str]:
        """What a reader of results should know of the recording."""
        return [] if isinstance(self._run, RecipeSteps) else self._run.recording.notes

    @property
    def batch_size(self) -> int:
        """Rows of an ordinary step."""
        return self._run.batch_size

    @property
    def sizes(self) -> Sequence[float]:
        """Rows of every step; where rows weigh differently, of an equally weighed batch of the same noise."""
        return self._run.sizes

    @property
    def epochs(self) -> Sequence[range]:
        """The steps of each pass over the rows; they may differ in length."""
        return self._run.epochs

    @property
    def noise(self) -> tuple[float, ...]:
        """Σ of squared learning rates of each epoch, up to one common factor."""
        return self._run.noise

    def at(self, t: int) -> Step:
        """Return step t: its rows, their batch, the optimiser's numbers and the random state."""
        return self._run.at(t)

    def batch(self, positions: Tensor, t: int | None = None) -> Batch:
        """Return the rows at these positions on the parameters' device, with the random state of step t."""
        return self._run.batch(positions, t)

    def describe(self) -> dict[str, Any]:
        """Return what every run of this training has in common, as plain values."""
        if "description" not in self.memo:  # reads all rows
            self.memo["description"] = self._run.describe()
        return dict(self.memo["description"])

    def digest(self) -> str:
        """Return a hash of `describe()`."""
        return description_digest(self.describe())

    def identity(self) -> dict[str, Any]:
        """Return what tells this run from others of the same training, such as its seeds."""
        return self._run.identity()

    def uncovered(self) -> list[str]:
        """Name the randomness of training that this run does not show."""
        return self._run.uncovered()

    @property
    def _trained(self) -> RecipeSteps:
        if isinstance(self._run, RecipeSteps):
            return self._run
        raise ConfigError(
            explain(
                "a tape of fi.train, which follows a recipe",
                "a recorded loop",
                "training again (retrain, verify) needs to know how the loop goes on with other rows",
                "describe the training as a fi.Recipe for that, or use the tape for fi.replay",
            )
        )

    @property
    def recipe(self) -> Recipe:
        """The recipe that `train` followed."""
        return self._trained.recipe

    @property
    def stepper(self) -> Stepper:
        """What takes the recipe's steps."""
        return self._trained.stepper

    @property
    def order(self) -> list[Tensor]:
        """Row positions of each step."""
        return self._trained.order

    @property
    def init_seed(self) -> int:
        """Seed of the initialisation."""
        return self._trained.init_seed

    @property
    def order_seed(self) -> int:
        """Seed of the batch order."""
        return self._trained.order_seed
