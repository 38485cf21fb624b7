"""Trains a network on an exported bundle of labels of which some are wrong.

Stands alone: needs torch and torchvision, and runs from a copy of this folder. See README.md.
"""
