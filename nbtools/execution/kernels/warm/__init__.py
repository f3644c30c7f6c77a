"""Kernels that are forked from a process which has imported what they need.

``zygote`` and ``shell`` run under interpreters that know nothing of nbtools: they, and ``wire``, import
the standard library and ipykernel only.
"""
