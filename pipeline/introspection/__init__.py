"""Look inside a running model.

- recordings: every UNet call of a picture, with its latents and attention maps
- word maps: the mean of a recording's attention maps over its calls
- branches: continue a recorded picture from one of its steps with other options
- traces: output, shape and time of every stage from prompt to picture
- races: several samplers from the same noise, or several backends on the same picture
- activations: the output of every UNet block in a call
- CLIP: compare sentences and pictures in CLIP's embedding space
"""
