"""llama.cpp as a contender: the dense twin written as GGUF, decoded through `llama-cpp-python`.

Needs `gguf` and `llama_cpp`, which are installed for the benchmark only (benchmarks/README.md).
"""

from __future__ import annotations

from pathlib import Path

import gguf
import llama_cpp
import numpy as np

from spikeloom.bench.flow_twin import CAPACITY
from spikeloom.config import ModelConfig
from spikeloom.model import SpikeloomForCausalLM

ARCH = "qwen3"  # llama's layers with normalised queries and keys, halves rotated as ours are
TYPES = {
    "F16": gguf.GGMLQuantizationType.F16,
    "Q8_0": gguf.GGMLQuantizationType.Q8_0,
    "Q4_0": gguf.GGMLQuantizationType.Q4_0,
}
_NAMES = {
    "0.norm": "attn_norm",
    "0.mixer.q_proj": "attn_q",
    "0.mixer.k_proj": "attn_k",
    "0.mixer.v_proj": "attn_v",
    "0.mixer.q_norm": "attn_q_norm",
    "0.mixer.k_norm": "attn_k_norm",
    "0.o_proj": "attn_output",
    "1.norm": "ffn_norm",
    "1.mlp.gate_proj": "ffn_gate",
    "1.mlp.up_proj": "ffn_up",
    "1.mlp.down_proj": "ffn_down",
}


def write_gguf(twin: SpikeloomForCausalLM, kind: str, file: Path) -> None:
    """Write the twin's weights: matrices as `kind` (a key of `TYPES`), vectors in float32."""
    writer = gguf.GGUFWriter(file, ARCH)
    _describe(writer, twin.config.architecture)
    for name, tensor in twin.state_dict().items():
        if (gguf_name := _gguf_name(name)) is None:
            continue
        values = tensor.float().numpy()
        if values.ndim == 1:
            writer.add_tensor(gguf_name, values)
        else:
            packed = gguf.quants.quantize(values, TYPES[kind])
            writer.add_tensor(gguf_name, packed, raw_dtype=TYPES[kind])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


class LlamaPeer:
    """A GGUF file, one thread, one sequence."""

    def __init__(self, file: Path, kind: str) -> None:
        self.name = f"llama.cpp {kind} (llama-cpp-python {llama_cpp.__version__})"
        llama_cpp.llama_log_set(_silent, None)
        model = llama_cpp.llama_model_default_params()
        model.n_gpu_layers = 0
        self._model = llama_cpp.llama_model_load_from_file(str(file).encode(), model)
        if not self._model:
            raise OSError(f"llama.cpp refused {file}")
        context = llama_cpp.llama_context_default_params()
        context.n_ctx = context.n_batch = CAPACITY
        context.n_threads = context.n_threads_batch = 1
        self._context = llama_cpp.llama_init_from_model(self._model, context)
        self._size = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self._model))
        self._token = (llama_cpp.llama_token * 1)()

    def reset(self) -> None:
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self._context), True)

    def __call__(self, token: int) -> np.ndarray:
        self._token[0] = token
        batch = llama_cpp.llama_batch_get_one(self._token, 1)
        if llama_cpp.llama_decode(self._context, batch) != 0:
            raise RuntimeError("llama.cpp could not decode")
        logits = llama_cpp.llama_get_logits(self._context)
        return np.ctypeslib.as_array(logits, (self._size,)).copy()


def _describe(writer: gguf.GGUFWriter, c: ModelConfig) -> None:
    writer.add_context_length(c.max_position_embeddings)
    writer.add_embedding_length(c.hidden_size)
    writer.add_block_count(c.num_hidden_layers)
    writer.add_feed_forward_length(c.intermediate_size)
    writer.add_head_count(c.num_attention_heads)
    writer.add_head_count_kv(c.key_value_heads)
    writer.add_key_length(c.head_dim)
    writer.add_value_length(c.head_dim)
    writer.add_layer_norm_rms_eps(c.rms_norm_eps)
    writer.add_rope_freq_base(c.rope_theta)
    writer.add_vocab_size(c.vocab_size)
    writer.add_tokenizer_model("no_vocab")


def _gguf_name(name: str) -> str | None:
    if name == "lm_head.weight":  # tied: llama.cpp takes the embedding where there is no head
        return None
    name = name.removeprefix("model.decoder.").removesuffix(".weight")
    if not name.startswith("layers."):
        return {"embed_tokens": "token_embd", "norm": "output_norm"}[name] + ".weight"
    _, layer, _, part = name.split(".", 3)
    return f"blk.{layer}.{_NAMES[part]}.weight"


@llama_cpp.llama_log_callback
def _silent(level: int, text: bytes, data: object) -> None:
    """llama.cpp tells its whole life on stderr."""
