"""The spike-driven decoder written out in NumPy, backward pass and all: the proof.

    neurons.py     LIF and graded LIF, through the membrane and back through time
    attention.py   softmax attention, spike-driven attention with decay, the seed's Hadamard form
    layers.py      weight products, RMSNorm, activations, cross-entropy
    decoder.py     the blocks put together; loss and gradients
    training.py    AdamW, Muon, clipping, one training step
    recurrent.py   one token at a time, reading only the weights of channels that fired
    colour.py      word -> colour, in a minute

What any backend needs lies one folder up: names, shapes and initial values of the weights and the
checkpoint directory (`weights.py`), which weights decay and which are Muon's (`updates.py`),
sampling (`generation.py`), the training loop (`training.py`).

`docs/numpy.md` walks through it equation by equation. It needs NumPy and safetensors, nothing else
(the loop and the text around it are the rest of spikeloom), and grows no features: what it lacks,
PyTorch has.
"""
