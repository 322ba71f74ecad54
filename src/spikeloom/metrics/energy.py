"""Energy per token, as an estimate from published constants: a formula, never a measurement.

    E = acs * AC + macs * MAC                    arithmetic
      + weights read * bytes / 4 * E_word        moving the weights (the memory-aware tier)

Constants are for 45 nm CMOS at 0.9 V, from M. Horowitz, "Computing's energy problem (and what we
can do about it)", ISSCC 2014, figure 1.1.9; the DRAM and SRAM figures per 32-bit word as tabulated
from it by S. Han et al., "Learning both weights and connections", NeurIPS 2015, table 1. Control,
activations, state, and leakage are left out, and they favour the sparse side: read the ratios as
upper bounds, and always beside measured time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from spikeloom.metrics.synops import Operations


@dataclass(frozen=True)
class Precision:
    """Energy of arithmetic in one number format, in picojoule.

    Attributes:
        multiply, add: one operation.
        bytes: of one weight in memory.
    """

    multiply: float
    add: float
    bytes: int

    @property
    def mac(self) -> float:
        """A multiply-accumulate."""
        return self.multiply + self.add

    @property
    def ac(self) -> float:
        """An accumulate."""
        return self.add


PRECISIONS = {
    "fp32": Precision(multiply=3.7, add=0.9, bytes=4),
    "fp16": Precision(multiply=1.1, add=0.4, bytes=2),
    "int8": Precision(multiply=0.2, add=0.03, bytes=1),
}

DRAM_WORD_PJ = 640.0
"""Reading 32 bits from DRAM."""

SRAM_WORD_PJ = 5.0
"""Reading 32 bits from a small (8 to 32 KB) SRAM."""

HEADLINE = "fp32"

LABEL = "estimate: 45 nm constants (Horowitz 2014), not a measurement"


def energy(operations: Operations) -> dict[str, Any]:
    """The `energy_pj` object of `spikeloom eval`, picojoule per token.

    Returns:
        `dense`, `spiking` and `ratio = dense / spiking` of the arithmetic in fp32; the same per
        format under `precisions`; with the weights read from SRAM or DRAM at batch 1 under
        `memory`; and `label`, which says that all of it is an estimate. `dense` is this very model
        with every product dense and one step per token.
    """
    rows = {name: _arithmetic(operations, p) for name, p in PRECISIONS.items()}
    memory = {
        f"{name}_{place}": _with_weights(operations, p, word)
        for name, p in PRECISIONS.items()
        for place, word in (("dram", DRAM_WORD_PJ), ("sram", SRAM_WORD_PJ))
    }
    return {**rows[HEADLINE], "label": LABEL, "precisions": rows, "memory": memory}


def _arithmetic(operations: Operations, precision: Precision) -> dict[str, float]:
    dense = operations.dense_macs * precision.mac
    spiking = operations.acs * precision.ac + operations.macs * precision.mac
    return _row(dense, spiking)


def _with_weights(operations: Operations, precision: Precision, word: float) -> dict[str, float]:
    """Arithmetic plus one read of each weight that is touched."""
    per_weight = word * precision.bytes / 4
    arithmetic = _arithmetic(operations, precision)
    return _row(
        arithmetic["dense"] + operations.weights * per_weight,
        arithmetic["spiking"] + operations.weights_touched * per_weight,
    )


def _row(dense: float, spiking: float) -> dict[str, float]:
    return {"dense": dense, "spiking": spiking, "ratio": dense / spiking}
