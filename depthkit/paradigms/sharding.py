"""FSDP2: weights, gradients and the optimizer's state of a network spread over the ranks, each part gathered when it runs."""

from typing import Any

from lightning.pytorch import LightningModule
from torch import nn

from depthkit.errors import RecipeError
from depthkit.models import DepthNet
from depthkit.models.encoders.vit import ViTEncoder
from depthkit.paradigms.terms.combination import MinNorm


class SpreadsWeights(LightningModule):
    """Spread the networks' weights over the ranks if the trainer's strategy is ``ModelParallelStrategy`` (FSDP2).

    The module has ``model`` and ``combine``.
    """

    model: Any
    combine: Any

    def configure_model(self) -> None:
        """Spread them.

        Raises:
            RecipeError: the combination or a network is not made for it.
        """
        if self.device_mesh is None:
            return
        if isinstance(self.combine, MinNorm):
            raise RecipeError("expected a sum of terms with ModelParallelStrategy; got MinNorm. Use the strategy ddp.")
        for network in self.networks():
            shard(network, self.device_mesh["data_parallel"])
        check_sharded(self)

    def networks(self) -> list[nn.Module]:
        """Return the networks whose parts are called one after the other, those that only teach among them."""
        return [self.model] if isinstance(self.model, DepthNet) and not hasattr(self.model, "multiscale_of") else []


def shard(network: nn.Module, mesh: Any) -> None:
    """Shard a network's weights over the ranks of a device mesh; skip the parts that are sharded already.

    A transformer's blocks are gathered one by one; an encoder of another kind, the decoder and the head as a whole.

    Args:
        network: a ``DepthNet``, or a part of one.
        mesh: of one dimension.
    """
    from torch.distributed.fsdp import FSDPModule, fully_shard

    parts = (network.encoder, network.decoder, network.head) if isinstance(network, DepthNet) else (network,)
    for part in parts:
        if isinstance(part, FSDPModule) or next(part.parameters(), None) is None:
            continue
        for block in part.backbone.blocks if isinstance(part, ViTEncoder) else ():
            fully_shard(block, mesh=mesh)
        # By default a whole that no backward pass follows, as a teacher's, would stay gathered.
        fully_shard(part, mesh=mesh, reshard_after_forward=True)


def check_sharded(module: nn.Module) -> None:
    """Check that all weights that are trained are spread: the gradients of others would differ from rank to rank.

    Raises:
        RecipeError: some are not.
    """
    whole = [name for name, p in module.named_parameters() if p.requires_grad and not hasattr(p, "to_local")]
    if whole:
        raise RecipeError(
            f"expected ModelParallelStrategy to spread all weights; {len(whole)} are in parts that are made for one device, "
            f"{whole[0]} for one. Train this network with the strategy ddp."
        )
