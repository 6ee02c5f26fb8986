"""Numerics on the sphere: transforms, Gaussian measures, diffusion. No disk, no scheduler."""
