"""Time our kernels against other implementations at Stable Diffusion's shapes.

Run it as `python -m kernels.bench`.
"""
