"""The lab: a local page in which one watches and steers adversarial training.

`lab.lab` starts it; `engine` steps the games in a thread of its own, and
`server` connects them to the browser. It needs the packages of `.[lab]`.
"""
