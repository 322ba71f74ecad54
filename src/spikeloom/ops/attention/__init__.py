"""Causal spike-driven attention (SDSA): `naive` is the specification, `chunked` trains.

`hadamard` is the seed's elementwise form, in either.
"""
