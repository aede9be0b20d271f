"""Seeds of a run's random streams."""

from __future__ import annotations

import hashlib


def stream_seed(seed: int, stream: str, index: int) -> int:
    """Seed of one random stream at one step: any step can be reached again without those before it."""
    digest = hashlib.blake2b(f"{seed}/{stream}/{index}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1
