#!/usr/bin/env bash
# Build the wheel, install it into an empty environment away from the checkout, and run the short demo there.
set -euo pipefail
cd "$(dirname "$0")/.."
checkout=$PWD
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
mkdir -p "$place/source/src"
cp pyproject.toml README.md LICENSE "$place/source/"
cp -r src/finfluence "$place/source/src/"
cp constraints-cpu.txt "$place/"

cd "$place"
python3 -m venv venv
venv/bin/pip install --quiet uv
venv/bin/pip wheel --quiet --no-deps --wheel-dir dist ./source
rm -rf source
wheel=$(echo "$place"/dist/finfluence-*.whl)
# As in the Makefile: constraints-cpu.txt pins the CPU build of torch; uv reads no pip configuration.
UV_FIND_LINKS="${PIP_FIND_LINKS:-}" venv/bin/uv pip install --quiet --python venv/bin/python -c constraints-cpu.txt \
  "finfluence[data,report] @ file://$wheel" ||
  venv/bin/pip install --quiet -c constraints-cpu.txt "finfluence[data,report] @ file://$wheel"

venv/bin/python - "$checkout" <<'PYTHON'
import sys
from importlib.metadata import version
from importlib.resources import files

import finfluence

place = files("finfluence")
assert not str(place).startswith(sys.argv[1]), place
assert version("finfluence") == finfluence.__version__
for name in ("py.typed", "report/templates/report.html.j2", "report/templates/report.css"):
    assert (place / name).is_file(), name
assert not any("tests" in str(path) for path in place.iterdir())
PYTHON
venv/bin/finfluence --version
venv/bin/python -m finfluence demo --short --out demo-out
test -s demo-out/scan/report.html
venv/bin/finfluence show demo-out/scan --top 3
echo "the wheel works: $(basename "$wheel")"
