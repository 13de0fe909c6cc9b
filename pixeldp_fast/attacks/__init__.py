"""Attacks on the smoothed model, judged by fresh draws, and checks that they are no bluff."""

from pixeldp_fast.attacks.attack import METHODS, AttackResult, attack
from pixeldp_fast.attacks.bridge import as_module

__all__ = ["METHODS", "AttackResult", "as_module", "attack"]
