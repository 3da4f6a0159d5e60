"""The polyhedral level: kernels and their schedule trees, dependences, legality and bounds.

The only package that imports islpy; nothing is imported here, so that the tree alone can be used without it.
"""
