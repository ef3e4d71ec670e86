"""What README and the pages of docs/ point to: files, headings, tests and names that are there."""

from __future__ import annotations

import re

import pytest

from tests.pages import FENCE, PAGES, ROOT, imported

OTHERS = ("CONTRIBUTING.md", "results/README.md")


def anchors(text: str) -> set[str]:
    """Of the headings of a page, as GitHub and mkdocs make them."""
    heads = re.findall(r"^#+ (.+)$", FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"\s+", "-", re.sub(r"[^\w\s-]", "", head.lower()).strip()) for head in heads}


@pytest.mark.parametrize("page", [*PAGES, *OTHERS])
def test_its_links_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text("utf-8")
    for link in re.findall(r"\]\(([^)\s]+)\)", FENCE.sub("", text)):
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = (ROOT / page).parent / path if path else ROOT / page
        assert target.exists() and ROOT in target.resolve().parents, link
        if anchor:
            assert anchor in anchors(target.read_text("utf-8")), link


def test_a_test_that_is_said_to_hold_something_is_there() -> None:
    found = re.findall(r"\[`(test_\w+)`\]\((?:\.\./)+(tests/test_\w+\.py)\)", "".join(PAGES.values()))
    assert len(found) > 30
    for name, path in found:
        assert f"\ndef {name}(" in (ROOT / path).read_text("utf-8"), name


def test_every_page_is_in_the_navigation_and_every_name_of_the_api_is_there() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text("utf-8")
    for page, text in PAGES.items():
        if page != "README.md":
            assert page.removeprefix("docs/") in navigation, page
        for name in re.findall(r"^::: ([\w.]+)$", text, re.MULTILINE):
            imported(name)


def test_the_readme_is_two_screens() -> None:
    assert len(PAGES["README.md"].encode()) <= 6144
