"""How good a model is: its figures on held-out images, each defined once, with baselines and controls."""
