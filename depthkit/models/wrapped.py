"""A network around another one, which has the facts of that one."""

from typing import Any

from torch import nn

from depthkit.resize import canonical_focal_of, input_rule_of, multiple_of, output_rule_of, representation_of, resize_space_of
from depthkit.types import Ambiguity, Representation


class WrappedDepth(nn.Module):
    """Base of networks that call another one; what is known of that one holds for them.

    Args:
        model: called on RGB in [0, 1], ``(B, 3, H, W)``; returns ``(B, 1, h, w)``.
        ambiguity: what its maps leave undetermined; default ``model.ambiguity``.
        representation: of its maps; default ``model.representation``.

    Attributes:
        representation: of the maps.
        ambiguity: what the maps leave undetermined; None if nothing says it.
        canonical_focal: the network's, see ``depthkit.resize.in_metres``.
        size_multiple: image sides must be multiples of it.
        resize_space: in which to resize the maps.
        input_rule: the network's, see ``depthkit.resize.input_rule_of``.
        output_rule: the network's.

    Raises:
        LabelError: the representation is unknown.
    """

    def __init__(
        self, model: nn.Module, *, ambiguity: Ambiguity | None = None, representation: Representation | None = None
    ) -> None:
        super().__init__()
        self.model = model
        self.representation = representation_of(model, representation)
        self.ambiguity: Any = getattr(model, "ambiguity", None) if ambiguity is None else Ambiguity(ambiguity)
        self.canonical_focal = canonical_focal_of(model)
        self.size_multiple = multiple_of(model)
        self.resize_space = resize_space_of(model) or self.representation
        self.input_rule, self.output_rule = input_rule_of(model), output_rule_of(model)
