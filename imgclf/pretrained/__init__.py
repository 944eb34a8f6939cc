"""Weights that a run starts from: found, held against the network, and put into it.

A run begins with them once; a run that is resumed has its own, and where these came from is in its
`weights.json`. Knows no step and no optimizer.
"""
