"""The procedural world that the pocket model knows: captions, scenes at any size and crop, and a counter of objects.

Training, the demo and the benchmarks draw from it; it imports none of them.
"""
