"""The papers' tables and figures again, with the numbers side by side: ``ssl-lab reproduce``.

``rows`` says what is trained for which table or figure and ``published`` what it came to there; ``study`` trains and
probes in worker processes and keeps all in run files; ``report`` reads those and writes one document. A report can be
written anew at any time: it knows nothing but the files. ``record`` is the study as one small file that pages read, and
``recorder`` keeps it up to date. ``rows``, ``published``, ``progress``, ``results`` and ``record`` import no torch.
"""
