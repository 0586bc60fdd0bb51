"""What a page of a report has to be: whole, by itself, and with nothing in it that somebody else wrote as markup."""

from __future__ import annotations

import re
from html.parser import HTMLParser

VOID = {"meta", "line", "rect", "circle", "polyline", "polygon"}
# Whatever would have a browser ask for something.
ASKS = {"src", "href", "xlink:href", "action", "formaction", "data", "poster", "srcset", "background", "ping"}


class Page(HTMLParser):
    """Read once: its elements by name, its texts, and what is wrong."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.wrong: list[str] = []
        self._open: list[str] = []
        self.feed(content)
        self.close()
        if self._open:
            self.wrong.append(f"left open: {self._open}")

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if not self._open or self._open.pop() != tag:
            self.wrong.append(f"</{tag}> closes nothing")

    def handle_data(self, data: str) -> None:
        if not self._open or self._open[-1] != "style":
            self.text += data

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def read_page(content: str) -> Page:
    """Asserts that it needs no network, runs nothing, and is whole."""
    page = Page(content)
    assert page.wrong == []
    names = {tag for tag, _ in page.tags}
    assert not names & {"script", "link", "img", "iframe", "object", "embed", "base", "form", "video", "audio", "use",
                        "image", "foreignobject", "a"}, names
    for tag, attributes in page.tags:
        assert not set(attributes) & ASKS, (tag, attributes)
        assert not any(name.startswith("on") or name == "style" for name in attributes), (tag, attributes)
    style = re.search("<style>(.*?)</style>", content, re.DOTALL)
    assert style is not None
    assert not re.search(r"url\(|@import|@font-face|expression|//", style[1])
    policy = next(each["content"] for each in page.of("meta") if each.get("http-equiv") == "Content-Security-Policy")
    assert policy == "default-src 'none'; style-src 'unsafe-inline'"
    assert page.of("html") == [{"lang": "en"}]
    assert len(page.of("h1")) == 1
    for plot in page.of("svg"):
        assert plot["role"] == "img"
        assert plot["aria-label"]
    assert all(each["scope"] in ("col", "row") for each in page.of("th"))
    assert "prefers-color-scheme: dark" in style[1]
    return page
