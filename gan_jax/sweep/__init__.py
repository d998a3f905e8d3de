"""Many runs of one experiment: what they vary, where they run, what they gave.

`drive.py` is the one process that plans and watches; a trial is an ordinary
`launch.py` run in its own workdir.
"""
