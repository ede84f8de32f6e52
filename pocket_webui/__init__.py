"""A pocket WebUI: the part of Automatic1111 that an extension relies on, with a small trained model inside.

`pocket_webui.boot.boot()` makes the package `modules` importable, loads the model and the extension's scripts.
"""
