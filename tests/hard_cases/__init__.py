"""The hard cases of moving live data, each with what becomes of it: equal data, or a refusal that says why.

``docs/reference/hard-cases.md`` is made of these tests' own results (``make hard-cases``, see page.py).
"""
