"""What the reader wrote: collected from notebooks in one file, and assembled into a model.

    qk.mine.keep(rotate)      # in the notebook: adds the function to my_qwen.py
    qk.mine.parts()           # which parts of the model are the reader's by now
    qk.mine.model(model)      # the same weights, computed by the reader's functions
    qk.mine.functions()       # the parts as functions; the package's stand in for missing ones

The file is an ordinary module next to the notebooks: it can be read, edited, and imported with
`import my_qwen`. The variable `QWENKIT_MINE` names another file.
"""

from qwenkit.mine._collect import file, keep, load
from qwenkit.mine._parts import PARTS, Parts, functions, model, parts

__all__ = ["PARTS", "Parts", "file", "functions", "keep", "load", "model", "parts"]
