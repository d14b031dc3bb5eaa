"""What is known of a dataset beside its files: an entry of the catalogue, and how it is opened."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from inspect import Parameter, signature
from typing import Any

from depthkit.errors import RecipeError
from depthkit.shards.images import ImageFormat
from depthkit.shards.label import DepthFormat
from depthkit.types import LabelKind, Sample


@dataclass(frozen=True)
class Dataset:
    """One dataset as its authors publish it.

    Attributes:
        name: what ``depthkit shards write`` calls it.
        read: from its folder (or file), the split if it has any, and options to its samples: a sequence whose items are read
            when they are indexed, with ``key(position)`` and ``rejects``. Its signature is the command's options.
        layout: what lies in the folder.
        kind: what labels are; None if the files or an option tell.
        unit: what the numbers in the files are, and how labels come from them.
        invalid: which pixels have no label.
        sky: how the sky is labelled.
        camera: what is known of intrinsics, and where pixels are counted from.
        source: who published it, and where its facts are stated.
        licence: of the data.
        published: how many samples its authors publish, by split; None where they say nothing. Empty if any split will do.
        total: how many there are in all, as far as known, where ``published`` does not say it.
        splits: how samples are divided; scenes never lie on both sides.
        test: the test that writes such a folder and reads it back.
        real: whether a published sample was read.
        rendered: whether samples are made without a folder; ``read`` takes none then.
        depth_format: how labels are stored in shards unless asked for otherwise.
        image_format: how images are that have no JPEG or WebP file of their own; tests keep them as they are.
    """

    name: str
    read: Callable[..., Iterable[Sample]]
    layout: str = ""
    kind: LabelKind | None = None
    unit: str = ""
    invalid: str = ""
    sky: str = ""
    camera: str = ""
    source: str = ""
    licence: str = ""
    published: Mapping[str, int | None] = field(default_factory=dict)
    total: int | None = None
    splits: str = "none are published"
    test: str = ""
    real: bool = False
    rendered: bool = False
    depth_format: DepthFormat = DepthFormat.PNG_LOG16
    image_format: ImageFormat = ImageFormat.JPG

    @property
    def counts(self) -> str:
        """Return ``published`` and ``total`` in words."""
        splits = [f"{split} {'?' if count is None else f'{count:,}'}" for split, count in self.published.items()]
        return ", ".join(splits if self.total is None else [*splits, f"{self.total:,} in all"]) or "-"

    @property
    def options(self) -> Mapping[str, Parameter]:
        """Return what ``read`` can be told beside the folder and the split, by name."""
        parameters = list(signature(self.read).parameters.values())[0 if self.rendered else 1 :]
        return {parameter.name: parameter for parameter in parameters if parameter.name != "split"}

    def complete(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return every option of ``read``: those given, and the others' defaults.

        Raises:
            RecipeError: an option is unknown or missing.

        >>> Dataset("mine", lambda root, *, scale=0.001, stop=None: []).complete({"stop": 3})
        {'scale': 0.001, 'stop': 3}
        """
        known = self.options
        if foreign := sorted(options.keys() - known.keys()):
            raise RecipeError(
                f"expected options of dataset {self.name}: {', '.join(sorted(known)) or 'none'}; got {', '.join(foreign)}. "
                f"Leave {foreign[0]} out."
            )
        if missing := [n for n, option in known.items() if option.default is Parameter.empty and n not in options]:
            raise RecipeError(f"expected option {missing[0]} for dataset {self.name}; got none. Give --{missing[0]}.")
        return {name: options.get(name, option.default) for name, option in known.items()}

    def open(self, root: str, split: str | None = None, options: Mapping[str, Any] | None = None) -> Iterable[Sample]:
        """Return the samples of a split.

        Args:
            root: folder.
            split: which of ``published``; any name, or None for all samples, if the dataset has no splits of its own.
            options: of ``read``.

        Raises:
            RecipeError: an option is unknown or missing, or the split is another.
            DepthKitError: the folder is not laid out as ``layout`` says.
        """
        given: dict[str, Any] = self.complete(options or {})
        if self.published and split not in self.published:
            raise RecipeError(
                f"expected split of dataset {self.name} to be {' or '.join(self.published)}; got {split}. Give --split."
            )
        if "split" in signature(self.read).parameters:
            given["split"] = split
        return self.read(**given) if self.rendered else self.read(root, **given)
