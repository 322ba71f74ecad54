"""The spike-driven decoder written out in NumPy, backward pass and all: the proof.

    neurons.py     LIF and graded LIF, through the membrane and back through time
    attention.py   softmax attention, spike-driven attention with decay, the seed's Hadamard form
    layers.py      weight products, RMSNorm, activations, cross-entropy
    decoder.py     the blocks put together; loss and gradients
    weights.py     initial values; the checkpoint directory that PyTorch also reads and writes
    optimizer.py   AdamW, clipping, the learning rate along the way
    training.py    the loop
    recurrent.py   one token at a time, reading only the weights of channels that fired
    colour.py      word -> colour, in a minute

`docs/numpy.md` walks through it equation by equation. It needs NumPy and safetensors, nothing else,
and grows no features: what it lacks, PyTorch has.
"""
