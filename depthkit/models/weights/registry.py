"""Networks by name: one function reads whatever a MODEL may be."""

import sys
import zlib
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar, cast
from urllib.parse import unquote
from zipfile import BadZipFile, ZipFile

from torch import nn

from depthkit.checks import first_line, garbled
from depthkit.errors import CheckpointError, LabelError
from depthkit.models.build import build
from depthkit.models.diffusion.build import latent_diffusion
from depthkit.models.diffusion.sampling import Sampling
from depthkit.models.exported import SUFFIXES, ExportedNetwork
from depthkit.models.net import DepthNet
from depthkit.models.pose.networks import pose_resnet18
from depthkit.models.weights.checkpoint import read_checkpoint, read_pose_net
from depthkit.models.weights.convert import load_published
from depthkit.models.weights.download import fetch
from depthkit.models.weights.facts import give_rules, read_run, write_facts
from depthkit.models.weights.files import check_fit, find_weights, read_file, read_weights
from depthkit.models.weights.folder import CONFIG, WEIGHTS, read_folder
from depthkit.models.weights.published import PUBLISHED, PublishedNetwork, near
from depthkit.models.weights.transformers_hub import Output, load_depth
from depthkit.types import Ambiguity, Representation

Network = TypeVar("Network", bound=nn.Module)
_SAID: set[str] = set()  # licences that this process has named
_FILES = {unquote(entry.place.rpartition("/")[2]): entry.name for entry in PUBLISHED.values() if entry.source}
"""Published networks by the names of their files."""
_DEPTH_FILES, _POSE_FILES = ("encoder", "depth"), ("pose_encoder", "pose")


def from_pretrained(
    model: str | Path,
    *,
    allow: Sequence[str] = (),
    output: Output | str | None = None,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
) -> DepthNet:
    """Return the network that MODEL names, in evaluation mode, on the CPU.

    In a recipe ``base: {class_path: depthkit.models.from_pretrained, init_args: {model: depth_anything_v2_large}}``.

    Args:
        model: a ``.ckpt`` of a run or a file of ``save_network``; a program of ``depthkit export``; a folder of
            ``save_pretrained``, of diffusers or of transformers; a name of ``PUBLISHED``, or ``NAME=FILE`` where its file is at
            hand already; ``hf:ORG/NAME``, one of ours on the hub, or ``hf:ORG/NAME@REVISION``; or ``transformers:ORG/NAME``, a
            folder or hub id, whose network is called as ours are but is no ``DepthNet``.
        allow: beginnings of further names that may be imported to build a checkpoint's network, see ``read_checkpoint``.
        output: what a model of transformers returns, where it does not say it itself; compared with what others say.
        revision: branch, tag or commit on the hub.
        cache_dir: folder of downloads; default those of huggingface_hub and ``torch.hub``. ``HF_HUB_OFFLINE`` is obeyed.

    Returns:
        The network with ``representation`` and ``ambiguity``; of a checkpoint, with its ``trained_size`` if that is known; and
        of a published one, with its authors' ``input_rule``, ``output_rule`` and ``flip``, which predictors follow.

    Raises:
        CheckpointError: there is no such network, or it cannot be had or read.
        LabelError: ``output`` contradicts the network, or is needed.
    """
    text = str(model)
    name, file = _name_and_file(text)
    hub: dict[str, Any] = {"revision": revision, "cache_dir": cache_dir}
    network: Any
    if name in PUBLISHED:
        network = _published(PUBLISHED[name], hub, file)
    elif text.startswith("hf:"):
        repo, _, at = text.removeprefix("hf:").partition("@")
        network = _of_folder(_snapshot(repo, hub | ({"revision": at} if at else {})), output)
    elif text.startswith("transformers:"):
        network = load_depth(text.removeprefix("transformers:"), output=output, **hub)
    elif (path := Path(text).expanduser()).is_dir():
        network = _of_folder(path, output)
    elif path.name in (CONFIG, WEIGHTS) and path.is_file() and (path.parent / CONFIG).is_file():
        network = _of_folder(path.parent, output)
    elif path.is_file() and path.suffix.lower() in SUFFIXES:
        network = ExportedNetwork(path)
    elif path.is_file() and (path.name in _FILES or path.suffix.lower() == ".zip"):
        raise CheckpointError(
            f"expected {_FILES.get(path.name, 'NAME')}={path} for the file of a published network; got its path alone. "
            "`depthkit models` lists the names."
        )
    elif path.is_file():
        found = read_checkpoint(path, allow=allow)
        network = _told(found.model, found.ambiguity)
        network.trained_size = found.size
    elif file and Path(file).expanduser().exists():
        raise CheckpointError(f"expected NAME={file} with the name of a published network; got {name!r}. {near(name)}")
    elif path.name != text or path.suffix in (".ckpt", ".pt", ".pth"):  # a path, no name
        raise CheckpointError(
            f"expected a MODEL at {text}: a checkpoint, an exported program or a folder; there is no file. "
            "A network on the hub is hf:ORG/NAME or transformers:ORG/NAME."
        )
    else:
        raise CheckpointError(
            f"expected a MODEL: a checkpoint, a folder, hf:ORG/NAME, transformers:ORG/NAME or the name of a published network; "
            f"there is no {text!r}. {near(path.name)}`depthkit models` lists the names."
        )
    predicts = _output_of(network)
    if output is not None and output != predicts:
        raise LabelError(
            f"expected --output {predicts}, as {text} predicts {network.ambiguity} {network.representation}; got {output}. "
            "Leave it out."
        )
    return cast(DepthNet, network.eval())


def pose_from_pretrained(model: str | Path, *, allow: Sequence[str] = (), cache_dir: str | Path | None = None) -> nn.Module:
    """Return the pose network that was trained beside a depth network, in evaluation mode.

    Args:
        model: a name of ``PUBLISHED``, for example ``monodepth2_mono_640x192``, also with ``=FILE``; or a run's checkpoint.
        allow: see ``from_pretrained``.
        cache_dir: see ``from_pretrained``.

    Raises:
        CheckpointError: the network has no pose network, or it cannot be downloaded.
    """
    name, file = _name_and_file(str(model))
    entry = PUBLISHED.get(name)
    if entry is None and Path(model).is_file():
        return read_pose_net(model, allow=allow)
    if entry is None or not _has_pose(name):
        raise CheckpointError(
            f"expected a network of Monodepth2 trained on video, or a checkpoint of one; got {str(model)!r}. "
            "`depthkit models` lists them."
        )
    network = pose_resnet18(pretrained=False, unit=5.4 if "stereo" in name else 1.0)  # beside depth in metres
    path = file or fetch(entry.place, entry.checksum, cache_dir)
    return published(network, path, source="monodepth2").eval()


def run_of(model: str | Path) -> dict[str, Any]:
    """Return the content of the run's checkpoint that MODEL names, or what one would hold of its network and pose network.

    Raises:
        CheckpointError: there is no such network, or it cannot be had or read.
    """
    if Path(model).is_file():
        return read_run(model)
    network: Any = from_pretrained(model)
    content: dict[str, Any] = {"state_dict": {f"model.{key}": x for key, x in network.state_dict().items()}}
    write_facts(content, network)
    if _has_pose(_name_and_file(str(model))[0]):
        content["state_dict"] |= {f"pose_net.{key}": x for key, x in pose_from_pretrained(model).state_dict().items()}
    return content


def published(model: Network, weights: str | Path, *, source: str) -> Network:
    """Load the weights of a published file into a network, to build upon.

    In a recipe ``base: {class_path: depthkit.models.published, init_args: {model: {class_path:
    depthkit.models.dpt_dinov2_large, init_args: {pretrained: false, hooks: v2}}, weights: depth_anything_v2_vitl.pth,
    source: depth_anything}}``.

    Args:
        model: the same architecture; its weights are replaced.
        weights: file, or ``package:NAME``; see ``read_weights``. For Monodepth2 the zip with ``encoder.pth`` and ``depth.pth``,
            the folder that holds them, or either file if the other lies beside it.
        source: who published it, see ``load_published``.

    Returns:
        ``model``.

    Raises:
        CheckpointError: the file cannot be read, or does not fit; see ``load_published``.
    """
    load_published(model, _state_in(weights, model, source), source=source)
    return model


def _state_in(weights: str | Path, model: nn.Module, source: str) -> dict[str, Any]:
    """Read what ``load_published`` takes from a file, or from a folder that holds it."""
    path = Path(weights).expanduser()
    if source == "monodepth2":
        files = _DEPTH_FILES if isinstance(model, DepthNet) else _POSE_FILES
        folder = path if path.is_dir() else find_weights(weights).parent
        return _unzipped(path, files) if path.suffix.lower() == ".zip" else _files_in(folder, files)
    if path.is_dir():
        found = [file for file in sorted(path.iterdir()) if file.suffix in (".safetensors", ".pt", ".pth")]
        if len(found) != 1:
            raise CheckpointError(f"expected one file of weights in {path}; got {len(found)}. Name the file.")
        path = found[0]
    return read_weights(path if path.is_file() else weights)


def _name_and_file(text: str) -> tuple[str, str]:
    """Split a published name, with capitals or dashes as it may be written, from its file; a path that exists goes first."""
    name, _, file = text.partition("=")
    plain = name.strip().lower().replace("-", "_")
    written = name in PUBLISHED or plain not in PUBLISHED or Path(text).expanduser().exists()
    return (name if written else plain), file


def _published(entry: PublishedNetwork, hub: dict[str, Any], file: str = "") -> Any:
    """Build a published network with its weights, downloaded unless their file is given, and its authors' rules."""
    if entry.restricted and entry.name not in _SAID:
        _SAID.add(entry.name)
        sys.stderr.write(f"{entry.terms}\n")
    kind, _, place = entry.place.partition(":")
    network: Any
    if kind == "transformers":
        output = Output.DEPTH if entry.ambiguity == Ambiguity.METRIC else Output.DISPARITY
        network = load_depth(file or place, output=output, **hub)
    elif kind == "diffusers":
        folder = Path(file).expanduser() if file else _snapshot(place, hub, _DIFFUSERS)
        network = latent_diffusion(pretrained=folder, sampling=Sampling(**entry.arguments))
    else:
        network = build({"architecture": entry.builder, **entry.arguments})
        path: str | Path
        if file:
            if (other := _FILES.get(Path(file).name, entry.name)) != entry.name:
                raise CheckpointError(
                    f"expected the file of {entry.name}; {file} has the name of {other}'s. Write {other}={file}, or rename it."
                )
            path = file
        elif kind == "hub":
            repo, _, name = place.rpartition("/")
            path = _hub_file(repo, name, hub)
        else:
            path = fetch(entry.place, entry.checksum, hub["cache_dir"])
        state = _state_in(path, network, entry.source)
        _check_training(entry, state.get("encoder"), str(path))
        load_published(network, state, source=entry.source)
    if entry.input_rule is not None:
        network.input_rule = entry.input_rule
    if entry.output_rule is not None:
        network.output_rule = entry.output_rule
    network.flip = entry.flip
    return _told(network, entry.ambiguity)


def _check_training(entry: PublishedNetwork, encoder: Any, where: str) -> None:
    """Check what Monodepth2 writes beside its encoder's weights: the size of training, and whether stereo gave its unit."""
    if not isinstance(encoder, dict) or entry.input_rule is None or not isinstance(entry.input_rule.side, tuple):
        return
    height, width = entry.input_rule.side
    expected = {"height": height, "width": width, "use_stereo": "stereo" in entry.name}
    for name, value in expected.items():
        if encoder.get(name, value) != value:
            raise CheckpointError(
                f"expected {name}={value} in the file of {entry.name}; got {name}={encoder[name]} in {where}. It is of another "
                "of Monodepth2's networks: give its name, or get the right file."
            )


def _of_folder(folder: Path, output: Output | str | None = None) -> Any:
    """Build the network in a folder of ``save_pretrained``, diffusers or transformers."""
    if (folder / "unet").is_dir():
        return latent_diffusion(pretrained=folder)
    if (folder / "preprocessor_config.json").is_file():
        return load_depth(str(folder), output=output)
    with garbled(f"a network of depthkit in {folder}", CheckpointError, "Get the folder again."):
        facts, state = read_folder(folder)
        network = build(facts["model"])
        check_fit(state, network.state_dict(), f"the network that {folder / CONFIG} describes")
        network.load_state_dict(state)
        network.trained_size = tuple(facts.get("size") or ()) or None
        give_rules(network, facts)
        return _told(network, Ambiguity(facts["ambiguity"]))


def _has_pose(name: str) -> bool:
    """Tell whether a pose network was published beside a depth network: those of Monodepth2 that were trained on video."""
    return name in PUBLISHED and PUBLISHED[name].source == "monodepth2" and "mono" in name.split("_")


def _output_of(network: Any) -> Output:
    """Name the ``output`` of a network."""
    inverse = network.representation in (Representation.DISPARITY, Representation.LOG_DISPARITY)
    return Output.DISPARITY if inverse else Output.DEPTH


def _told(network: Any, ambiguity: Ambiguity) -> Any:
    """Set the ambiguity of a network that does not state its own."""
    if not hasattr(network, "ambiguity"):
        network.ambiguity = ambiguity
    return network


_DIFFUSERS = ["*.json", "tokenizer/*", "*.safetensors"]


def _snapshot(repo: str, hub: dict[str, Any], patterns: list[str] | None = None) -> Path:
    """Download a folder of the hub."""
    from huggingface_hub import snapshot_download

    try:
        ignored = ["*.fp16.*", "*.non_ema.*"]
        return Path(snapshot_download(repo, allow_patterns=patterns or None, ignore_patterns=ignored, **hub))
    except Exception as error:  # whatever the hub's client, its network or its cache raise
        raise _unreachable(repo, error) from error


def _hub_file(repo: str, file: str, hub: dict[str, Any]) -> Path:
    """Download a file of the hub."""
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(repo, file, **hub))
    except Exception as error:  # as of _snapshot
        raise _unreachable(f"{repo}/{file}", error) from error


def _unreachable(what: str, error: Exception) -> CheckpointError:
    return CheckpointError(
        f"expected {what} on the Hugging Face hub; it cannot be had ({first_line(error)}). Check the name and the connection; "
        "with HF_HUB_OFFLINE set, it must be in the cache."
    )


def _unzipped(path: Path, files: tuple[str, ...]) -> dict[str, Any]:
    """Read the named files of Monodepth2 in a zip."""
    with TemporaryDirectory() as scratch:
        try:
            with ZipFile(path) as archive:
                for file in files:
                    inside = [name for name in archive.namelist() if Path(name).name == f"{file}.pth" and name[:2] != "__"]
                    if len(inside) > 1:  # "__MACOSX/" holds what a Mac knows about files
                        raise CheckpointError(
                            f"expected one network in {path}; got {' and '.join(inside[:2])}. Unpack it and name one folder."
                        )
                    for name in inside:
                        Path(scratch, f"{file}.pth").write_bytes(archive.read(name))
        except (BadZipFile, OSError, zlib.error) as error:
            raise CheckpointError(f"expected a zip at {path}; got: {first_line(error)}. Remove it and get it again.") from error
        return _files_in(Path(scratch), files, str(path))


def _files_in(folder: Path, files: tuple[str, ...], where: str = "") -> dict[str, Any]:
    """Read the named files of Monodepth2 in a folder: tensors, and the training size beside the encoder's."""
    if missing := [f"{file}.pth" for file in files if not (folder / f"{file}.pth").is_file()]:
        raise CheckpointError(
            f"expected {' and '.join(f'{file}.pth' for file in files)} in {where or folder}, as Monodepth2 comes in several "
            f"files; {', '.join(missing)} is missing. Get the authors' whole zip."
        )
    return {file: read_file(folder / f"{file}.pth", "weights of Monodepth2") for file in files}
