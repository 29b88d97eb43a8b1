"""Serving: many texts at once from one pool of pages, as requests come and go."""

from qwenkit.serve.pages import PagedCache
from qwenkit.serve.request import Request
from qwenkit.serve.scheduler import Scheduler

__all__ = ["PagedCache", "Request", "Scheduler"]
