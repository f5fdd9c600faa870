"""PULSE: restore images by searching the latent space of a pretrained generator."""
