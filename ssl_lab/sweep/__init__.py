"""A study on many machines: ``ssl-lab sweep``.

``plan`` is the study as its file says it and ``progress`` how far it is, by its folder; both import no torch. ``trial``
trains and probes one run; ``work`` hands runs to whoever computes: worker processes of this machine (``local``) or a
Ray cluster (``on_ray``). ``table`` writes what came out, ``live`` shows it meanwhile, ``command`` is the command line.
"""
