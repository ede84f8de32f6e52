"""The pocket WebUI's web side: the HTTP API in `api.py`, the page in `page/`. Shapes are A1111 1.10.1's."""
