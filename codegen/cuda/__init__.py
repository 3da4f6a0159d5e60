"""CUDA: loop nests to CUDA C++, that to machine code of NVIDIA's GPUs, and what of a GPU a kernel takes up."""
