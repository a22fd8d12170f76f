"""Two processes share one replay: the quick test beside the many of the slow suite."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import finfluence as fi
import plain_training as pt

SCRIPT = """
import os
import sys
import numpy as np
import torch
import finfluence as fi
import plain_training as pt

torch.distributed.init_process_group("gloo")
found = fi.replay(fi.train(pt.recipe()), fi.own_loss([0]), horizon=1, processes="all")
np.save(f"{sys.argv[1]}/{torch.distributed.get_rank()}.npy", found.data.effect.values)
torch.distributed.barrier()
torch.distributed.destroy_process_group()
os._exit(0)  # threads of torch's own now and then abort a process that ends in the ordinary way
"""


@pytest.mark.slow
def test_two_processes_share_the_rows_of_one_query(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT, encoding="utf-8")
    path = os.pathsep.join([str(Path(fi.__file__).parents[1]), str(Path(pt.__file__).parent)])
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    first, second = (np.load(tmp_path / f"{rank}.npy") for rank in (0, 1))
    np.testing.assert_array_equal(first, second)
    alone = fi.replay(fi.train(pt.recipe()), fi.own_loss([0]), horizon=1).data.effect.values
    np.testing.assert_allclose(first, alone, rtol=1e-6, atol=1e-9)
    assert np.abs(alone).max() > 0
