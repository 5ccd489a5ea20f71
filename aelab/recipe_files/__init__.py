"""Recipes by name or path: found and read without being run, loaded one at a time, their signatures read as options.

A recipe is code. It is executed if it is built in, if it is in ./recipes, or if the user typed its path: in this command, or,
the same bytes at the same place, in an earlier one. That a run names it is no reason.
"""

from aelab.recipe_files.execute import build, check, load, signature
from aelab.recipe_files.option import Option, Signature
from aelab.recipe_files.places import available, find, of_run, trust
from aelab.recipe_files.recipe_file import RecipeFile

__all__ = [
    "Option",
    "RecipeFile",
    "Signature",
    "available",
    "build",
    "check",
    "find",
    "load",
    "of_run",
    "signature",
    "trust",
]
