"""Mirrors the package `modules` of AUTOMATIC1111's WebUI 1.10.1, as far as an extension uses it. Own code."""
