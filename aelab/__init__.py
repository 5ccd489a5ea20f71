"""aelab: train, evaluate, sample and compare the autoencoders and generative models of a lecture."""

import os

__version__ = "0.1.0"

# Read by OpenMP when torch is imported. Threads that spin while they wait slow a small step twentyfold as soon as another
# process wants the same core.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
