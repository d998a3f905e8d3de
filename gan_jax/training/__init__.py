"""Training: the step of any game, the loop around it, and what it writes.

This folder owns the state, the schedule, the optimizers, the training loop,
checkpoints, logs, and what happens when a run diverges, is stopped or loses a
process. It may import everything below it: games, data, metrics, plots and the
modules at the top of the package; never runs, modes or sweep.
"""
