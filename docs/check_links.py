"""Check that every link inside the built site resolves: `python docs/check_links.py build/site`.

Files, pages and the places in them that a fragment names; links to other sites are not followed.
"""

from __future__ import annotations

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class _Page(HTMLParser):
    """The links of a page and the places that can be linked to."""

    def __init__(self) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.places: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if value and name in ("href", "src"):
                self.links.add(value)
            elif value and (name == "id" or (tag == "a" and name == "name")):
                self.places.add(value)


def read(path: Path) -> _Page:
    """Return what is in a page."""
    page = _Page()
    page.feed(path.read_text(encoding="utf-8"))
    return page


def broken_links(site: Path) -> list[str]:
    """Return a line for each link that leads nowhere."""
    pages = {path.resolve(): read(path) for path in sorted(site.rglob("*.html"))}
    broken = []
    for path, page in pages.items():
        for link in sorted(page.links):
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            name = path.relative_to(site.resolve())
            if not target.exists():
                broken.append(f"{name}: {link} is not there")
            elif target in pages and unquote(parts.fragment) not in {"", *pages[target].places}:
                broken.append(f"{name}: {link} names no place in its page")
    return broken


def main() -> int:
    """Print what is broken; return 1 where something is, or where there is no site."""
    site = Path(sys.argv[1])
    count = len(list(site.rglob("*.html")))
    found = broken_links(site)
    print(*found, f"{count} pages, {len(found)} broken links", sep="\n")
    return int(bool(found) or not count)


if __name__ == "__main__":
    sys.exit(main())
