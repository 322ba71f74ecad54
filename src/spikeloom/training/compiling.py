"""How a training step is compiled.

On one GPU, forward and backward are CUDA graphs, too (`mode="reduce-overhead"`): a step of
`spikeloom-15m` is some 800 kernels of 20 microseconds, and launching them one by one takes longer
than running them. A graph's outputs, gradients among them, live until its next run only, so this
does not go together with gradients that are summed over several runs, nor with
DistributedDataParallel, which reads them while the backward runs. A graph is of one shape: batches
that are padded each to a length of its own would record one after another.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch._dynamo.config
from torch import nn

from spikeloom.config import TrainingConfig
from spikeloom.neurons import Neuron
from spikeloom.ops.lif import dispatch


def compile_mode(config: TrainingConfig, processes: int = 1, *, one_shape: bool = True) -> str:
    """The `mode` of `torch.compile` for the model of a run.

    Args:
        config: of the run.
        processes: that share it.
        one_shape: whether all its batches have one shape.
    """
    alone = processes == 1 and config.gradient_accumulation == 1
    graphs = alone and one_shape and torch.cuda.is_available()
    return "reduce-overhead" if graphs else "default"


def compiled(model: nn.Module, config: TrainingConfig) -> Callable[..., Any]:
    """The model as `spikeloom train` runs it in one process; itself, unless `config.compile`."""
    return torch.compile(model, mode=compile_mode(config)) if config.compile else model


def allow_recompilation(model: nn.Module) -> None:
    """Let `torch.compile` follow the fire level of a model that opens its dead zones.

    Memoryless neurons on a GPU read it from a tensor. Elsewhere it is a number on a module, which
    is taken for a constant: code is compiled anew when it changes, at most eight times; then it is
    not compiled any more, and a warning alone says so. Programs on a GPU take any fire level, so
    there the number may be told to vary; plain forms need one graph a stage.
    """
    stages = max((m.config.fire_level for m in model.modules() if isinstance(m, Neuron)), default=1)
    config = torch._dynamo.config
    config.recompile_limit = max(config.recompile_limit, 2 * stages + 8)
    config.allow_unspec_int_on_nn_module = dispatch.TRITON and torch.cuda.is_available()
