"""The sliding parallel spiking neuron: `naive` is the specification, `parallel` what runs."""
