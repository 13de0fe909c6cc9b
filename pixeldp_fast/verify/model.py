"""Whether the data and the model at hand are those of a record."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from pixeldp_fast.backends.arithmetic import stated_arithmetic
from pixeldp_fast.errors import UnsupportedModel
from pixeldp_fast.models.fingerprint import fingerprint
from pixeldp_fast.noise.registry import mechanism_from_dict
from pixeldp_fast.plan.rounding_budget import rounding_budget
from pixeldp_fast.plan.sensitivity import sensitivity
from pixeldp_fast.smooth.inputs import device_of
from pixeldp_fast.smooth.model import PixelDP
from pixeldp_fast.smooth.soundness import is_identity
from pixeldp_fast.types import Norm
from pixeldp_fast.verify.arithmetic import mp
from pixeldp_fast.verify.claim import Claim
from pixeldp_fast.verify.findings import Check
from pixeldp_fast.verify.lattice import prefix_slack
from pixeldp_fast.verify.reading import Records

if TYPE_CHECKING:
    from pixeldp_fast.data.dataset import Dataset
    from pixeldp_fast.verify.folder import Manifest

RELATIVE = 1e-9  # between two computations of one sensitivity
EVERYWHERE = "every example"


def check_data(records: Records, manifest: Manifest | None, dataset: Dataset) -> Check:
    """Whether these are the examples: by their sha256, or without a run by their labels."""
    check = Check("data", "the examples' sha256 is the manifest's, their labels are the record's")
    index = [row["index"] for row in records.rows]
    check.examined = len(index)
    beyond = [i for i in index if i >= len(dataset)]
    if beyond:
        words = f"{beyond[0]} is beyond the {len(dataset)} examples of {dataset.name}"
        check.add(EVERYWHERE, "index", words)
        return check
    if manifest is None:
        check.against = "the labels alone: only a run's manifest holds the examples' sha256"
    elif dataset.subset(index).fingerprint() != manifest.data_fingerprint:
        check.add("manifest.json", "data.fingerprint", f"is not that of {dataset.name}")
    if records.claim["input_range"] is not None:
        _check_within(check, records, dataset, records.claim["input_range"])
    labels = dataset.labels(index)
    for row, label in zip(records.rows, [] if labels is None else labels.tolist(), strict=False):
        if row["label"] is not None and row["label"] != label:
            check.add(row.where, "label", f"is {row['label']}, in {dataset.name} it is {label}")
    return check


def _check_within(check: Check, records: Records, dataset: Dataset, box: list[float]) -> None:
    """Name the examples outside of the range that the claim is about."""
    for row in records.rows:
        x = dataset.images([row["index"]])
        low, high = float(x.min()), float(x.max())
        if not box[0] <= low <= high <= box[1]:
            words = f"is {box}, but the example reaches from {low!r} to {high!r}"
            check.add(row.where, "terms.input_range", words)


def check_model(claim: Claim, model: PixelDP) -> Check:
    """Whether this is the model, and whether its prefix amplifies an attack no more than stated."""
    check = Check("model", "its sha256, its noise, and its sensitivity computed anew", 3)
    if claim.law.lattice is not None:
        check.against = "its sha256, its noise, its sensitivity and its slack computed anew"
        check.examined = 4
    found, stated = fingerprint(model), claim["model_fingerprint"]
    if stated != found:
        words = f"is {stated[:12]}..., that of this model {found[:12]}..."
        check.add(EVERYWHERE, "terms.model_fingerprint", words)
    mechanism = mechanism_from_dict(claim["mechanism"])
    if model.mechanism != mechanism:
        words = f"is {mechanism!r}, that of this model {model.mechanism!r}"
        check.add(EVERYWHERE, "terms.mechanism", words)
        return check
    shape, norm = tuple(claim["input_shape"]), Norm.parse(claim["norm"])
    exact = sensitivity(model.prefix, shape, norm, mechanism.norm)
    if not exact <= claim.sensitivity * (1 + RELATIVE):
        words = f"is {claim.sensitivity!r} for norm {norm}, that of this model {exact!r}"
        check.add(EVERYWHERE, "terms.sensitivities", words)
    if claim.law.lattice is not None:
        for name, words in _of_the_prefix(claim, model):
            check.add(EVERYWHERE, f"terms.{name}", words)
    return check


def _of_the_prefix(claim: Claim, model: PixelDP) -> Iterator[tuple[str, str]]:
    """What is not as this model's prefix makes it, of the terms that its rounding decides.

    Fidelity
        The rounding budget is the one that certifies, on this model's weights; nothing second.
    """
    box, slack = claim["input_range"], claim["slack"]
    if is_identity(model.prefix):
        if box is not None:
            yield "input_range", f"is {box}, but this model has no prefix"
        return
    if box is None:
        yield "input_range", "is missing, but the noise of this model is behind a prefix"
        return
    try:
        with stated_arithmetic(device_of(model.prefix)):
            budget = rounding_budget(model.prefix, tuple(claim["input_shape"]), (box[0], box[1]))
    except UnsupportedModel as error:
        yield "slack", f"is {slack!r}, but nothing bounds this model's rounding: {error}"
        return
    if len(budget) != claim["coordinates"]:
        yield "coordinates", f"is {claim['coordinates']}, behind this model's prefix {len(budget)}"
    exact = prefix_slack(claim.law, budget.tolist())
    if not exact <= slack <= exact * (1 + RELATIVE):
        side = "below" if slack < exact else "too far above"
        given = f"{mp().nstr(exact, 17)}, what this model gives over `input_range` {box}"
        yield "slack", f"is {slack!r}, {side} {given}"
