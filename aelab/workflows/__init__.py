"""What one can do with runs: train, resume, evaluate, sweep, export."""
