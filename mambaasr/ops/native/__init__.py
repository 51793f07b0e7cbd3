"""The compiled CPU kernels: C++ sources, their build, and the calls into them."""
