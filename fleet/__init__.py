"""Many pictures over many WebUIs: prompt lists and folders of pictures, on Ray. `python -m fleet --help`.

The extension does not need this package; `requirements-fleet.txt` names what it needs.
"""
