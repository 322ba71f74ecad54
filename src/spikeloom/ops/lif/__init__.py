"""Neurons as functions over a leading axis of steps; `naive` is the specification."""
