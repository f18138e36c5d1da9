"""Reports as one HTML file that needs nothing else: no network, no other file, and no script to be read.

Pictures are inside the file.  Tables can be sorted by a click on a heading, pages are light or dark as the reader's
system is.
"""

import base64
import html
import json
from pathlib import Path

import cv2
import numpy as np

from .errors import UserError
from .files import write_whole

STYLE = """
:root { color-scheme: light dark; --ink: #1c1e21; --soft: #62676d; --ground: #fff; --line: #dcdfe3; --tint: #f4f6f8;
  --mark: #0072b2; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e8eb; --soft: #9aa1a9; --ground: #16181b; --line: #33373c;
  --tint: #1f2226; --mark: #56b4e9; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--ground); margin: 2rem auto;
  max-width: 75rem; padding: 0 1.25rem; }
h1 { font-size: 1.6rem; margin: 0; } h2 { font-size: 1.2rem; margin: 2.2rem 0 .4rem; }
p { max-width: 48rem; margin: .4rem 0; } .soft, figcaption { color: var(--soft); font-size: .9rem; }
nav a { margin-right: 1rem; } a { color: var(--mark); }
.wide { overflow-x: auto; } table { border-collapse: collapse; margin: .6rem 0; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .7rem; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; }
th { border-bottom: 2px solid var(--line); white-space: nowrap; } th[data-sort] { cursor: pointer; }
td.number, th.number { text-align: right; white-space: nowrap; } tr:hover td { background: var(--tint); }
figure { margin: .6rem 0; } img { max-width: 100%; height: auto; border-radius: 4px; }
.gallery { display: grid; grid-template-columns: repeat(auto-fill, minmax(17rem, 1fr)); gap: 1rem; }
.gallery figure { margin: 0; } .gallery img { width: 100%; cursor: zoom-in; }
.gallery figure.large { grid-column: 1 / -1; } .gallery figure.large img { cursor: zoom-out; }
figcaption b { color: var(--ink); }
button { font: inherit; font-size: .9rem; color: inherit; background: var(--tint); border: 1px solid var(--line);
  border-radius: 4px; padding: .1rem .6rem; margin: 0 .3rem .3rem 0; cursor: pointer; }
button.on { border-color: var(--mark); color: var(--mark); }
"""
SORT = """
document.querySelectorAll('th[data-sort]').forEach(th => th.addEventListener('click', () => {
  const body = th.closest('table').tBodies[0], column = th.cellIndex, numeric = th.classList.contains('number');
  const sign = th.dataset.sort === 'down' ? 1 : -1; th.dataset.sort = sign < 0 ? 'down' : 'up';
  const key = row => { const cell = row.cells[column], text = cell.dataset.value ?? cell.textContent;
    return numeric ? (isNaN(parseFloat(text)) ? -Infinity : parseFloat(text)) : text; };
  [...body.rows].sort((a, b) => sign * (key(a) > key(b) ? 1 : key(a) < key(b) ? -1 : 0)).forEach(r => body.append(r));
}));
"""
PICK = """
document.querySelectorAll('.choice').forEach(row => row.addEventListener('click', event => {
  const tag = event.target.dataset.tag; if (tag === undefined) return;
  row.querySelectorAll('button').forEach(b => b.classList.toggle('on', b === event.target));
  row.nextElementSibling.querySelectorAll('figure').forEach(figure => {
    figure.hidden = tag && !JSON.parse(figure.dataset.tags || '[]').includes(tag); });
}));
document.querySelectorAll('.gallery').forEach(gallery => gallery.addEventListener('click', event => {
  if (event.target.tagName === 'IMG') event.target.closest('figure').classList.toggle('large'); }));
"""
POLICY = (
    '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
    "style-src 'unsafe-inline'; script-src 'unsafe-inline'\">"
)
"""What tells a browser to fetch nothing for a page, whatever the names in it may ask for."""
JPEG_QUALITY = 88


class Page:
    """A report that grows from top to bottom; all text is escaped.

    title: that of the page; about: a line or two below it that say what is shown and how it came about.
    """

    def __init__(self, title: str, about: str = ""):
        self.title = title
        self.about = about
        self._headings, self._parts = [], []

    def heading(self, text: str) -> None:
        """Begin a section, which the line of links at the top leads to."""
        self._headings.append(text)
        self._parts.append(f'<h2 id="part{len(self._headings)}">{html.escape(text)}</h2>')

    def text(self, paragraph: str, soft: bool = False) -> None:
        """A paragraph, in grey where it is `soft`."""
        self._parts.append(f"<p{' class=soft' if soft else ''}>{html.escape(paragraph)}</p>")

    def table(self, columns, rows, caption: str = "") -> None:
        """A table that a click on a heading sorts: columns are headings, rows sequences of their length.

        Numbers stand at the right: floats with four digits, None and NaN as a dash.  A cell may be a pair (shown,
        value) of a text and the number that it is sorted by.
        """
        rows = [list(row) for row in rows]
        numeric = [all(_is_number(row[c]) for row in rows) and bool(rows) for c in range(len(columns))]
        mark = [' class="number"' if is_number else "" for is_number in numeric]
        head = "".join(f"<th data-sort{m}>{html.escape(str(c))}</th>" for c, m in zip(columns, mark, strict=True))
        body = "\n".join(
            f"<tr>{''.join(_cell(value, m) for value, m in zip(row, mark, strict=True))}</tr>" for row in rows
        )
        note = f"<figcaption>{html.escape(caption)}</figcaption>" if caption else ""
        table = f"<table><thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody></table>"
        self._parts.append(f'<figure class="wide">{note}{table}</figure>')

    def picture(self, image: np.ndarray, caption: str = "", lossless: bool = True) -> None:
        """An image uint8 BGR [H, W, 3] in its own size; plots are lossless, photographs need not be."""
        self._parts.append(_figure(image, caption, "", lossless))

    def gallery(self, pictures, tags=None) -> None:
        """Photographs side by side: (image uint8 BGR, title, caption) each; the same height and width look best.

        A click enlarges a picture.  tags, a list of words for each: buttons above leave only the pictures of one word.
        """
        pictures = list(pictures)
        tags = [()] * len(pictures) if tags is None else tags
        words = sorted({word for own in tags for word in own})
        figures = "\n".join(
            _figure(image, caption, title, False, own)
            for (image, title, caption), own in zip(pictures, tags, strict=True)
        )
        buttons = "".join(
            f'<button data-tag="{html.escape(word, quote=True)}">{html.escape(word or "all")}</button>'
            for word in ["", *words]
        )
        choice = f'<p class="choice">Only: {buttons}</p>\n' if len(words) > 1 else ""
        self._parts.append(f'{choice}<div class="gallery">\n{figures}\n</div>')

    def write(self, path) -> Path:
        """Write the page; the path.  UserError where that cannot be done."""
        path = Path(path)
        links = "".join(f'<a href="#part{n}">{html.escape(text)}</a>' for n, text in enumerate(self._headings, 1))
        page = (
            f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">{POLICY}'
            f"<title>{html.escape(self.title)}</title>\n"
            f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style></head>\n'
            f'<body><h1>{html.escape(self.title)}</h1>\n<p class="soft">{html.escape(self.about)}</p>\n'
            f"<nav>{links}</nav>\n" + "\n".join(self._parts) + f"\n<script>{SORT}{PICK}</script></body></html>\n"
        )
        try:
            write_whole(path, page, errors="backslashreplace")
        except OSError as error:
            raise UserError(f"{path}: cannot be written ({error.strerror or error})") from error
        return path


def _is_number(value) -> bool:
    value = value[1] if isinstance(value, tuple) else value
    return value is None or isinstance(value, int | float | np.number) and not isinstance(value, bool)


def _cell(value, mark: str) -> str:
    shown, key = value if isinstance(value, tuple) else (value, None)
    if shown is None or isinstance(shown, float | np.floating) and np.isnan(shown):
        shown = "–"
    elif isinstance(shown, float | np.floating):
        shown = f"{shown:.4g}" if abs(shown) >= 1e-3 or not shown else f"{shown:.1e}"
    order = f' data-value="{html.escape(str(key))}"' if key is not None else ""
    return f"<td{mark}{order}>{html.escape(str(shown))}</td>"


def _figure(image: np.ndarray, caption: str, title: str, lossless: bool, tags=()) -> str:
    kind, settings = (".png", []) if lossless else (".jpg", [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    data = base64.b64encode(cv2.imencode(kind, image, settings)[1]).decode()
    name = f"<b>{html.escape(title)}</b> " if title else ""
    note = f"<figcaption>{name}{html.escape(caption)}</figcaption>" if name or caption else ""
    alternative = html.escape(title or caption, quote=True)
    mime = "image/png" if lossless else "image/jpeg"
    words = f' data-tags="{html.escape(json.dumps(list(tags)), quote=True)}"' if tags else ""
    return f'<figure{words}><img loading="lazy" alt="{alternative}" src="data:{mime};base64,{data}">{note}</figure>'
