"""Interfaces that other projects define and polycomp implements."""
