"""Folders of diffusers with latent diffusion models: read them, and write them for its Marigold pipeline."""

import importlib.util
import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from depthkit import __version__
from depthkit.checks import first_line, optional_import
from depthkit.errors import CheckpointError
from depthkit.models.diffusion.empty_prompt import FILE, read_embedding, save_embedding, text_parts
from depthkit.models.weights.facts import rules_of
from depthkit.types import Ambiguity
from depthkit.writing import replacing

FACTS = "depthkit.json"
INDEX = "model_index.json"
_PARTS = "unet/, vae/ and scheduler/"
_DISTILLED = ("LCMScheduler", "TCDScheduler")  # their steps are others, and their weights know no others


class Parts(NamedTuple):
    """Content of a folder.

    Attributes:
        unet: ``UNet2DConditionModel``, float32.
        vae: ``AutoencoderKL``, float32.
        scheduler: configuration of the noise schedule.
        text_embedding: of the empty prompt, ``(1, tokens, C)``.
        processing_size: longer side [px] at which a model for depth wants images; None for a model for images.
        steps: default number of denoising steps; 1 if the folder has none.
        facts: entries that ``save`` adds, "codec", "sampling" and the network's rules; empty in any other folder.
    """

    unet: Any
    vae: nn.Module
    scheduler: dict[str, Any]
    text_embedding: Tensor
    processing_size: int | None
    steps: int
    facts: dict[str, Any]


def diffusers() -> Any:
    """Import diffusers.

    Raises:
        MissingPackageError: diffusers is not installed.
    """
    return optional_import("diffusers", "diffusion")


def load(source: str | Path, *, tokens: int | None = None) -> Parts:
    """Read the parts in a folder of diffusers (of Stable Diffusion, Marigold or ``save``), or of a hub id.

    Args:
        source: folder or hub id.
        tokens: length of the empty prompt's embedding: 2, its start and end, or 77, padded as for text-to-image; None takes
            the stored length, or 2.

    Raises:
        CheckpointError: the folder holds another kind of model, weights are missing or unexpected, or it cannot be reached.
        MissingPackageError: diffusers is not installed, or transformers, which a text encoder needs.
    """
    package, root = diffusers(), _folder(source)
    index, facts = (_read_json(root / name, source) if (root / name).is_file() else {} for name in (INDEX, FACTS))
    scheduler = _read_json(root / "scheduler" / "scheduler_config.json", source)
    if index.get("prediction_type", "depth") != "depth":
        raise CheckpointError(
            f"expected a model for images or for depth at {source}; it predicts {index['prediction_type']}. Choose another one."
        )
    if scheduler.get("_class_name") in _DISTILLED:
        raise CheckpointError(
            f"expected a model that denoises by DDIM at {source}; it is distilled for a {scheduler['_class_name']}. Choose the "
            "one that it was distilled from."
        )
    low_memory = importlib.util.find_spec("accelerate") is not None
    found = {}
    for name, kind in (("unet", package.UNet2DConditionModel), ("vae", package.AutoencoderKL)):
        written = _read_json(root / name / "config.json", source).get("_class_name")
        if written != kind.__name__:
            raise CheckpointError(
                f"expected a {kind.__name__} in {root / name}; it holds a {written}. Choose a model of the kind of Stable "
                "Diffusion 1 or 2, or one that was fine-tuned from it."
            )
        try:
            model, report = kind.from_pretrained(
                root, subfolder=name, output_loading_info=True, torch_dtype=torch.float32, low_cpu_mem_usage=low_memory
            )
        except (OSError, ValueError, RuntimeError, KeyError) as error:
            raise CheckpointError(f"expected weights of {kind.__name__} in {root / name}; got: {first_line(error)}.") from error
        if wrong := [*report["missing_keys"], *report["unexpected_keys"]]:
            raise CheckpointError(
                f"expected the weights in {root / name} to be those its config.json describes; {len(wrong)} are missing or too "
                f"many, such as {wrong[0]}. Save the model again."
            )
        found[name] = model
    return Parts(
        found["unet"],
        found["vae"],
        scheduler,
        read_embedding(root, tokens),
        index.get("default_processing_resolution"),
        index.get("default_denoising_steps") or 1,
        facts,
    )


def save(model: Any, folder: str | Path) -> Path:
    """Write a ``LatentDiffusionDepth`` as a folder that ``load`` reads, and diffusers' ``MarigoldDepthPipeline`` runs.

    The pipeline predicts (y + 1) / 2; ``depthkit.json`` holds the codec from y to metres. The text encoder knows the empty
    prompt only; a model trained with an embedding of 77 tokens has none, as the pipeline would ask it for 2.

    Raises:
        MissingPackageError: diffusers or transformers is not installed.
    """
    package, folder = diffusers(), Path(folder)
    affine = model.ambiguity == Ambiguity.SHIFT_SCALE
    with TemporaryDirectory() as scratch:
        two = model.text_embedding.shape[1] == 2
        text_encoder, tokenizer = text_parts(model.text_embedding, Path(scratch)) if two else (None, None)
        pipeline = package.MarigoldDepthPipeline(
            model.unet,
            model.vae,
            package.DDIMScheduler.from_config(model.scheduler.config),
            text_encoder,
            tokenizer,
            prediction_type="depth",
            scale_invariant=affine,
            shift_invariant=affine,
            default_denoising_steps=model.sampling.steps,
            default_processing_resolution=model.processing_size,
        )
        facts = {"version": __version__, "codec": model.codec.facts(), "sampling": model.config["sampling"], **rules_of(model)}
        with replacing(folder / INDEX, folder=True) as part:
            pipeline.save_pretrained(part.parent)
            save_embedding(model.text_embedding, part.parent)
            part.with_name(FACTS).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    return folder


def _folder(source: str | Path) -> Path:
    """Find the folder of the parts; download it if ``source`` is a hub id."""
    path, text = Path(source).expanduser(), str(source)
    if path.is_dir():
        return path
    if isinstance(source, Path) or text.startswith((".", "/", "~")) or text.count("/") != 1:
        raise CheckpointError(
            f"expected a folder of diffusers at {source}, with {_PARTS}, or a hub id such as prs-eth/marigold-depth-v1-1; "
            "there is no such folder. Check the path."
        )
    from huggingface_hub import snapshot_download

    weights = [f"{part}/*.safetensors" for part in ("unet", "vae", "text_encoder")]
    try:
        return Path(
            snapshot_download(
                text, allow_patterns=["*.json", "tokenizer/*", FILE, *weights], ignore_patterns=["*.fp16.*", "*.non_ema.*"]
            )
        )
    except Exception as error:  # whatever the hub's client, its network or its cache raise
        raise CheckpointError(
            f"expected a latent diffusion model at {text}; it cannot be had ({first_line(error)}). Without a connection to "
            f"the hub, give the path of a folder with {_PARTS}."
        ) from error


def _read_json(file: Path, source: str | Path) -> dict[str, Any]:
    if not file.is_file():
        raise CheckpointError(
            f"expected a latent diffusion model at {source}, a folder of diffusers with {_PARTS}; "
            f"{file.parent.name}/{file.name} is missing. Check the path, or choose a model of the kind of Stable Diffusion 2."
        )
    try:
        return dict(json.loads(file.read_text(encoding="utf-8")))
    except ValueError as error:
        raise CheckpointError(f"expected JSON in {file}; {error}. Get the folder again.") from error
