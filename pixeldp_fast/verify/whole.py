"""The verification of a file or folder: what can be checked from it alone."""

from __future__ import annotations

import os
from pathlib import Path

from pixeldp_fast._version import __version__
from pixeldp_fast.errors import RecordError
from pixeldp_fast.verify.arithmetic import mp
from pixeldp_fast.verify.claim import NORMS, Claim, read_claim
from pixeldp_fast.verify.findings import Check, Verification
from pixeldp_fast.verify.folder import Manifest, check_folder, is_run, read_manifest
from pixeldp_fast.verify.lattice import check_lattice
from pixeldp_fast.verify.reading import Records, read_records
from pixeldp_fast.verify.rows import Report, check_rows


def read(path: str | os.PathLike[str]) -> tuple[Records, Manifest | None]:
    """The records of a file or of a run's folder, and the folder's manifest.

    Raises
    ------
    RecordError
        When they cannot be read, by line and field; when they are of another version, by its name.
    """
    place = Path(path)
    if not place.is_dir():
        return read_records(place), None
    if not is_run(place):
        raise RecordError(f"{place} is not the folder of a run: it has no manifest.json.")
    manifest = read_manifest(place)
    read_claim(manifest.content["terms"])
    return read_records(place / manifest.result), manifest


def verify(
    path: str | os.PathLike[str],
    records: Records,
    manifest: Manifest | None,
    report: Report = lambda done, total: None,
) -> Verification:
    """Re-derive every number of `records` by a second implementation, and check what is around it.

    Parameters
    ----------
    path : path
        Where they were read.
    records, manifest
        From `read`.
    report : callable
        Gets the examples done and in all.

    Guarantee
        Where nothing disagrees, every bound and radius is on the safe side of the exact one, which
        the stored counts and terms give by definition, and within 1e-9 of it. Whether the counts
        are those of the model, only drawing them again can tell; see `redraw`.
    Fidelity
        An edit of everything at once, consistent in itself, is a different and valid record.

    Raises
    ------
    MissingExtra
        Without mpmath.
    """
    mp()
    claim = records.claim
    terms = Check("terms", f"every one known here; made by version {__version__}", len(claim.terms))
    checks = [terms, check_lattice(claim), *check_rows(records, report)]
    if manifest is not None:
        checks += check_folder(Path(path), manifest, records)
    else:
        beside = is_run(Path(path).parent)
        why = "verify the folder to check them" if beside else "the file is not in a run's folder"
        checks.append(Check("shards", why, skipped=True))
    return Verification(str(path), len(records.rows), claim.terms, [*checks, _recertifiable(claim)])


def _recertifiable(claim: Claim) -> Check:
    """What `recertify` may change: everything that the number of draws does not depend on."""
    norms = [norm for norm in NORMS if norm in claim["sensitivities"]]
    judged = "other radii" if claim["stop"] == "decided" else "another bound"
    changes = f"{judged}, and the norms {', '.join(norms)}"
    if claim["stop"] == "fixed":
        return Check("recertify", f"another alpha, {changes}", verdict="allowed")
    return Check(
        "recertify",
        f"{changes}; refused: another alpha, because a rule at this alpha (stop="
        f"'{claim['stop']}') ended the draws",
        verdict="in part",
    )
