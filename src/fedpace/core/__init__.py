"""Vocabulary: clients, system, plan, adapter, messages, records, randomness, errors.

Imports nothing but NumPy.
"""
