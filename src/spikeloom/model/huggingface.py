"""The decoder as a transformers model: config, Auto classes, `generate`, Trainer, PEFT, TRL.

Logits are exactly `lm_head(last_hidden_state)`, because trainers call the backbone and the head
apart; firing rates come out beside them, and the firing-rate loss is added by the trainer
(`spikeloom.training.trainer`), never here.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    GenerationMixin,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers import initialization as init
from transformers.utils import ModelOutput

from spikeloom.config import ModelConfig, expand_neurons, require_causal
from spikeloom.errors import ConfigError, did_you_mean
from spikeloom.model.decoder import Decoder
from spikeloom.model.mixers import SpikeDrivenAttention
from spikeloom.model.norm import LayerNorm, RMSNorm
from spikeloom.model.prediction import Prediction
from spikeloom.model.products import SpikeLinear
from spikeloom.model.rate_code import RateCode
from spikeloom.model.recurrent import Gate, RecurrentUnit
from spikeloom.model.rwkv import TimeMixing
from spikeloom.model.shift import TokenShift
from spikeloom.model.state import DecoderState
from spikeloom.neurons import ContextGain, Environment, Modulation, Neuron
from spikeloom.strict import build, to_dict

_SELF_MADE = (
    Neuron, ContextGain, Modulation, Environment, SpikeDrivenAttention, RecurrentUnit, Gate,
    RateCode, Prediction, TokenShift, TimeMixing,
)  # fmt: skip
"""Modules that know their own initial values."""

_FIELDS = tuple(f.name for f in dataclasses.fields(ModelConfig))


class SpikeloomConfig(PreTrainedConfig):
    """`ModelConfig` with Hugging Face's clothes on: same keys, checked the same way.

    `config.architecture` is the `ModelConfig`; `config.json` holds every key, so that a checkpoint
    does not change when defaults do.

    Raises:
        ConfigError: a key of `ModelConfig` is misspelt, or has a wrong type or an impossible value.
    """

    model_type = "spikeloom"
    keys_to_ignore_at_inference: ClassVar[list[str]] = ["past_key_values", "firing_rates"]

    def __init__(self, **kwargs: Any) -> None:
        given = {name: kwargs.pop(name) for name in _FIELDS if name in kwargs}
        model = build(ModelConfig, expand_neurons(given), "model")
        for name, value in to_dict(model).items():
            setattr(self, name, value)
        self.use_cache = kwargs.pop("use_cache", True)
        for name in kwargs:
            # The base class keeps whatever it is given, so only what looks like ours is refused.
            if not hasattr(PreTrainedConfig, name) and get_close_matches(name, _FIELDS, 1, 0.8):
                raise ConfigError(f"model.{name}: unknown key{did_you_mean(name, _FIELDS)}")
        super().__init__(**kwargs)

    @classmethod
    def from_architecture(cls, model: ModelConfig) -> SpikeloomConfig:
        return cls(**to_dict(model))

    @property
    def architecture(self) -> ModelConfig:
        return build(ModelConfig, {name: getattr(self, name) for name in _FIELDS}, "model")

    def to_diff_dict(self) -> dict[str, Any]:
        return self.to_dict()


@dataclass
class SpikeloomOutput(ModelOutput):
    """What the backbone and the models with a head return.

    Attributes:
        loss: mean cross-entropy in nats per token (or per label), if labels were given.
        logits: `[B, L, V]`, of the heads for tagging `[B, L, C]` or for texts `[B, C]`; None of the
            backbone.
        last_hidden_state: what the head neuron emits, `[B, L, D]`.
        past_key_values: the `DecoderState`, if one was used.
        firing_rates: channel rate of each neuron in order of computation, `[N]`, differentiable.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    last_hidden_state: Tensor | None = None
    past_key_values: DecoderState | None = None
    firing_rates: Tensor | None = None


class SpikeloomPreTrainedModel(PreTrainedModel):
    """Initial weights, and what transformers may assume of these models."""

    config_class = SpikeloomConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _no_split_modules = ["DecoderLayer"]  # noqa: RUF012
    _is_stateful = True
    _supports_sdpa = True
    _supports_flash_attn = False
    _supports_attention_backend = False

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear):
            std = 1.0 / math.sqrt(module.in_features)
            if isinstance(module, SpikeLinear) and module.into_residual:
                std /= math.sqrt(2 * self.config.num_hidden_layers)
            init.normal_(module.weight, 0.0, std)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            init.normal_(module.weight, 0.0, 1.0 / math.sqrt(module.embedding_dim))
        elif isinstance(module, RMSNorm | LayerNorm):
            init.ones_(module.weight)
        elif isinstance(module, _SELF_MADE):
            module.reset_parameters()


class SpikeloomModel(SpikeloomPreTrainedModel):
    """The backbone: tokens to what the head neuron emits."""

    def __init__(self, config: SpikeloomConfig) -> None:
        super().__init__(config)
        self.decoder = Decoder(config.architecture)
        self.gradient_checkpointing = False
        self.post_init()

    def get_input_embeddings(self) -> nn.Embedding:
        return self.decoder.embed_tokens

    def set_input_embeddings(self, value: Any) -> None:
        self.decoder.embed_tokens = value

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: DecoderState | None = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        **kwargs: Any,
    ) -> SpikeloomOutput:
        """Shapes as in `Decoder`; `use_cache` without a state starts a fresh one."""
        if self.config.bidirectional and (use_cache or past_key_values is not None):
            raise ValueError("a bidirectional model reads whole texts: it keeps no state")
        if use_cache and past_key_values is None and not self.training:
            past_key_values = DecoderState(self.decoder.config)
        hidden, rates = self.decoder(
            input_ids, inputs_embeds, position_ids, attention_mask, past_key_values
        )
        return SpikeloomOutput(
            last_hidden_state=hidden, past_key_values=past_key_values, firing_rates=rates
        )


class SpikeloomForCausalLM(SpikeloomPreTrainedModel, GenerationMixin):
    """The backbone and the product with the vocabulary, tied to the embedding by default."""

    _tied_weights_keys = {"lm_head.weight": "model.decoder.embed_tokens.weight"}  # noqa: RUF012
    accepts_loss_kwargs = False

    def __init__(self, config: SpikeloomConfig) -> None:
        require_causal(config.architecture)
        super().__init__(config)
        self.model = SpikeloomModel(config)
        self.lm_head = SpikeLinear(self.model.decoder.head_neuron, config.vocab_size)
        self.post_init()

    def get_input_embeddings(self) -> nn.Embedding:
        return self.model.get_input_embeddings()

    def set_input_embeddings(self, value: Any) -> None:
        self.model.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Linear:
        return self.lm_head

    def set_output_embeddings(self, new_embeddings: nn.Linear) -> None:
        """A plain linear layer, as `resize_token_embeddings` makes it, becomes a spike-fed one."""
        if type(new_embeddings) is nn.Linear:
            plain, has_bias = new_embeddings, new_embeddings.bias is not None
            with torch.device("meta"):
                new_embeddings = SpikeLinear(
                    self.model.decoder.head_neuron, plain.out_features, bias=has_bias
                )
            new_embeddings.weight, new_embeddings.bias = plain.weight, plain.bias
        self.lm_head = new_embeddings

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: DecoderState | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int = 0,
        **kwargs: Any,
    ) -> SpikeloomOutput:
        """Logits `[B, L, V]`, and with `labels` `[B, L]` (-100 ignored) the shifted mean loss."""
        output = self.model(
            input_ids, attention_mask, position_ids, past_key_values, inputs_embeds, use_cache
        )
        hidden = output.last_hidden_state
        logits = self.lm_head(hidden[:, -logits_to_keep:] if logits_to_keep else hidden)
        output.logits = logits
        if labels is not None:
            output.loss = nn.functional.cross_entropy(
                logits[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten(), ignore_index=-100
            )
        return output

    def _prepare_cache_for_generation(
        self,
        generation_config: Any,
        model_kwargs: dict[str, Any],
        generation_mode: Any,
        batch_size: int,
        max_cache_length: int,
    ) -> bool:
        if model_kwargs.get("past_key_values") is None and generation_config.use_cache is not False:
            model_kwargs["past_key_values"] = DecoderState(self.model.decoder.config)
            return True
        return False


AutoConfig.register("spikeloom", SpikeloomConfig)
AutoModel.register(SpikeloomConfig, SpikeloomModel)
AutoModelForCausalLM.register(SpikeloomConfig, SpikeloomForCausalLM)
