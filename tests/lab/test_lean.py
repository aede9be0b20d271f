"""A kernel starts without pandas, and whoever wants it has it; a page's templates are compiled once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import jinja2

from lab.exporter import Compiled

ROOT = Path(__file__).resolve().parents[2]


def run(code: str) -> None:
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120, cwd=ROOT)


def test_the_laboratory_is_imported_without_pandas() -> None:
    run(
        "import importlib, pkgutil, sys, lab, lab.panels\n"
        "from lab.pool import READY\n"
        "exec(READY)\n"
        "assert 'pandas' not in sys.modules and 'pyarrow' not in sys.modules\n"
        "from lab.bench import Bench\n"
        "import tempfile\n"
        "bench = Bench(results=tempfile.mkdtemp())\n"
        "bench.close()\n"
        "assert 'pandas' not in sys.modules\n"
    )


def test_what_was_left_out_is_there_for_whoever_asks() -> None:
    run(
        "import sys\n"
        "from lab.lean import bq\n"
        "import bqplot, pandas as pd\n"
        "assert bqplot is bq and pd.DataFrame({'a': [1]}).shape == (1, 1)\n"
        "assert sys.modules['bqplot.traits'].pd.Timestamp is pd.Timestamp\n"
        "assert bq.Radar.__module__ == 'bqplot.plotting_widgets'\n"
        "assert not hasattr(bq, 'Nothing')\n"
        "import numpy as np\n"
        "scales = {'x': bq.DateScale(), 'y': bq.LinearScale()}\n"
        "bq.Lines(x=np.array([1, 2], dtype='datetime64[D]'), y=[1, 2], scales=scales)\n"
    )


def test_pandas_that_is_there_already_stays_as_it_is() -> None:
    run(
        "import pandas, sys\n"
        "from lab.lean import bq\n"
        "assert sys.modules['pandas'] is sys.modules['bqplot.traits'].pd is pandas\n"
    )


def test_a_template_is_compiled_once_and_again_when_it_has_changed(tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text("{{ 1 + 1 }}")
    compiled = Compiled()

    def page() -> str:
        environment = jinja2.Environment(loader=jinja2.FileSystemLoader(tmp_path))
        environment.bytecode_cache = compiled
        return environment.get_template("page.html").render()

    assert page() == page() == "2"
    assert len(compiled._kept) == 1
    (tmp_path / "page.html").write_text("{{ 1 + 2 }}")
    assert page() == "3"
