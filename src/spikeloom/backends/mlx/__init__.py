"""The spike-driven decoder in MLX: the backend for Apple silicon.

    spikes.py      spikes with hand-written gradients
    neurons.py     graded LIF and LIF as modules
    scan.py        the membrane in time: the plain loop, and who chooses between it and Metal
    metal.py       the same as two Metal kernels, forward and back
    attention.py   softmax attention, spike-driven attention with decay, the Hadamard form
    decoder.py     the blocks put together, over whole rows or with state carried along
    state.py       what is carried: memories and membranes of a layer
    device.py      whether there is a GPU
    checkpoint.py  the checkpoint directory that PyTorch also reads and writes; quantised too
    training.py    the compiled training step
    engine.py      one token at a time, for `spikeloom generate|chat --backend mlx`
    quantize.py    weights in 4 or 8 bits (`python -m spikeloom.backends.mlx.quantize`)
    lm.py          mlx-lm on our checkpoints (`python -m spikeloom.backends.mlx.lm`)

Modules are named as the weights in `model.safetensors`, so a PyTorch checkpoint is loaded as it is.
`docs/mlx.md` says what was run where.
"""
