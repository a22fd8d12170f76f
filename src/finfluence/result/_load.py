"""Load a saved result."""

import os
from pathlib import Path

from finfluence.result._influence import Influence
from finfluence.result._io import read


def load(path: str | os.PathLike[str], *, lazy: bool = False) -> Influence:
    """Load a result that `Influence.save` or `replay(…, save_to=…)` wrote, or that is in the folder of a scan.

    Parameters
    ----------
    path : path
        The result's folder, or that of a finished scan.
    lazy : bool
        Leave the numbers on disk and read those that are used. Either way all of them are read once, block by block, to
        check that none is lost.

    Returns
    -------
    Influence

    Raises
    ------
    StorageError
        Nothing there, another program's folder, or damaged arrays.
    """
    return Influence(read(Path(path), lazy=lazy))
