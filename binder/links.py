"""Writes the README's links to Binder: ``python binder/links.py``.

The repository's address stands in pyproject.toml and nowhere else, and the notebooks are those that are there.
"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path
from urllib.parse import quote, urlsplit

ROOT = Path(__file__).resolve().parents[1]
BEGIN, END = "<!-- Binder's links, by binder/links.py -->", "<!-- Their end -->"


def links(notebook: str) -> tuple[str, str]:
    """Where a notebook opens as an app, and in JupyterLab."""
    urls = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]
    base = f"https://mybinder.org/v2/gh{urlsplit(urls['Repository']).path}/HEAD?urlpath="
    app, lesson = f"voila/render/notebooks/{notebook}", f"lab/tree/notebooks/{notebook}"
    return base + quote(app, safe=""), base + quote(lesson, safe="")


def table() -> str:
    """A row for each notebook."""
    rows = ["| notebook | as an app | in JupyterLab |", "| --- | --- | --- |"]
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        app, lesson = links(path.name)
        rows.append(f"| {path.stem.replace('-', ' ')} | [open]({app}) | [open]({lesson}) |")
    return "\n".join(rows)


def rewritten(text: str) -> str:
    """The README with its links as they should be."""
    before, _, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        raise SystemExit(f"README.md lacks the lines {BEGIN} and {END}.")
    return f"{before}{BEGIN}\n{table()}\n{END}{after}"


if __name__ == "__main__":
    readme = ROOT / "README.md"
    readme.write_text(rewritten(readme.read_text()))
    print(f"Wrote {readme}.", file=sys.stderr)
