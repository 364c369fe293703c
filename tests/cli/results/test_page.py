"""The page of a document: nothing of it is fetched, run or believed, and it is small, whatever the job."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fastoci import Engine, PrefetchRequest
from fastoci.cli.report import Report
from fastoci.cli.results.document import BlobReport, Document, Failure, ImageReport, PlanFigures, RegistryReport
from fastoci.cli.results.options import ResultOptions
from fastoci.cli.results.outputs import Outputs
from fastoci.cli.results.page import render
from fastoci.testing.registry import Registry
from support.images import image_of, made

HOSTILE = "</td></title></style><script>alert(1)</script><img src=x onerror=y>\"'&\x1b[31m\u202e\x00" + "x" * 5000
ELEMENTS = {
    *("html", "head", "meta", "title", "style", "body", "h1", "h2", "p", "span", "table", "thead", "tbody"),
    *("tr", "th", "td", "br", "small", "code", "svg", "rect", "line", "text"),
}
VOID = {"meta", "br"}
FIGURES = PlanFigures(2, 1, 4, 1000, 300, 100, 3, 900, {"r": 900}, 5, None, None, 3)
EMPTY = Document(1, "complete", 0, "2026-11-30T14:05:09Z", 1.5, None, FIGURES, [], [], [], evicted=None, pruned=None)


class Parsed(HTMLParser):
    """Elements in balance, their attributes, and the text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append((self.open[-1] if self.open else "", data))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def changed(**fields: Any) -> Document:
    return msgspec.structs.replace(EMPTY, **fields)


def image(number: int, outcome: Any = "fetched", text: str = "") -> ImageReport:
    error = Failure(text, text, 5) if outcome == "failed" else None
    return ImageReport(f"r/app:{number}{text}", text, outcome, f"sha256:{number:064}", 10, 5, 1.0, error, None)


def blob(number: int, count: int = 1, text: str = "") -> BlobReport:
    began = number / 100
    return BlobReport(f"sha256:{number:064}", number, f"r{text}", began, began + 1, text, list(range(count)))


def test_hostile_text_is_text_and_nothing_else() -> None:
    failure = Failure(HOSTILE, HOSTILE, 1)
    page = render(
        changed(
            state="failed",
            began_at=HOSTILE,
            error=failure,
            images=[image(1, "failed", HOSTILE), image(2, "present", HOSTILE)],
            blobs=[blob(1, text=HOSTILE)],
            registries=[RegistryReport(HOSTILE, 1, 1, 1, 1)],
        )
    )
    parsed = Parsed(page)
    assert {tag for tag, _ in parsed.elements} <= ELEMENTS
    assert not [
        name for _, each in parsed.elements for name in each if name.startswith("on") or name in ("src", "href")
    ]
    assert not {"\x1b", "\u202e", "\x00"} & set(page)
    assert "alert(1)" in "".join(text for tag, text in parsed.texts if tag == "td")
    assert max(len(text) for tag, text in parsed.texts if tag != "style") < 1500


def test_the_policy_lets_nothing_be_fetched_or_run_but_the_style_of_the_page() -> None:
    page = render(EMPTY)
    policy = next(each["content"] for each in Parsed(page).all("meta") if "http-equiv" in each)
    (style,) = re.findall("<style>(.*?)</style>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy == f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    assert "url(" not in style
    assert "@import" not in style
    assert "prefers-color-scheme:dark" in style


def test_failures_come_first_and_each_outcome_is_counted() -> None:
    outcomes = ["present", "fetched", "failed", "skipped", "unfinished"]
    page = render(changed(images=[image(number, outcome) for number, outcome in enumerate(outcomes)]))
    shown = [each["class"] for each in Parsed(page).all("span")]
    first = ["failed", "unfinished", "skipped", "fetched", "present"]
    assert shown == first * 2  # in the summary, in the table
    assert "5 images:" in page


def test_bars_are_where_the_times_are() -> None:
    blobs = [BlobReport("a", 10, "r", 0.0, 2.0, "", [0]), BlobReport("b", 20, "r", 2.0, 4.0, "no", [0, 1])]
    blobs.append(BlobReport("c", 5, "r", 1.0, None, "", [0]))
    parsed = Parsed(render(changed(blobs=blobs)))
    drawn = [(each["x"], each["width"], each.get("class")) for each in parsed.all("rect")]
    assert drawn == [("0.0", "500.0", None), ("250.0", "750.0", "bad"), ("500.0", "500.0", "bad")]
    titles = [text for tag, text in parsed.texts if tag == "title"][1:]
    assert titles[1:] == ["c, 5 bytes, r, 1 image, 1.0 to 4.0 s", "b, 20 bytes, r, 2 images, no, 2.0 to 4.0 s"]


@pytest.mark.parametrize("text", ["", "'" * 400], ids=["plain", "escaped"])
def test_a_page_of_any_job_is_small_and_says_what_it_leaves_out(text: str) -> None:
    page = render(
        changed(
            images=[image(number, "failed" if number > 1000 else "present", text) for number in range(3000)],
            blobs=[blob(number, 3, text) for number in range(10_000)],
            registries=[RegistryReport(f"{number}{text}", 1, 1, number, 0) for number in range(300)],
        )
    )
    assert len(page.encode()) <= (5_000_000 if text else 1_000_000)
    parsed = Parsed(page)
    assert len(parsed.all("rect")) == 500
    assert len(parsed.all("tr")) <= 1000 + 100 + 5 + 3
    assert "9500 others have" in page
    assert "And 999 failed, 1001 present." in page
    assert "from 200 others" in page


async def test_a_report_by_its_suffix_is_the_page_of_the_same_document(tmp_path: Path) -> None:
    built = image_of(made(1, files=1, size=1000))
    async with Registry() as registry:
        registry.add_image("app", "1", built)
        wanted = [PrefetchRequest(f"{registry.address}/app:1")]
        asked = ResultOptions((tmp_path / "r.html", tmp_path / "r.json"))
        with Outputs(asked, Report()) as outputs:
            async with Engine(tmp_path / "store", observer=outputs.recorder) as engine:
                with outputs.run(wanted, tmp_path / "store"):
                    result = await engine.prefetch(wanted)
            outputs.end(result, 0)
    document = msgspec.json.decode((tmp_path / "r.json").read_text(), type=Document)
    assert (tmp_path / "r.html").read_text() == render(document)
    assert str(built.descriptor.digest) in (tmp_path / "r.html").read_text()
    assert len(Parsed(render(document)).all("rect")) == 2
