"""Data may hold anything; the page gains no element, no attribute and no address from it."""

import copy
import json
from collections import Counter
from html.parser import HTMLParser

import pytest
from demo_content import demo_content

from finfluence.report import embeddable, render

EVIL = (
    "\"'><img src=x onerror=alert(1)></script><script>alert(2)</script><!--]]>{{ 7*7 }}"
    "\u202e\x00\u2028\ud800&lt;"
)
EXACT = ("severity", "action", "reason", "sign", "better", "image_png", "query", "metric", "kind")


class Elements(HTMLParser):
    """Counts elements and the names of their attributes; keeps the text of scripts apart."""

    def __init__(self, page: str):
        super().__init__(convert_charrefs=True)
        self.tags: Counter[str] = Counter()
        self.attributes: set[str] = set()
        self.addresses: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes.update(name for name, _ in attrs)
        self.addresses += [
            value or "" for name, value in attrs if name in ("src", "href", "action", "data", "srcset")
        ]


def poison(value: object, key: str = "") -> object:
    """Return the content with EVIL after every text that the schema leaves free, keys of mappings too."""
    if isinstance(value, dict):
        free = key in ("cells", "facts")
        return {(k + EVIL if free else k): poison(v, k) for k, v in value.items()}
    if isinstance(value, list):
        return [poison(item, key) for item in value]
    return value + EVIL if isinstance(value, str) and key not in EXACT else value


def poisoned(kind: str) -> dict:
    content = demo_content(20, kind)
    evil = poison(copy.deepcopy(content))
    evil["glossary"] = {EVIL: EVIL}
    evil["verification"]["verdict"] = content["verification"]["verdict"]
    for query in evil["queries"]:
        query["name"] = query["name"].removesuffix(EVIL)
    for metric in evil["cleaning"]["metrics"]:
        metric["name"] = metric["name"].removesuffix(EVIL)
    return evil


@pytest.mark.parametrize("kind", ["image", "cells", "text", "none"])
def test_no_element_or_attribute_comes_from_data(kind: str) -> None:
    clean = demo_content(20, kind)
    clean["glossary"] = {"x": "y"}
    page = render(poisoned(kind))
    before, after = Elements(render(clean)), Elements(page)
    assert after.tags == before.tags
    assert after.attributes == before.attributes
    assert not any(name.startswith("on") or name == "style" for name in after.attributes)
    assert after.tags["script"] == (2 if clean["rows"] else 1)
    assert page.encode("utf-8").decode("utf-8") == page
    assert not set(page) & set("\x00\u202e\u2028\ud800")


def test_query_and_metric_names_are_escaped() -> None:
    content = demo_content(20)
    for part in (content["queries"], content["cleaning"]["metrics"]):
        for item in part:
            item["name"] += EVIL
    for item in (*content["rows"], *content["distributions"]):
        item["query"] += EVIL
    for item in content["cleaning"]["differences"]:
        item["metric"] += EVIL
    for item in content["cleaning"]["arms"]:
        item["values"] = {name + EVIL: value for name, value in item["values"].items()}
    assert Elements(render(content)).tags == Elements(render(demo_content(20))).tags


def test_templates_are_not_read_from_data() -> None:
    page = render({"title": "t", "verdict": "{{ 7*7 }} {% raw %}"})
    assert "{{ 7*7 }} {% raw %}" in page


def test_page_reaches_for_nothing() -> None:
    found = Elements(render(demo_content(20)))
    assert all(a.startswith(("#", "data:image/png;base64,")) or a == "data:," for a in found.addresses)
    for word in ("http://", "https://", "//cdn", "@import", "url("):
        assert word not in render(demo_content(20))


def test_policy_forbids_all_but_the_page_itself() -> None:
    page = render(demo_content(20))
    policy = page.partition('http-equiv="Content-Security-Policy" content="')[2].partition('"')[0]
    assert policy.startswith("default-src &#39;none&#39;; img-src data:; style-src &#39;sha256-")
    assert "unsafe" not in policy


def test_a_megabyte_in_a_cell_is_cut() -> None:
    content = demo_content(20, "cells")
    content["title"] = content["findings"][0]["text"] = content["origin"]["command"] = "y" * 1_000_000
    for row in content["rows"]:
        row["row_id"] = row["label"] = row["group"] = "x" * 1_000_000
        row["preview"] = {"cells": {"k" * 1_000_000: "v" * 1_000_000}}
    page = render(content)
    assert len(page) < 500_000
    assert "… (1,000,000 characters)" in page


def test_embedded_json_is_still_json() -> None:
    raw = embeddable({"a": EVIL.replace("\ud800", "")})
    assert not set(raw) & set("<>&\u2028\u2029")
    assert json.loads(raw) == {"a": EVIL.replace("\ud800", "")}
