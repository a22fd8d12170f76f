"""What a replay costs in evaluations of row losses: counted, not timed."""

from dataclasses import dataclass

from finfluence.estimators.replay._finite_change import FEWEST, FOLLOWED, FURTHER, looked_at
from finfluence.estimators.replay._schedule import RowSchedule
from finfluence.estimators.replay.cost._timing import Workload


@dataclass(frozen=True)
class RunCosts:
    """What a run asks of a replay, whatever its queries.

    Parameters
    ----------
    sizes : tuple of float
        Rows of every step.
    untraced : bool
        Whether steps are differentiated untraced, so that gradient and product each evaluate the rows.
    tail_steps : int
        Steps taken again, in each backward pass, to the state in the middle of the tail.
    bent : bool
        Whether the update is none that is linear in the gradient: the first steps' finite changes are then taken.
    """

    sizes: tuple[float, ...]
    untraced: bool = False
    tail_steps: int = 0
    bent: bool = False

    @property
    def first_rows(self) -> float:
        """Rows whose gradients the finite changes of a run's first steps take, at most: in long runs few are taken.

        Each row of these steps by itself; and, at those that are followed further, whole batches without few rows.
        """
        if not self.bent:
            return 0.0
        looked = looked_at(len(self.sizes))
        followed = sum(self.sizes[t] for t in looked[:FOLLOWED])
        return sum(self.sizes[t] for t in looked) + FEWEST * FURTHER * followed


def trainings(
    workload: Workload, schedule: RowSchedule, horizon: int, run: RunCosts, replicas: int = 0
) -> float:
    """Return row evaluations of a replay over those of one training run.

    Σ over passes of (rows of the steps gone back over + rows evaluated along the way + rows of the first steps' finite
    changes), rows of the steps taken again to recompute states, one training for each replica, and the final losses,
    over Σ rows of all steps.

    Parameters
    ----------
    workload : Workload
    schedule : RowSchedule
    horizon : int
        Epochs of the truncation window.
    run : RunCosts
    replicas : int
        Runs repeated without groups, negative controls and the run itself among them.

    Returns
    -------
    float

    Examples
    --------
    >>> from finfluence.estimators.replay.cost import MemorySplit
    >>> from finfluence.estimators.replay._schedule import RunShape
    >>> load = Workload(RunShape(100, (10, 10)), MemorySplit(together=1, passes=2, capacity=1, interval=1))
    >>> trainings(load, RowSchedule(False, 0.0, 0), 2, RunCosts((10.0,) * 20))   # two passes, final losses
    2.5
    """
    shape, memory = workload.shape, workload.memory
    whole, steps = sum(run.sizes), shape.last(horizon)
    along = float(sum(rows * times for rows, times in schedule.evaluations(shape, horizon)))
    if workload.candidates:
        often = [len(schedule.candidate_steps(0, range(count))) for count in shape.epochs[-horizon:]]
        along += workload.candidates * sum(often)
    back = sum(run.sizes[len(run.sizes) - steps :]) * (2 if run.untraced else 1)
    if schedule.finite and steps == shape.steps:
        along += run.first_rows
    again = (memory.recomputed(steps) + memory.passes * run.tail_steps) * whole / shape.steps
    return (memory.passes * (back + along) + again + replicas * whole + shape.rows) / whole
