"""Makes the pocket checkpoint: a procedural world, a small VAE and a small UNet, from nothing, with one command."""
