"""A page's templates, compiled once for all pages: Voila compiles them for each, a fifth of a second of the server."""

from __future__ import annotations

from typing import Any

import jinja2
import voila.notebook_renderer
from jinja2.bccache import Bucket
from voila.exporter import VoilaExporter

_Exporter: Any = VoilaExporter


class Compiled(jinja2.BytecodeCache):
    """Compiled templates, kept in memory; one that has changed is compiled again."""

    def __init__(self) -> None:
        self._kept: dict[str, bytes] = {}

    def load_bytecode(self, bucket: Bucket) -> None:
        kept = self._kept.get(bucket.key)
        if kept is not None:
            bucket.bytecode_from_string(kept)

    def dump_bytecode(self, bucket: Bucket) -> None:
        self._kept[bucket.key] = bucket.bytecode_to_string()


def compile_templates_once() -> None:
    """From now on Voila's pages share their compiled templates."""
    compiled = Compiled()

    class Exporter(_Exporter):  # type: ignore[misc]
        @property
        def environment(self) -> jinja2.Environment:
            environment: jinja2.Environment = super().environment
            environment.bytecode_cache = compiled
            return environment

    voila.notebook_renderer.VoilaExporter = Exporter
