"""aelab: train, evaluate, sample and compare the autoencoders and generative models of a lecture."""

import os

__version__ = "0.1.0"

# Read by OpenMP when torch is imported. Its threads spin for a millisecond before they sleep, which slows a small step manifold
# as soon as another process wants the same core; this short a spin costs nothing on an idle machine.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")
