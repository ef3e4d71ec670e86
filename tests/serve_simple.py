"""Serves the teacher without a model on a port of this machine, until it is killed."""

from __future__ import annotations

import sys

import uvicorn

from kdtw_jax.teachers.server import Limits, make_app
from tests.simple_teacher import SimpleTeacher, V

if __name__ == "__main__":
    app = make_app(SimpleTeacher(), Limits(top_k=V), ("127.0.0.1",))
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="error")
