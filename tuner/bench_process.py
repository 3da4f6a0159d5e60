"""The timing process: ``python -m polycomp.tuner.bench_process``."""

from polycomp.tuner.bench import Bench
from polycomp.tuner.serving import serve_requests
from polycomp.tuner.timing import Effort

if __name__ == "__main__":
    serve_requests(Bench(Effort()).answer)
