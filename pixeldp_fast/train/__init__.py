"""Training behind the noise: settings, schedules, the loop, and the recipes that are known to work.

The loop is `pixeldp_fast.train.loop.train`; it imports torch, the names below do not.
"""

from pixeldp_fast.train.recipes import RECIPES, Recipe
from pixeldp_fast.train.settings import TrainingSettings

__all__ = ["RECIPES", "Recipe", "TrainingSettings"]
