"""Image grids, GIFs, and plots of toy games.

This folder may import `games` and `data` (for toys), and the modules at the top
of the package. It never imports `training`, `runs`, `modes` or `sweep`.
"""
