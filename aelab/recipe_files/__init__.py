"""Recipe files: found by name or path, read without being executed, and loaded; their signatures become options.

A recipe is code. It is executed only if it is built in, if it is in ./recipes, or if the user typed its path, now or in an
earlier command while the file had the same content. A run that names a recipe does not make it trusted.
"""

from aelab.recipe_files.execute import RecipeError, build, check, defined_at, in_a_line, load, recipe_error, signature
from aelab.recipe_files.option import Option, Signature, type_text
from aelab.recipe_files.places import available, find, of_run, trust
from aelab.recipe_files.recipe_file import RecipeFile
from aelab.recipe_files.source import read

__all__ = [
    "Option",
    "RecipeError",
    "RecipeFile",
    "Signature",
    "available",
    "build",
    "check",
    "defined_at",
    "find",
    "in_a_line",
    "load",
    "of_run",
    "read",
    "recipe_error",
    "signature",
    "trust",
    "type_text",
]
