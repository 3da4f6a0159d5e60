"""``python benchmarks/cuda.py`` is ``cuda_speed.py``, where the benchmark for GPUs and its options are described.

While it runs, this folder is where Python looks for modules first, so that torch and cupy find this file in the place
of NVIDIA's packages (``cuda.pathfinder``). To them it is the package of that name: its path is theirs.
"""

import pathlib
import sys

if __name__ == "__main__":
    import cuda_speed

    sys.exit(cuda_speed.main())

__path__ = [str(folder) for entry in sys.path if (folder := pathlib.Path(entry) / "cuda").is_dir()]
