"""The special tokens that every tokenizer of ours begins with, and the chat format they make."""

from __future__ import annotations

from tokenizers import AddedToken, Tokenizer
from transformers import PreTrainedTokenizerFast

END_OF_TEXT = "<|endoftext|>"  # stands before every document: both bos and eos
PAD = "<|pad|>"
USER = "<|user|>"
ASSISTANT = "<|assistant|>"
END = "<|end|>"  # closes a turn

SPECIAL_TOKENS = (END_OF_TEXT, PAD, USER, ASSISTANT, END)
"""In the order of their ids, 0 to 4."""

SMALLEST_VOCABULARY = len(SPECIAL_TOKENS) + 256
"""Special tokens and one token for every byte: below that some text could not be written."""

# A system message has no token of its own: it opens the turn that follows it. `generation` marks
# what the assistant says, for a loss on nothing else (`assistant_only_loss` in TRL).
CHAT_TEMPLATE = (
    "{%- set ns = namespace(system='') -%}"
    "{%- for message in messages -%}"
    "{%- if message['role'] == 'system' -%}"
    "{%- set ns.system = message['content'] + '\\n\\n' -%}"
    "{%- elif message['role'] == 'assistant' -%}"
    f"{{{{- '{ASSISTANT}' -}}}}"
    "{%- generation -%}"
    f"{{{{- message['content'] + '{END}' -}}}}"
    "{%- endgeneration -%}"
    "{%- else -%}"
    f"{{{{- '{USER}' + ns.system + message['content'] + '{END}' -}}}}"
    "{%- set ns.system = '' -%}"
    "{%- endif -%}"
    "{%- endfor -%}"
    f"{{%- if add_generation_prompt -%}}{{{{- '{ASSISTANT}' -}}}}{{%- endif -%}}"
)


def wrap(backend: Tokenizer) -> PreTrainedTokenizerFast:
    """A Hugging Face tokenizer around a trained backend, special tokens and chat included."""
    backend.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=END_OF_TEXT,
        eos_token=END_OF_TEXT,
        pad_token=PAD,
        extra_special_tokens=[USER, ASSISTANT, END],
        model_input_names=["input_ids", "attention_mask"],
        clean_up_tokenization_spaces=False,
        chat_template=CHAT_TEMPLATE,
    )
