"""The page: a txt2img and an img2img tab, in which the scripts' controls appear. Runs on gradio 4.40."""
