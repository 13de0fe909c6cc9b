"""Whether the data and the model at hand are those of a record."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pixeldp_fast.models.fingerprint import fingerprint
from pixeldp_fast.noise.registry import mechanism_from_dict
from pixeldp_fast.plan.sensitivity import sensitivity
from pixeldp_fast.smooth.model import PixelDP
from pixeldp_fast.types import Norm
from pixeldp_fast.verify.claim import Claim
from pixeldp_fast.verify.findings import Check
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
    labels = dataset.labels(index)
    for row, label in zip(records.rows, [] if labels is None else labels.tolist(), strict=False):
        if row["label"] is not None and row["label"] != label:
            check.add(row.where, "label", f"is {row['label']}, in {dataset.name} it is {label}")
    return check


def check_model(claim: Claim, model: PixelDP) -> Check:
    """Whether this is the model, and whether its prefix amplifies an attack no more than stated."""
    check = Check("model", "its sha256, its noise, and its sensitivity computed anew", 3)
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
    return check
