"""Linear theory as an instrument: the modes of the paper's linear model, integrated live in this kernel.

Needs no engine, no torch and no run. ``flow`` is what is integrated, ``pictures`` draw it, ``knobs`` are turned,
``lesson`` asks, ``app`` puts them together.
"""
