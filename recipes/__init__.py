"""The models of the lecture, one file each. They import `aelab.recipe` and `aelab.networks`, never each other."""
