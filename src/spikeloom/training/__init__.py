"""From packed tokens to a checkpoint directory; `train` is the entry."""
