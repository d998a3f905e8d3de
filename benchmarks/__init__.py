"""Measurements of this code: tables of scores, speed, and other programs."""
