"""Recipes: a training from the data to a .nest, written down in a TOML file or in Python."""

from nestedge.training.recipes.frame import Method, Prepare, Setup
from nestedge.training.recipes.methods import METHODS
from nestedge.training.recipes.recipe import Recipe, read_recipe, recipe_from
from nestedge.training.recipes.running import Trained, run_recipe

__all__ = [
    "METHODS",
    "Method",
    "Prepare",
    "Recipe",
    "Setup",
    "Trained",
    "read_recipe",
    "recipe_from",
    "run_recipe",
]
