"""Recordings of a request: every call of the UNet, with its latents and word maps.

Also what is built on them: branches (drawing again from a recorded step with other options), traces
(shape and time of every stage), and races (several samplers from the same noise).
"""
