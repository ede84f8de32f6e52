"""An autoencoder in tiles, equal to the whole but for rounding."""
