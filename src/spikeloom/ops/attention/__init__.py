"""Causal spike-driven attention (SDSA): `naive` is the specification, `chunked` trains."""
