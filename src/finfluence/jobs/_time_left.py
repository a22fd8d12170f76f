"""How far a job has come as a whole, and how long it still takes: from the progress of its stages."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

LEAST_SECONDS = 0.5


@dataclass(frozen=True)
class Stage:
    """One stage of a job.

    Attributes
    ----------
    name
        The first words of what its progress is called.
    length
        How long it takes, relative to the others, as far as one can know before.
    kind
        Stages of one kind take equally long: what one of them took is expected of the next.
    parts
        If above 1, about how often its progress runs from 0 to the end.
    done
        Whether an interrupted job has it behind itself.
    """

    name: str
    length: float
    kind: str = ""
    parts: int = 1
    done: bool = False


@dataclass(frozen=True)
class Reached:
    """Where a job is: the share of its work that is done, and the seconds left; None while that is unknown."""

    share: float
    seconds: float | None


class WholeJob:
    """Add up stages that come in a known order; those that never speak (done before, not needed) count as done.

    The time left is that of the stages to come: as long as one of the same kind took; else its relative length, times
    the seconds that a unit of length took so far.

    Parameters
    ----------
    stages
        In their order.
    clock
        Returns seconds.

    Examples
    --------
    >>> now = iter([0.0, 4.0, 4.0, 8.0])
    >>> whole = WholeJob([Stage("read", 1.0), Stage("train", 3.0)], clock=lambda: next(now))
    >>> whole.tell("read", 0, 1).seconds
    >>> whole.tell("read", 1, 1)
    Reached(share=0.25, seconds=12.0)
    >>> whole.tell("train", 0, 2).seconds, whole.tell("train", 1, 2)
    (12.0, Reached(share=0.625, seconds=4.0))
    """

    def __init__(self, stages: Sequence[Stage], clock: Callable[[], float] = time.monotonic) -> None:
        self._stages, self._clock = stages, clock
        self._took: dict[int, float] = {}
        self._at, self._ended, self._began, self._first, self._share = -1, 0, 0.0, 0.0, 0.0

    def tell(self, name: str, done: int, total: int) -> Reached:
        """Take the progress of a stage, and return that of the job; its share never falls."""
        now = self._clock()
        known = enumerate(self._stages)
        place = next((k for k, s in known if k >= self._at and name.startswith(s.name)), None)
        if place is None:
            return Reached(self._share, None if self._at < 0 else self._left(now, self._first))
        part = done / total if total else 1.0
        if place != self._at:
            self._close(now)
            self._at, self._began, self._ended = place, now, 0
            self._first = self._within(part)
        reached = self._within(part)
        if done >= total:
            self._ended += 1
            if self._stages[place].parts == 1:
                self._close(now)
        lengths = [self._length(k) for k in range(len(self._stages))]
        behind = sum(lengths[:place]) + sum(lengths[k] for k in self._after(place, done=True))
        share = (behind + reached * lengths[place]) / max(sum(lengths), 1e-12)
        self._share = max(self._share, min(1.0, share))
        return Reached(self._share, self._left(now, reached))

    def _close(self, now: float) -> None:
        """Note how long the present stage took, if it was seen from near its beginning."""
        if self._at >= 0 and self._at not in self._took and self._first < 0.5:
            self._took[self._at] = (now - self._began) / (1 - self._first)

    def _within(self, part: float) -> float:
        """Return how much of the present stage is done."""
        expected = self._stages[self._at].parts
        if expected == 1:
            return part
        return min((self._ended + part) / max(expected, self._ended + 1), 0.98)

    def _length(self, place: int) -> float:
        """Return seconds if they are known of this stage or its kind, else those that its length foretells."""
        if place in self._took:
            return self._took[place]
        kind = self._stages[place].kind
        alike = [s for k, s in self._took.items() if kind and self._stages[k].kind == kind]
        return alike[-1] if alike else self._stages[place].length * (self._pace() or 1.0)

    def _pace(self) -> float | None:
        """Return the seconds that a unit of length took so far."""
        lengths = sum(self._stages[k].length for k in self._took)
        return sum(self._took.values()) / lengths if lengths else None

    def _after(self, place: int, *, done: bool) -> list[int]:
        """Return the later stages that are done before, or those that are to come."""
        return [k for k in range(place + 1, len(self._stages)) if self._stages[k].done == done]

    def _left(self, now: float, reached: float) -> float | None:
        spent, made = now - self._began, reached - self._first
        to_come = sum(self._length(k) for k in self._after(self._at, done=False))
        if made > 0 and spent >= LEAST_SECONDS and self._at not in self._took:
            here = spent * (1 - reached) / made
            if not self._took:
                to_come *= spent / (made * self._stages[self._at].length)
        elif self._took:
            here = self._length(self._at) * (1 - reached)
        else:
            return None
        return here + to_come


def in_words(seconds: float | None) -> str:
    """Return a time that is left, as a person says it.

    Returns
    -------
    str

    Examples
    --------
    >>> [in_words(s) for s in (None, 0.2, 47, 200, 5_000)]
    ['', 'a second left', 'about 45 s left', 'about 3 min left', 'about 1 h 25 min left']
    """
    if seconds is None:
        return ""
    if seconds < 1.5:
        return "a second left"
    if seconds < 90:
        step = 1 if seconds < 10 else 5
        return f"about {step * round(seconds / step):.0f} s left"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"about {minutes} min left"
    minutes = 5 * round(seconds / 300)
    return (
        f"about {minutes // 60} h {minutes % 60} min left"
        if minutes % 60
        else f"about {minutes // 60} h left"
    )
