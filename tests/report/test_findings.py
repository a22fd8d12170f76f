"""The register of findings: what is emitted is registered, what is registered is emitted, and all of it is explained."""

import re
from pathlib import Path

import pytest

import finfluence
from finfluence.errors import ConfigError
from finfluence.report import FINDINGS, finding, findings_page, render
from four_parts import assert_parts

SOURCES = Path(finfluence.__file__).parent


def test_every_code_in_use_is_registered_and_every_registered_one_is_in_use() -> None:
    register = SOURCES / "report" / "_findings.py"
    used = {
        code
        for path in SOURCES.rglob("*.py")
        if path != register
        for code in re.findall(r'"(FI\d{3})"', path.read_text(encoding="utf-8"))
    }
    assert used == set(FINDINGS)


def test_codes_are_made_by_the_register_alone() -> None:
    for path in SOURCES.rglob("*.py"):
        if path.name != "_findings.py":
            assert "Finding(code=" not in path.read_text(encoding="utf-8"), path


def test_an_unregistered_code_is_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        finding("FI999", "x")
    assert_parts(
        caught.value,
        "a registered code of a finding: FI010",
        "'FI999'",
        "not registered",
        "severity, title, meaning",
    )
    assert finding("FI050", "x").severity == "error" and finding("FI020", "x").severity == "warning"


def test_the_page_explains_every_code() -> None:
    page = findings_page()
    for kind in FINDINGS.values():
        assert f"## {kind.code}: {kind.title} {{#{kind.anchor}}}" in page
        assert kind.meaning in page and kind.remedy in page


def test_the_report_links_a_code_to_its_text() -> None:
    page = render(
        {
            "title": "toy",
            "verdict": "Nothing.",
            "findings": [
                finding("FI021", "One run."),
                {"code": "FI999", "severity": "info", "text": "Foreign."},
            ],
        }
    )
    assert 'href="#finding-fi021"' in page and 'id="finding-fi021"' in page
    assert "it covers the order of the batches, not the initialisation" in page
    assert "<code>FI999</code>" in page and "finding-fi999" not in page


def test_the_page_in_the_documentation_is_the_one_of_the_register() -> None:
    page = SOURCES.parents[1] / "docs" / "reference" / "findings.md"
    assert page.read_text(encoding="utf-8") == findings_page()
