"""`python -m kernels.bench`: our kernels against their peers at Stable Diffusion's shapes."""
