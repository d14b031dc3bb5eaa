"""Encoders: timm backbones that publish channels, strides, normalisation and patch size."""
