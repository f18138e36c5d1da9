"""A report page holds everything it shows, and shows text as it was given."""

import re
from html.parser import HTMLParser

import numpy as np
import pytest

from lib.utils.errors import UserError
from lib.utils.page import Page


class Seen(HTMLParser):
    """What a browser would see: tags left open, text, addresses."""

    def __init__(self):
        super().__init__()
        self.open, self.text, self.sources = [], [], []

    def handle_starttag(self, tag, attrs):
        self.sources += [value for key, value in attrs if key in ("src", "href")]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "script"):
            self.text.append(data)


def write(tmp_path, fill):
    page = Page("Runs <a> & b", "how")
    fill(page)
    seen = Seen()
    seen.feed(page.write(tmp_path / "new" / "page.html").read_text(encoding="utf-8"))
    assert not seen.open
    return seen, " ".join(seen.text)


def test_text_is_escaped_and_nothing_is_fetched(tmp_path):
    def fill(page):
        page.heading("One & <two>")
        page.text("<script>alert(1)</script>")
        page.picture(np.zeros((4, 6, 3), np.uint8), 'a "plot"')
        page.gallery([(np.zeros((4, 6, 3), np.uint8), "0001", "score <1")])

    seen, text = write(tmp_path, fill)
    for shown in ("Runs <a> & b", "One & <two>", "<script>alert(1)</script>", 'a "plot"', "0001", "score <1"):
        assert shown in text
    assert all(source.startswith(("data:image/", "#part")) for source in seen.sources) and len(seen.sources) == 3


def test_numbers_stand_right_and_missing_ones_are_a_dash(tmp_path):
    page = Page("t")
    page.table(["name", "AP", "n"], [["a", 0.25, 3], ["b", float("nan"), None], ["<c>", ("half", 0.5), 10]])
    content = page.write(tmp_path / "p.html").read_text(encoding="utf-8")
    cells = re.findall(r"<td([^>]*)>([^<]*)</td>", content)
    assert [text for _, text in cells] == ["a", "0.25", "3", "b", "–", "–", "&lt;c&gt;", "half", "10"]
    assert ["number" in mark for mark, _ in cells] == [False, True, True] * 3
    assert 'data-value="0.5"' in cells[7][0]


def test_a_page_that_cannot_be_written_says_where(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file/p.html: cannot be written"):
        Page("t").write(tmp_path / "file" / "p.html")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
