"""What importing the package costs and offers."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import finfluence as fi

SOURCE = Path(fi.__file__).parent


def test_every_public_name_resolves() -> None:
    for name in fi.__all__:
        assert getattr(fi, name).__doc__
    assert set(fi.__all__) <= set(dir(fi))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = fi.nothing


def test_importing_brings_no_heavy_library() -> None:
    code = (
        "import sys; import finfluence; "
        "heavy = {'torch', 'pandas', 'numpy', 'sklearn', 'xarray', 'statsmodels'} & set(sys.modules); "
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.bench
def test_importing_is_quick() -> None:
    code = "import time; start = time.perf_counter(); import finfluence; print(time.perf_counter() - start)"
    runs = [
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
        for _ in range(3)
    ]
    assert min(float(done.stdout) for done in runs) < 0.3


def test_nothing_unpickles() -> None:
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                names = [a.name for a in node.names] + [getattr(node, "module", None) or ""]
                assert not {"pickle", "dill", "cloudpickle"} & set(names), path
            if isinstance(node, ast.Call) and ast.unparse(node.func) in (
                "torch.load",
                "np.load",
                "numpy.load",
            ):
                keywords = {k.arg: ast.unparse(k.value) for k in node.keywords}
                safe = keywords.get("weights_only") == "True" or keywords.get("allow_pickle") == "False"
                assert safe, f"{path}: {ast.unparse(node)}"


def test_estimating_imports_no_library_that_only_files_or_series_need() -> None:
    """They took a third of the time that the package takes beside torch."""
    code = (
        "import sys; import finfluence as fi; fi.replay, fi.train; "
        "slow = {'zarr', 'statsmodels', 'sklearn', 'matplotlib'} & set(sys.modules); "
        "assert not slow, slow"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
