"""The pocket latent diffusion model: genuine `ldm` UNet, Encoder and Decoder, built from an SD-style yaml."""
