"""A compile process of the tuner: ``python -m polycomp.tuner.builder_process``."""

from polycomp.tuner.builder import answer, warm_up
from polycomp.tuner.serving import serve_requests

if __name__ == "__main__":
    serve_requests(answer, warm_up)
