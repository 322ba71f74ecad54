"""Tiny taggers at random weights."""

import torch

from spikeloom.model import SpikeloomConfig, SpikeloomForTokenClassification

LABELS = ("O", "B-PER", "I-PER")
SMALL = {
    "vocab_size": 64,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 32,
}


def tagger(head=SpikeloomForTokenClassification, **changes):
    """A head on a small backbone, three labels, in evaluation mode."""
    torch.manual_seed(0)
    config = SpikeloomConfig(**{**SMALL, **changes}, id2label=dict(enumerate(LABELS)))
    config.label2id = {label: i for i, label in enumerate(LABELS)}
    return head(config).eval()
