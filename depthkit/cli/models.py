"""``depthkit models``: the published networks that a MODEL may name."""

import sys

from depthkit.errors import CheckpointError
from depthkit.models.weights.published import PUBLISHED, near


def models(name: str = "") -> None:
    """List the published networks, or print the facts of one.

    Args:
        name: name of a network; empty lists all.

    Raises:
        CheckpointError: there is no network of this name.
    """
    if not name:
        width = max(map(len, PUBLISHED))
        for entry in PUBLISHED.values():
            sys.stdout.write(
                f"{entry.name:<{width}}  {entry.representation}, {entry.ambiguity}; {entry.licence}; {entry.paper}\n"
            )
        return
    if name not in PUBLISHED:
        raise CheckpointError(
            f"expected the name of a published network; got {name!r}. {near(name)}`depthkit models` lists them."
        )
    entry = PUBLISHED[name]
    facts = {
        "paper": entry.paper,
        "predicts": f"{entry.representation}, ambiguity: {entry.ambiguity}",
        "file": entry.place,
        "checksum": entry.checksum or "recorded at the first download",
        "licence": f"{entry.licence} (weights), {entry.licence_code} (code)",
        "built by": f"{entry.builder or entry.place.partition(':')[0]} {dict(entry.arguments) or ''}".strip(),
        "input rule": entry.input_rule or "as its own processor says",
        "output rule": f"{entry.output_rule or 'bilinear'}{', averaged with the mirrored image' * entry.flip}",
        "protocols": f"{entry.protocols}*",
    }
    for fact, value in facts.items():
        sys.stdout.write(f"{fact:<12}{value}\n")
