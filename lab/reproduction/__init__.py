"""The page on which the papers' table 1 and figure 1 are reproduced: numbers in print beside a study's own."""

from __future__ import annotations

from lab.reproduction.page import Reproduction

__all__ = ["Reproduction"]
