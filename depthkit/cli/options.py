"""Options that several commands share."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from depthkit.checks import check_least
from depthkit.errors import RecipeError
from depthkit.evaluation import Protocol
from depthkit.models import LatentDiffusionDepth, Sampling, from_pretrained, uncertain
from depthkit.resize import InputResize, InputRule, OutputResize, input_rule_of, output_rule_of


@dataclass(frozen=True)
class Resizing:
    """What to change of how images and maps are resized; what is not given stays as the network's authors have it.

    Attributes:
        side: [px], or (height, width) to stretch to; see ``InputResize``.
        rule: how the scale is found.
        multiple: of which each side is one [px].
        interpolation: of the image.
        antialias: smooth the image before it is shrunk.
        align_image: keep the places of the image's corners.
        extend: reach the multiple by repeating the last row and column.
        padding: of the image, in roots of half a side; ZoeDepth's is 3.
        output: interpolation of the map.
        align_corners: of the map.
    """

    side: float | tuple[int, int] | None = None
    rule: Literal["upper_bound", "lower_bound", "minimal", "area", "native", "stretch"] | None = None
    multiple: int | None = None
    interpolation: Literal["nearest", "bilinear", "bicubic", "area", "lanczos"] | None = None
    antialias: bool | None = None
    align_image: bool | None = None
    extend: bool | None = None
    padding: float | None = None
    output: Literal["nearest", "bilinear", "bicubic", "area"] | None = None
    align_corners: bool | None = None

    def input_rule(self, own: InputResize) -> InputResize:
        """Change a rule of images; two sides stretch, one side alone keeps the aspect of the area.

        Raises:
            RecipeError: the parts contradict each other.
        """
        for side in self.side if isinstance(self.side, tuple) else (self.side,):
            check_least(1, side=side)
        names = ("side", "rule", "multiple", "interpolation", "antialias", "extend", "padding")
        given = {name: value for name in names if (value := getattr(self, name)) is not None}
        given |= {} if self.align_image is None else {"align_corners": self.align_image}
        if "side" in given and "rule" not in given and isinstance(self.side, tuple) != (own.rule == InputRule.STRETCH):
            given["rule"] = InputRule.STRETCH if isinstance(self.side, tuple) else InputRule.AREA
        return replace(own, **given)

    def output_rule(self, own: OutputResize) -> OutputResize:
        """Change a rule of maps."""
        given: dict[str, Any] = {"mode": self.output, "align_corners": self.align_corners}
        return replace(own, **{name: value for name, value in given.items() if value is not None})

    def of_network(self, network: Any) -> None:
        """Change a network's own rules."""
        network.input_rule = self.input_rule(input_rule_of(network))
        network.output_rule = self.output_rule(output_rule_of(network))

    def of_protocol(self, protocol: Protocol) -> Protocol:
        """Change a protocol; a changed one has no published figures."""
        if all(value is None for value in asdict(self).values()):
            return protocol
        return replace(
            protocol,
            input=self.input_rule(protocol.input),
            output=self.output_rule(protocol.output),
            source=f"{protocol.source}; resized otherwise, not comparable with it",
            published={},
        )


OWN_RULES = Resizing()
"""Changes nothing."""


def set_sampling(network: Any, sampling: Sampling | None, model: str) -> None:
    """Let a latent diffusion model predict by other settings; None changes nothing.

    Raises:
        RecipeError: settings for a network of another kind, that the MODEL names.
    """
    if sampling is None:
        return
    if not isinstance(network, LatentDiffusionDepth):
        holds = type(network).__name__
        raise RecipeError(f"expected a latent diffusion model for --sampling; {model} holds a {holds}. Leave it out.")
    network.sampling = sampling


def with_members(network: Any, confidence: str | None, members: Sequence[str] | None, allow: Sequence[str] | None) -> Any:
    """Return a network that tells its uncertainty, as the options ``confidence`` and ``members`` say.

    Raises:
        RecipeError: further members without an ensemble, or the network does not have such an uncertainty.
    """
    if confidence is None:
        raise RecipeError("expected --confidence ensemble with --members. Add it, or leave out the members.")
    return uncertain(network, confidence, others=[from_pretrained(member, allow=allow or ()) for member in members or ()])


def own_size(network: Any) -> tuple[int, int] | None:
    """Return the (height, width) [px] that a network was trained or made for; None if it takes any."""
    rule, trained = input_rule_of(network), getattr(network, "trained_size", None)
    return trained or (rule.side if isinstance(rule.side, tuple) else None)


def shown_name(model: str) -> str:
    """Return what tables call a MODEL: of a file its stem, of a folder its name, else its own name."""
    path = Path(model)
    return path.stem if path.is_file() else path.name if path.is_dir() else model.partition("=")[0]
