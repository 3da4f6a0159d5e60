"""Running modules on NVIDIA GPUs. Imported only when a module for one is loaded; cupy only when a GPU is opened."""
