"""Other engines for `spikeloom bench decode`: those that are installed, with one dense twin."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

from spikeloom.bench.flow_twin import Peer, check
from spikeloom.model import SpikeloomForCausalLM

# Of a peer's name, up to where versions begin.
TARGETS = {
    "llama.cpp F16": 2.5,
    "llama.cpp Q8_0": 2.5,
    "llama.cpp Q4_0": 1.0,
    "ONNX Runtime": 2.0,
}
_GGUF = {"float32": (), "bfloat16": ("F16",), "int8": ("Q8_0", "Q4_0")}
_ONNX = {"float32": ("fp32",), "bfloat16": (), "int8": ("int8",)}
# Distance of logits from the twin in float32, relative: what rounding alone explains.
_TOLERANCE = {"F16": 0.005, "Q8_0": 0.05, "Q4_0": 0.5, "fp32": 1e-4, "int8": 0.2}


def peers(twin: SpikeloomForCausalLM, dtype: str, folder: Path) -> dict[str, Peer]:
    """The engines that compute in a dtype, by name, each checked against the twin.

    Args:
        twin: of `flow_twin`.
        dtype: ours; a peer's own types are matched to it.
        folder: where their files go; it must outlive them.

    Raises:
        SpikeloomError: one computes something else.
    """
    found: list[tuple[Peer, str]] = []
    if _GGUF[dtype] and _installed("llama_cpp", "gguf"):
        found += [(_llama(twin, kind, folder), kind) for kind in _GGUF[dtype]]
    if _ONNX[dtype] and _installed("onnxruntime", "onnx", "onnxscript"):
        found += [(_onnx(twin, kind, folder), kind) for kind in _ONNX[dtype]]
    for peer, kind in found:
        check(peer, twin, _TOLERANCE[kind])
    return {peer.name: peer for peer, _ in found}


def _llama(twin: SpikeloomForCausalLM, kind: str, folder: Path) -> Peer:
    from spikeloom.bench.llama_peer import LlamaPeer, write_gguf

    file = folder / f"{kind}.gguf"
    write_gguf(twin, kind, file)
    return LlamaPeer(file, kind)


def _onnx(twin: SpikeloomForCausalLM, kind: str, folder: Path) -> Peer:
    from spikeloom.bench.onnx_peer import OnnxPeer, export, quantise

    file = folder / "fp32.onnx"
    if not file.exists():
        export(twin, file)
    if kind == "int8":
        quantise(file, folder / "int8.onnx")
        file = folder / "int8.onnx"
    return OnnxPeer(file, kind, twin)


def _installed(*packages: str) -> bool:
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        print(
            f"spikeloom: {packages[0]} is not compared: {', '.join(missing)} not installed "
            "(benchmarks/README.md)",
            file=sys.stderr,
        )
    return not missing
