"""The empty prompt, the only text of a depth model: its embedding, and a text encoder that returns just this."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from depthkit.checks import optional_import
from depthkit.errors import CheckpointError

FILE = "empty_text_embedding.safetensors"
_KEY = "empty_text_embedding"
_START, _END = "<|startoftext|>", "<|endoftext|>"
_LOUD = 1e3  # so that the layer norm's epsilon does not show


def read_embedding(root: Path, tokens: int | None) -> Tensor:
    """Read the empty prompt's embedding in a folder of diffusers, ``(1, tokens, C)``, or compute it by its text encoder.

    Args:
        root: the folder.
        tokens: 2, the prompt's start and end, or 77, padded; None takes the stored length, or 2.

    Raises:
        CheckpointError: the folder has no embedding and no text encoder, or stores an embedding of another length.
        MissingPackageError: transformers is not installed.
    """
    if (root / FILE).is_file():
        stored: Tensor = load_file(root / FILE)[_KEY]
        if tokens not in (None, stored.shape[1]):
            raise CheckpointError(
                f"expected an embedding of {tokens} tokens in {root / FILE}; it has {stored.shape[1]}, which the model was "
                "trained with. Leave out tokens."
            )
        return stored
    if not ((root / "text_encoder").is_dir() and (root / "tokenizer").is_dir()):
        raise CheckpointError(
            f"expected text_encoder/ and tokenizer/, or {FILE}, in {root}; there is neither. The empty prompt's embedding is "
            "computed from them once: complete the folder."
        )
    package = optional_import("transformers", "diffusion")
    tokenizer = package.CLIPTokenizer.from_pretrained(root, subfolder="tokenizer")
    encoder = package.CLIPTextModel.from_pretrained(root, subfolder="text_encoder").float().eval()
    padding = "do_not_pad" if tokens in (None, 2) else "max_length"
    prompt = tokenizer("", padding=padding, max_length=tokenizer.model_max_length, truncation=True, return_tensors="pt")
    with torch.no_grad():
        embedding: Tensor = encoder(prompt.input_ids)[0]
    return embedding


def save_embedding(embedding: Tensor, root: Path) -> None:
    """Write an embedding for ``read_embedding``."""
    save_file({_KEY: embedding.detach().cpu().contiguous()}, root / FILE)


def text_parts(embedding: Tensor, scratch: Path) -> tuple[Any, Any]:
    """Build a ``CLIPTextModel`` without layers and a ``CLIPTokenizer`` that give the empty prompt's embedding of two tokens.

    With them a pipeline of diffusers needs no text encoder of 1.3 GB. The prompt's start and end become two opposite vectors
    of zero mean and unit variance, which the closing layer norm leaves unchanged; its weight and bias are half the difference
    and the mean of the two embeddings.

    Args:
        embedding: ``(1, 2, C)``, C even.
        scratch: an empty folder for the tokenizer's vocabulary.

    Raises:
        MissingPackageError: transformers is not installed.
    """
    package = optional_import("transformers", "diffusion")
    first, second = embedding[0].detach().float().cpu()
    width = len(first)
    config = package.CLIPTextConfig(
        vocab_size=2, hidden_size=width, intermediate_size=1, num_hidden_layers=0, num_attention_heads=1,
        max_position_embeddings=2, bos_token_id=0, eos_token_id=1, pad_token_id=1,
    )  # fmt: skip
    encoder = package.CLIPTextModel(config).eval()
    sign = torch.tensor([1.0, -1.0]).repeat(width // 2)
    weights = encoder.state_dict()
    for name, value in {
        "token_embedding.weight": torch.stack([sign, -sign]) * _LOUD,
        "position_embedding.weight": torch.zeros(2, width),
        "final_layer_norm.weight": (first - second) / 2 * sign,
        "final_layer_norm.bias": (first + second) / 2,
    }.items():
        (found,) = (key for key in weights if key.endswith(name))
        weights[found].copy_(value)
    (scratch / "vocab.json").write_text(json.dumps({_START: 0, _END: 1}), encoding="utf-8")
    (scratch / "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")
    tokenizer = package.CLIPTokenizer.from_pretrained(
        scratch, bos_token=_START, eos_token=_END, unk_token=_END, pad_token=_END, model_max_length=2
    )
    return encoder, tokenizer
