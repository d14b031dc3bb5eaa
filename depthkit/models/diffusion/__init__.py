"""Latent diffusion models that predict depth: codecs, noise schedule, sampling, folders of weights."""
